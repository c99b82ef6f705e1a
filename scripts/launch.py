"""Starts a training script: one process a GPU of this machine, and, told so, together with other machines.

    python scripts/launch.py SCRIPT DEFAULT_CONFIG [CONFIG] [key=value ...] [--dry_run]

The three *_train.sh call it; docs/training.md says what they look at in the environment. It needs no configuration of
accelerate's and reads none. A single process takes this one's place; of several this one is the parent, which passes
signals on, ends the others when one has failed, and leaves with the exit code of the first that failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED_GPUS = 4
MASTER_PORT = 29500
STOPPED = 128 + signal.SIGTERM  # what a training leaves with that was told to stop, and saved
SECONDS_TO_LEAVE = 30  # for the other processes, once one has failed


class LaunchError(Exception):
    """What the user wrote in the environment cannot be: one line."""


@dataclass(frozen=True)
class Plan:
    """Who runs where.

    Attributes:
        processes: on this machine, and on each of the others.
        machines: how many.
        machine: which of them this one is, from 0.
        address, port: where the first process of machine 0 is reached.
        devices: for CUDA_VISIBLE_DEVICES; "": the CPU; None: left as it is.
    """

    processes: int
    machines: int = 1
    machine: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    devices: str | None = None

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.processes * self.machines


def number(environment: Mapping[str, str], name: str, default: int, lowest: int = 0) -> int:
    """A whole number from the environment."""
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < lowest:
        raise LaunchError(f"{name}={text} is not a number of {lowest} or more. Mend or unset it.")
    return int(text)


def devices_of(environment: Mapping[str, str]) -> tuple[int, str | None]:
    """How many GPUs to use, and which: those that are named, else the first four, as published, of what is there."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        gpus = [name for name in named.split(",") if name.strip()]
        return (0 if gpus[:1] == ["-1"] else len(gpus)), None
    if shutil.which("nvidia-smi") is None:
        return 0, None
    told = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    gpus = min(PUBLISHED_GPUS, len(re.findall(r"^GPU ", told, re.MULTILINE)))
    return gpus, ",".join(map(str, range(gpus))) if gpus else None


def machines_of(environment: Mapping[str, str]) -> dict[str, int | str]:
    """Number of machines, this one's rank, and the first one's address and port; from the variables or SLURM's."""
    given = "NUM_MACHINES" in environment
    if not given and "SLURM_STEP_NUM_NODES" in environment and "SLURM_NODEID" in environment:
        machines = number(environment, "SLURM_STEP_NUM_NODES", 1, 1)
        if machines > 1 and number(environment, "SLURM_STEP_NUM_TASKS", machines) != machines:
            raise LaunchError("SLURM starts several tasks a node. Write srun --ntasks-per-node=1.")
        rank = number(environment, "SLURM_NODEID", 0)
        address = environment.get("MAIN_ADDRESS") or first_host(environment.get("SLURM_STEP_NODELIST", ""))
        port = number(environment, "MAIN_PORT", 20000 + number(environment, "SLURM_JOB_ID", 0) % 20000, 1)
    else:
        machines = number(environment, "NUM_MACHINES", 1, 1)
        rank = number(environment, "MACHINE_RANK", 0)
        address = environment.get("MAIN_ADDRESS", "")
        port = number(environment, "MAIN_PORT", MASTER_PORT, 1)
        if machines == 1 and number(environment, "SLURM_NNODES", 1) > 1 and not given:
            print("note: this SLURM job has several nodes, and one is used. Write srun before sh to use all.")
    if machines == 1:
        return {"machines": 1}
    if not address:
        raise LaunchError(
            "NUM_MACHINES is above 1. Set MAIN_ADDRESS to the name of the machine of MACHINE_RANK=0."
        )
    if rank >= machines:
        raise LaunchError(f"MACHINE_RANK={rank} is not below NUM_MACHINES={machines}. Ranks start at 0.")
    return {"machines": machines, "machine": rank, "address": address, "port": port}


