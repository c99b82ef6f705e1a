"""Where tasks run: on this machine's processes, or on a Ray cluster (``pip install ctrlgenaug[cluster]``).

With Ray, placement on processors and GPUs and the dashboard are Ray's. What a task is, when it is done, what is
tried again and why it failed stay ours (`ctrlgenaug.leases`), so that the same files come out, and journals on disk
remain the truth: a cluster that is lost loses nothing that was written.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ctrlgenaug.cluster_address import call, host_and_port, last_started
from ctrlgenaug.errors import UserError
from ctrlgenaug.executor import MOST_FAILED_STARTS, Executor, Factory, Finished, LocalExecutor

SECONDS_BETWEEN_CALLS = 5
EXIT_LOST = 2  # an error that its line says how to mend
SECONDS_TO_COME_BACK = 30  # for a head machine; Ray itself gives up after 60
PROCESS_ENDED = "its process ended"
MACHINE_LEFT = "its machine left the cluster"
REMEDY = "Start Ray there (ray start --head), or leave --cluster out"

_address: str | None = None  # of the cluster that this process's steps use; a command line has one


def choose(address: str | None) -> None:
    """Has all later steps of this process run on the Ray cluster at ``address`` (``auto``: the one of this machine)."""
    global _address
    _address = address


def chosen() -> str | None:
    """The address of the cluster that is used, or None: this machine's processes."""
    return _address


class _Choose(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values)
        choose(values)


def add_option(group: Any) -> None:
    """Adds ``--cluster`` to a parser or a group of one."""
    group.add_argument(
        "--cluster",
        action=_Choose,
        metavar="auto|ADDRESS",
        help="run on a Ray cluster: auto (this machine is part of it) or host:port; all its machines must see the same "
        "folders (default: this machine alone)",
    )


def executor(
    factory: Factory,
    arguments: dict[str, Any],
    devices: Sequence[str],
    note: Callable[[str], None],
    folders: Sequence[str | Path] = (),
) -> Executor:
    """Workers where they were chosen to run.

    Args:
        factory, arguments, devices, note: see `LocalExecutor`. On a cluster ``devices`` tell the number and the kind
            alone: which GPU it is, is Ray's choice.
        folders: what every machine of a cluster must see, besides the folder that the command was started in.

    Raises:
        UserError: the cluster does not answer, has fewer GPUs than asked for, or a machine of it has another version of
            the project or lacks a folder.
    """
    if _address is None:
        return LocalExecutor(factory, arguments, devices, note)
    ray = connect(_address)
    _check_nodes(ray, [os.getcwd(), *(str(Path(folder).resolve()) for folder in folders)])
    return RayExecutor(ray, factory, arguments, devices, note)


def places(device: str, num_workers: int | None, most: int) -> list[str]:
    """A device name for each worker on the cluster: ``num_workers``, else one a GPU, or a processor if there is none.

    Args:
        device: ``cpu``; ``auto``, for GPUs if the cluster has any; anything else for GPUs.
        num_workers: how many are asked for, or None.
        most: how many can be busy at once.
    """
    assert _address is not None, "no cluster was chosen"
    there = connect(_address).cluster_resources()
    on_gpu = device != "cpu" and (device != "auto" or there.get("GPU", 0) > 0)
    number = num_workers or int(there.get("GPU" if on_gpu else "CPU", 1))
    return ["cuda:0" if on_gpu else "cpu"] * max(1, min(most, number))


def connect(address: str) -> Any:
    """The ``ray`` module, connected; a `UserError` if it is not installed or the cluster does not answer."""
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed", "Run pip install 'ctrlgenaug[cluster]'") from None
    if ray.is_initialized():
        return ray
    # Ray would wait for minutes for a cluster that has ended since
    meant = last_started() if address == "auto" else address
    if meant:
        try:
            call(*host_and_port(meant))
        except OSError as error:
            raise UserError(f"no Ray cluster answers at {meant} ({error})", REMEDY) from None
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot join the Ray cluster at {address} ({reason})", REMEDY) from None
    return ray


