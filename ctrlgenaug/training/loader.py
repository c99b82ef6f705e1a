"""A process's micro-batches, read ahead by worker processes; what goes wrong there is one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ctrlgenaug.errors import UserError
from ctrlgenaug.steps import describe
from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.order import MicroBatches, SampleKey
from ctrlgenaug.training.records import Records
from ctrlgenaug.training.stage import TrainingData

SHARED_MEMORY = Path("/dev/shm")  # what workers pass batches through
READ_AHEAD = 2  # batches a worker


class _Told(Dataset):
    """A data set whose errors are values, so that they come out of a worker as they are, not as its traceback."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    def __getitem__(self, key: SampleKey) -> Batch | UserError:
        try:
            return self.data[key]
        except UserError as error:
            return error
        except Exception as error:
            return UserError(f"sample {key.index} cannot be read: {describe(error)}", "Look at its files")


def _collate(samples: Sequence[Batch | UserError]) -> Batch | UserError:
    failed = next((sample for sample in samples if isinstance(sample, UserError)), None)
    return failed or type(samples[0]).join(samples)  # type: ignore[union-attr,arg-type]


def micro_batches(
    data: TrainingData, order: MicroBatches, *, workers: int, device: torch.device, records: Records
) -> Iterator[Batch]:
    """The batches of ``order``, on ``device``.

    Args:
        data: where samples are read.
        order: which samples, batch by batch.
        workers: processes that read; fewer where shared memory would not hold what they pass on; 0: this one.
        device: where the batches go.
        records: for messages.

    Raises:
        UserError: a sample cannot be read.
        RuntimeError: a worker was killed, see `killed_worker`; torch raises it wherever this process happens to be.
    """
    if workers:
        example = _Told(data)[SampleKey(0, 0)]
        size = 0 if isinstance(example, UserError) else example.bytes() * order.batch_size
        workers = affordable_workers(workers, size, records)
    loader: DataLoader[Any] = DataLoader(
        _Told(data),
        batch_sampler=order,
        collate_fn=_collate,
        num_workers=workers,
        prefetch_factor=READ_AHEAD if workers else None,
        pin_memory=device.type == "cuda",
        # the loader draws a seed when it starts, which must not come out of the stream that dropout uses
        generator=torch.Generator().manual_seed(order.seed),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch.to(device)


def killed_worker(error: RuntimeError) -> UserError | None:
    """The line for a user, if ``error`` says that a process which reads samples was killed."""
    if "DataLoader worker" not in str(error):
        return None
    return UserError(
        f"a process that reads samples was killed ({str(error).splitlines()[0]})",
        "Memory or shared memory may have run out: try dataloader_num_workers=0, or a smaller batch",
    )


def affordable_workers(workers: int, batch_bytes: int, records: Records) -> int:
    """At most as many workers as shared memory has room for; containers often have 64 MB of it."""
    if not SHARED_MEMORY.is_dir():
        return workers
    free = shutil.disk_usage(SHARED_MEMORY).free
    room = free // max(1, (READ_AHEAD + 1) * batch_bytes)
    if room >= workers:
        return workers
    records.log(
        f"note: {SHARED_MEMORY} has {free / 1e6:.0f} MB left, and a batch takes {batch_bytes / 1e6:.0f} MB: samples "
        f"are read by {room or 'no'} worker processes in place of {workers}. Docker gives more with --shm-size=8g"
    )
    return int(room)
