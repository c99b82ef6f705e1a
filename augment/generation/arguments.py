"""Lists on the command line, in every spelling that a shell may make of ``["a", "b"]``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from augment.generation.plan import CONDITIONS
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.processes import environment_number


def words(tokens: str | Sequence[str]) -> list[str]:
    """The items of a list given as one or several tokens, without brackets, quotes and commas.

    ``[image_condition, motion_condition]``, ``["a","b"]``, ``a,b`` and ``a b`` all give the two items.
    """
    text = tokens if isinstance(tokens, str) else " ".join(tokens)
    return [word for word in re.split(r"[\s,;\[\](){}\"'“”‘’`]+", text) if word]


def parse_conditions(tokens: Sequence[str]) -> tuple[str, ...]:
    """Conditions by name (``image`` for short), in fixed order. The class label is always used and may be named."""
    chosen = set()
    for word in words(tokens):
        name = word.lower().removesuffix("_condition") + "_condition"
        if name not in (*CONDITIONS, "class_condition"):
            known = ", ".join((*CONDITIONS, "class_condition"))
            raise UserError(f"{word!r} is not a condition", f"Known: {known}")
        chosen.add(name)
    return tuple(name for name in CONDITIONS if name in chosen)


def parse_devices(tokens: Sequence[str]) -> list[str]:
    """Devices from ``[0,1,2]``, ``cuda:1``, ``cpu``; numbers are GPUs, negative ones the CPU."""
    devices = []
    for word in words(tokens):
        match = re.fullmatch(r"(?:cuda:)?(\d+)|(cpu|-\d+)|(cuda)", word.lower())
        if match is None:
            raise UserError(f"{word!r} is not a device", "Write GPU numbers such as [0,1,2], cuda:0, or cpu")
        devices.append(f"cuda:{int(match[1])}" if match[1] else "cpu" if match[2] else "cuda:0")
    if not devices:
        raise UserError("--device_id_list names no device", "Write e.g. [0,1] or cpu")
    return devices


def named_classes(tokens: Sequence[str], spec: DatasetSpec) -> list[str]:
    """Class names in the order in which they are given; none given, or ``all``, means every class."""
    given = words(tokens)
    if not given or [word.lower() for word in given] == ["all"]:
        return list(spec.classes)
    for cls in given:
        spec.class_id(cls)
    return list(dict.fromkeys(given))


def parse_classes(tokens: Sequence[str], spec: DatasetSpec) -> list[str]:
    """Class names in the data set's order; none given, or ``all``, means every class."""
    named = named_classes(tokens, spec)
    return [cls for cls in spec.classes if cls in named]


def parse_numbers(
    tokens: Sequence[str], classes: Sequence[str], flag: str = "--predifined_sampled_num"
) -> dict[str, int | None]:
    """Samples by class from one number for all, or one number a class; nothing given is None for each."""
    given = words(tokens)
    if any(not (word.isascii() and word.isdigit()) for word in given):
        raise UserError(f"{flag} takes whole numbers, got {' '.join(given)}", "Write e.g. 500")
    if len(given) not in (0, 1, len(classes)):
        raise UserError(
            f"{flag} got {len(given)} numbers for {len(classes)} classes", "Give one, or one a class"
        )
    numbers: list[int | None] = [int(word) for word in given] or [None]
    return dict(zip(classes, numbers * len(classes) if len(numbers) == 1 else numbers, strict=True))


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(index from 1, count) of this machine's share.

    Args:
        text: ``i/n``; ``slurm`` for the place in a SLURM job array, ``slurm/n`` for that place in n shares; None for
            the processes that accelerate or torchrun started (RANK, WORLD_SIZE), or the whole if there are none.
        environment: the environment variables.

    Raises:
        UserError: not of that form, out of range, or a job array whose ids leave shares out.
    """
    if text is not None and text.startswith("slurm"):
        return _slurm_shard(text, environment)
    if text is None:
        index, count = (
            environment_number("RANK", 0, environment) + 1,
            environment_number("WORLD_SIZE", 1, environment),
        )
    else:
        match = re.fullmatch(r"(\d+)\s*/\s*(\d+)", text.strip())
        if match is None:
            raise UserError(f"--shard {text!r} is not of the form i/n", "Write e.g. 1/4, 2/4, 3/4 and 4/4")
        index, count = int(match[1]), int(match[2])
    return _checked_shard(index, count)


def _checked_shard(index: int, count: int) -> tuple[int, int]:
    if not 1 <= index <= count:
        raise UserError(f"shard {index}/{count} does not exist", "Shards count from 1 to n")
    return index, count


def _slurm_shard(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """The share of a task in a SLURM job array: its place among evenly spaced ids, or its id where n is given."""
    try:
        task, first, last, tasks = (
            int(environment[f"SLURM_ARRAY_TASK_{key}"]) for key in ("ID", "MIN", "MAX", "COUNT")
        )
    except (KeyError, ValueError):
        raise UserError(
            f"--shard {text} outside a SLURM job array", "Start it with sbatch --array=1-N"
        ) from None
    if text != "slurm":
        match = re.fullmatch(r"slurm\s*/\s*(\d+)", text.strip())
        if match is None:
            raise UserError(f"--shard {text!r} is not of the form slurm/n", "Write e.g. slurm/16")
        return _checked_shard(task, int(match[1]))
    if tasks == 1:
        raise UserError(
            "a job array of one task does not say of how many shares it is one",
            f"Write --shard slurm/N with the N of the first array, or --shard {task}/N",
        )
    step, rest = divmod(last - first, tasks - 1)
    if rest or (task - first) % step:
        raise UserError(
            f"task {task} of the job array has no place: {tasks} ids from {first} to {last} are not evenly spaced",
            "Write sbatch --array=1-N, or --shard slurm/N for some of the tasks 1 to N",
        )
    return (task - first) // step + 1, tasks


def share_devices(devices: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """This process's devices where a launcher started several processes on one machine; else all of them."""
    rank = environment_number("LOCAL_RANK", 0, environment)
    count = environment_number("LOCAL_WORLD_SIZE", 1, environment)
    if count <= 1:
        return list(devices)
    return list(devices[rank::count]) or [devices[rank % len(devices)]]
