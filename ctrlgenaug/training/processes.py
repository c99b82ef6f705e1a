"""The processes of one training: which one this is, how they find each other, and when they leave."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.processes import environment_number

SECONDS_TO_JOIN = 600  # for the other machines' processes to appear
SECONDS_TO_LEAVE = 120  # to finish a step and save, once the launcher is gone
WAIT = timedelta(hours=6)  # validation and saving are the main process's; the others wait for it this long
LAUNCHERS = (b"launch.py", b"accelerate", b"torchrun", b"torch.distributed", b"torch/distributed")


def rank() -> int:
    """This process's rank, 0 for the main one; a `UserError` if the environment makes no sense."""
    own, world = environment_number("RANK", 0), world_size()
    if own >= world:
        raise UserError(
            f"the environment says RANK={own} of WORLD_SIZE={world}", "Start it by its *_train.sh script"
        )
    return own


def world_size() -> int:
    """How many processes train together."""
    return max(1, environment_number("WORLD_SIZE", 1))


def forget_accelerate_settings() -> list[str]:
    """Takes a user's own accelerate settings out of the environment; returns the engines among them.

    Training here is plain data parallelism, and everything else is set by its own config: what `accelerate config` or
    a job script left behind must neither change nor break it.
    """
    engines = {"DEEPSPEED": "DeepSpeed", "FSDP": "FSDP", "MEGATRON_LM": "Megatron-LM"}
    asked = {engine: os.environ.get(f"ACCELERATE_USE_{engine}", "").lower() for engine in engines}
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        del os.environ[name]
    return [engines[engine] for engine, value in asked.items() if value in ("true", "1", "yes")]


def connect(on_gpu: bool) -> None:
    """Joins the other processes, if there are any.

    Raises:
        UserError: they do not all appear within `SECONDS_TO_JOIN`.
    """
    world = world_size()
    if world == 1:
        return
    import torch
    from torch import distributed

    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), environment_number("MASTER_PORT", 29500)
    # torchrun has opened the meeting point already; a launcher that has not leaves it to the first process
    opened = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = distributed.TCPStore(
            address, port, world, rank() == 0 and not opened, timedelta(seconds=SECONDS_TO_JOIN)
        )
        store.add("joined", 1)
        deadline = time.monotonic() + SECONDS_TO_JOIN
        while store.add("joined", 0) < world and time.monotonic() < deadline:
            time.sleep(0.1)
        if store.add("joined", 0) < world:
            raise TimeoutError
    except (RuntimeError, TimeoutError):
        raise UserError(
            f"{world} processes were to meet at {address}:{port}, and not all came within {SECONDS_TO_JOIN} s",
            "Start the same script on every machine, with MACHINE_RANK 0, 1, ... and MAIN_ADDRESS that all can reach",
        ) from None
    store.set_timeout(WAIT)
    if on_gpu:
        torch.cuda.set_device(environment_number("LOCAL_RANK", 0))
    backend = "nccl" if on_gpu else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank(), world_size=world, timeout=WAIT)


def lost_connection(error: BaseException) -> bool:
    """Whether ``error`` says that another process of the training is gone."""
    if world_size() == 1:
        return False
    text = str(error).lower()
    known = (
        "connection closed by peer",
        "connection reset",
        "broken pipe",
        "nccl",
        "gloo",
        "connection was likely",
    )
    return type(error).__name__.startswith("Dist") or any(words in text for words in known)


def leave_with_launcher() -> None:
    """Stops this process once its launcher is gone: as SIGTERM does, with a checkpoint if there is time for one.

    A launcher killed without warning would leave the training running, which nobody sees and which holds the run
    folder, and the other machines waiting for this one. A training started without a launcher is left alone.
    """
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes()
    except OSError:  # no /proc here
        return
    if any(name in command for name in LAUNCHERS):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    print("the launcher is gone; leaving", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_LEAVE)
    os._exit(1)