def _describe_node(folders: Sequence[str]) -> dict[str, Any]:
    """What a machine says of itself: the project's code, Python, and the folders that it lacks."""
    return {
        "code": _code(),
        "python": ".".join(map(str, sys.version_info[:2])),
        "missing": [folder for folder in folders if not Path(folder).is_dir()],
    }


def _code() -> str:
    """A digest of the project's modules, which tells two versions apart."""
    from ctrlgenaug.files import fingerprint

    root = Path(__file__).resolve().parent.parent
    packages = ("ctrlgenaug", "cond2img", "cond2video", "augment")
    return fingerprint(sorted(file for package in packages for file in (root / package).rglob("*.py")))


def _check_nodes(ray: Any, folders: Sequence[str]) -> None:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task, own = ray.remote(num_cpus=0)(_describe_node), _describe_node(())
    asked = [  # two nodes may have one address: containers of one machine
        (
            node["NodeManagerAddress"],
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(folders),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    for name, answer in asked:
        try:
            told = ray.get(answer, timeout=120)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"machine {name} of the cluster cannot run the project ({reason})", "Install it there"
            ) from None
        for what in ("python", "code"):
            if told[what] != own[what]:
                version = "version of Python" if what == "python" else "version of the project"
                raise UserError(
                    f"machine {name} of the cluster has another {version} ({told[what]}, here {own[what]})",
                    "Install the same on all machines",
                )
        if told["missing"]:
            raise UserError(
                f"machine {name} of the cluster does not see {told['missing'][0]}",
                "Put data, model and output on a file system that all machines share",
            )


class _Actor:
    """A worker on a machine of the cluster."""

    def start(self, factory: Factory, device: str, arguments: dict[str, Any], folder: str) -> tuple[str, Any]:
        """Makes the tool in ``folder``: ("ready", None), ("refused", a `UserError`'s parts) or ("unstarted", why)."""
        try:
            os.chdir(folder)  # so that relative paths mean what they mean where the command was started
            self.tool = factory(device=device, **arguments)
        except UserError as error:
            return "refused", (error.problem, error.remedy, error.path)
        except Exception as error:
            return "unstarted", f"{type(error).__name__}: {error}"
        return "ready", None

    def run(self, task: Any) -> tuple[str, Any]:
        """What the tool makes of a task."""
        return "result", self.tool(task)


def _answers(head: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError):
        call(*head)
        return True
    return False


def _watch_head(head: tuple[str, int], closed: threading.Event) -> None:
    """Ends this process with a line that says what to do once the head machine is lost, until ``closed``.

    Ray would end it too, later and without that line.
    """
    answered = time.monotonic()
    while not closed.wait(SECONDS_BETWEEN_CALLS):
        if _answers(head):
            answered = time.monotonic()
        elif time.monotonic() - answered > SECONDS_TO_COME_BACK and not closed.is_set():
            lost = UserError(
                "the head machine of the cluster does not answer any more",
                "Start Ray again and run the same command: what is done is kept",
            )
            print(f"\nerror: {lost}", file=sys.stderr, flush=True)
            os._exit(EXIT_LOST)


class RayExecutor:
    """A Ray actor for each worker, replaced when its process or its machine dies; see `Executor`.

    Args:
        ray: the module, connected.
        factory, arguments, note: see `LocalExecutor`.
        devices: one entry a worker: ``cpu``, or a GPU, whose number is Ray's choice.

    Raises:
        UserError: the cluster has fewer GPUs than asked for.
    """

    def __init__(
        self,
        ray: Any,
        factory: Factory,
        arguments: dict[str, Any],
        devices: Sequence[str],
        note: Callable[[str], None],
    ) -> None:
        self._ray, self._arguments, self._note = ray, (factory, arguments), note
        wanted, there = sum(device != "cpu" for device in devices), int(ray.cluster_resources().get("GPU", 0))
        if wanted > there:
            remedy = (
                f"Give --num_workers {there}" if there else "Give --device cpu, or add machines with GPUs"
            )
            raise UserError(f"the cluster has {there} GPUs, {wanted} are asked for", remedy)
        if ray.cluster_resources().get("CPU", 0) < 1:  # each worker takes one, and would wait for ever
            raise UserError("the cluster has no processor to run workers on", "Start Ray with --num-cpus")
        self.devices = list(devices)
        self.reasons: list[str] = []
        self._actors: list[Any] = [None] * len(devices)
        self._pending: dict[Any, int] = {}  # what was asked of an actor -> its number
        self._ready, self._busy = [False] * len(devices), [False] * len(devices)
        self._failed_starts = [0] * len(devices)
        self._actor = ray.remote(_Actor)  # once, because each time needs the head machine
        self._closed = threading.Event()
        self._head = host_and_port(ray.get_runtime_context().gcs_address)
        threading.Thread(target=_watch_head, args=(self._head, self._closed), daemon=True).start()
        for number in range(len(devices)):
            self._start(number)

    def idle(self) -> list[int]:
        return [n for n in range(len(self.devices)) if self._ready[n] and not self._busy[n]]

    def submit(self, worker: int, task: Any) -> None:
        self._busy[worker] = True
        self._pending[self._actors[worker].run.remote(task)] = worker

    def wait(self) -> Finished | None:
        (answer,), _ = self._ray.wait(list(self._pending), num_returns=1)
        number = self._pending.pop(answer)
        try:
            kind, value = self._ray.get(answer)
        except self._ray.exceptions.RayActorError as error:
            return self._bury(number, MACHINE_LEFT if "its node" in str(error) else PROCESS_ENDED)
        # a tool that raises, or whose result cannot be sent
        except self._ray.exceptions.RayError as error:
            return self._bury(number, " ".join(str(error).split())[:200])
        if kind == "refused":
            raise UserError(*value)
        if kind == "result":
            self._busy[number] = False
            return Finished(number, value)
        if kind == "ready":
            self._ready[number], self._failed_starts[number] = True, 0
            return None
        return self._bury(number, value)

    @property
    def alive(self) -> bool:
        return bool(self._pending) or any(self._ready)

    def _start(self, number: int) -> None:
        device = self.devices[number]
        factory, arguments = self._arguments
        needs = {"num_cpus": 1} if device == "cpu" else {"num_cpus": 1, "num_gpus": 1}
        self._ready[number], self._busy[number] = False, False
        # asked of a lost head machine, Ray would stop all threads; `_watch_head` ends the waiting
        while not _answers(self._head):
            time.sleep(1)
        self._actors[number] = self._actor.options(**needs).remote()
        on = "cpu" if device == "cpu" else "cuda:0"  # an actor sees its own GPU alone
        self._pending[self._actors[number].start.remote(factory, on, arguments, os.getcwd())] = number

    def _bury(self, number: int, reason: str) -> Finished | None:
        busy, started = self._busy[number], self._ready[number]
        whole_machine = reason == MACHINE_LEFT
        if started or whole_machine:
            self._note(f"worker {number} of the cluster died ({reason}); starting another")
        else:
            self._failed_starts[number] += 1
            self.reasons.append(reason)
            last = self._failed_starts[number] >= MOST_FAILED_STARTS
            what = "going on without it" if last else "trying once more"
            self._note(f"worker {number} of the cluster could not start ({reason}); {what}")
            if last:
                self._ready[number] = False
                return None
        self._start(number)
        return (
            Finished(number, death=f"its worker died ({reason})", at_fault=not whole_machine)
            if busy
            else None
        )

    def close(self) -> None:
        self._closed.set()
        for actor in filter(None, self._actors):
            self._ray.kill(actor)
