"""The latent cache: the VAE's posterior moments of every frame, computed once, mapped from disk afterwards.

Moments (mean and log-variance), not samples, are stored: training goes on drawing a fresh latent from the posterior
each time, as it does without the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ctrlgenaug.files import TEMPORARY_PREFIX, allocate, rename, verified
from ctrlgenaug.folders import exclusive
from ctrlgenaug.plain_data import load_npy
from ctrlgenaug.progress import progress
from ctrlgenaug.training.records import Records


class FrameSource(Protocol):
    """Samples of F grey frames each."""

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> torch.Tensor:
        """(F, 1, H, W) float32 in [-1, 1]."""
        ...

    def file(self, index: int) -> Path:
        """The file that ``pixels`` reads."""
        ...


def cache_key(source: FrameSource, vae_fingerprint: str) -> str:
    """Changes with the VAE's weights and with any frame's name, size or time of writing."""
    digest = hashlib.sha256(vae_fingerprint.encode())
    for index in range(len(source)):
        path = source.file(index)
        stat = path.stat()
        digest.update(f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def cached_moments(
    folder: str | Path,
    source: FrameSource,
    encode: Callable[[torch.Tensor], torch.Tensor],
    vae_fingerprint: str,
    accelerator: Accelerator,
    records: Records,
) -> np.ndarray:
    """The moments of all samples, (N, F, 8, h, w) float32, read-only and memory-mapped.

    On first use each process encodes its share into one file, which takes its final name when all have finished.

    Args:
        folder: where the cache lives, on a disk that all processes share.
        source: the frames.
        encode: (n, 1, H, W) in [-1, 1] to moments (n, 8, h, w), without random parts.
        vae_fingerprint: tells the VAE's weights apart.
        accelerator: processes and device.
        records: for messages.
    """
    path = Path(folder) / f"moments-{cache_key(source, vae_fingerprint)}.npy"
    first = encode(source.pixels(0).to(accelerator.device))
    shape = (len(source), *first.shape)

    def is_there() -> bool:
        """The main process's word: what another run finishes meanwhile is there for all processes or for none."""
        return broadcast_object_list(
            [accelerator.is_main_process and verified(lambda file: load_npy(file, shape, mmap=True), path)]
        )[0]

    if not is_there():
        # two runs that share the folder would write one file, and one of them train on the zeros of the other
        with exclusive(path.parent) if accelerator.is_main_process else contextlib.nullcontext():
            if not is_there():
                _encode_all(path, shape, source, encode, accelerator)
                records.log(f"latent cache: {len(source)} samples written to {path}")
    else:
        records.log(f"latent cache: using {path}")
    accelerator.wait_for_everyone()
    return load_npy(path, shape, mmap=True)


def _encode_all(
    path: Path,
    shape: tuple[int, ...],
    source: FrameSource,
    encode: Callable[[torch.Tensor], torch.Tensor],
    accelerator: Accelerator,
) -> None:
    """Writes the cache, each process its share of the samples."""
    unfinished = path.with_name(TEMPORARY_PREFIX + path.name)
    if accelerator.is_main_process:
        np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float32, shape=shape).flush()
        allocate(unfinished)
    accelerator.wait_for_everyone()
    target = np.lib.format.open_memmap(unfinished, mode="r+")
    own = range(accelerator.process_index, len(source), accelerator.num_processes)
    bar = progress(own, description="latent cache", unit="sample", disable=not accelerator.is_main_process)
    for index in bar:
        target[index] = encode(source.pixels(index).to(accelerator.device)).cpu().numpy()
    target.flush()
    del target
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        rename(unfinished, path)