def first_host(nodes: str) -> str:
    """The first host of SLURM's compact list: ``gpu[03-05,9],login`` -> ``gpu03``."""
    match = re.match(r"([^,\[]*)(?:\[([^\]]*)\])?([^,\[]*)", nodes)
    if not match:
        return ""
    return match[1] + re.split(r"[-,]", match[2] or "")[0] + match[3]


def make_plan(environment: Mapping[str, str]) -> Plan:
    """Who runs where, from the environment."""
    gpus, devices = devices_of(environment)
    processes = number(environment, "NUM_PROCESSES", max(1, gpus), 1)
    where = machines_of(environment)
    plan = Plan(processes, devices=devices, **where)  # type: ignore[arg-type]
    if plan.world_size > 1 and plan.machines == 1:
        return Plan(processes, port=free_port(), devices=devices)
    return plan


def free_port() -> int:
    """A port that nobody listens on, so that two launches on one machine do not meet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment_of(plan: Plan, local_rank: int) -> dict[str, str]:
    """What a training process finds in its environment."""
    made = dict(os.environ)
    if plan.devices is not None:
        made["CUDA_VISIBLE_DEVICES"] = plan.devices
    if not (plan.devices or made.get("CUDA_VISIBLE_DEVICES")):  # on the CPU the processes share the cores
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        made.setdefault("OMP_NUM_THREADS", str(-(-cores // plan.processes)))
    if plan.world_size > 1:
        made |= {
            "RANK": str(plan.machine * plan.processes + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(plan.world_size),
            "LOCAL_WORLD_SIZE": str(plan.processes),
            "MASTER_ADDR": plan.address,
            "MASTER_PORT": str(plan.port),
        }
    return made


def run_all(command: list[str], plan: Plan) -> int:
    """Runs the processes of this machine; returns the exit code of the first that failed, or 0."""
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for passed in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(passed, pass_on)
    for local_rank in range(plan.processes):
        children.append(subprocess.Popen(command, env=environment_of(plan, local_rank)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keyboard reaches the processes without us
    failed, deadline = 0, float("inf")
    while any(child.poll() is None for child in children):
        time.sleep(0.1)
        for child in children:
            if child.returncode not in (None, 0, STOPPED) and not failed:
                failed, deadline = child.returncode, time.monotonic() + SECONDS_TO_LEAVE
                pass_on(signal.SIGTERM, None)
        if time.monotonic() > deadline:  # waiting for the one that is gone, deep inside a library
            pass_on(signal.SIGKILL, None)
    failed = failed or next((child.returncode for child in children if child.returncode), 0)
    return failed if failed >= 0 else 128 - failed


def choose_config(config: str, arguments: list[str]) -> tuple[str, list[str]]:
    """The config to train with, and the other arguments.

    It is the one after ``--config``, the last of several as argparse has it; else the first of ``arguments``, if that
    is neither a field nor a flag; else ``config``.
    """
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        config, *arguments = arguments
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    named.add_argument("--config", default=config)
    try:
        found, others = named.parse_known_args(arguments)
    except argparse.ArgumentError:  # --config and no name: the script says so
        return config, arguments
    return found.config, others


def main(script: str, config: str, arguments: list[str]) -> int:
    """Starts ``script`` with the config that ``arguments`` name, else with ``config``."""
    config, arguments = choose_config(config, arguments)
    path = Path(script) if Path(script).is_file() else ROOT / script
    command = [sys.executable, str(path), "--config", config, *arguments]
    plan = make_plan(os.environ)
    where = f"machine {plan.machine + 1} of {plan.machines}, " if plan.machines > 1 else ""
    print(
        f"{where}{plan.processes} process{'es' * (plan.processes > 1)}: {script} --config {config}",
        flush=True,
    )
    if plan.world_size == 1:
        os.execve(command[0], command, environment_of(plan, 0))
    return run_all(command, plan)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
