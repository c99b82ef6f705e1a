"""A synthesiser without a model, for tests of everything around the model; imported by worker processes."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import numpy as np

from ctrlgenaug.errors import UserError


def frames_of(sample, size=32, num_frames=8):
    """Frames (F, H, W) uint8 that depend on the sample's name alone."""
    noise = np.random.default_rng(zlib.crc32(sample.file_name.encode()))
    return noise.integers(0, 255, (num_frames, size, size), dtype=np.uint8)


class StandIn:
    """Misbehaves for clips whose name says so; ``marks`` is a folder where attempts are counted."""

    def __init__(self, device, marks, pause=0.0, most_at_once=1000):
        self.device, self.marks, self.pause, self.most_at_once = device, Path(marks), pause, most_at_once

    def _attempts(self, sample):
        with (self.marks / f"{sample.clip}-{sample.seed}").open("a") as handle:
            handle.write(f"{self.device}\n")
        return len((self.marks / f"{sample.clip}-{sample.seed}").read_text().splitlines())

    def load(self, sample):
        if "no_prior" in sample.clip:
            raise UserError("does not exist", "Extract the image priors", f"{sample.clip}.npy")

    def synthesise(self, samples, conditions):
        with (self.marks / "batches").open("a") as handle:
            handle.write(f"{len(samples)}\n")
        if len(samples) > self.most_at_once or any("too_big" in sample.clip for sample in samples):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        for sample in samples:
            attempts = self._attempts(sample)
            time.sleep(self.pause)
            if "always_dies" in sample.clip or ("dies_once" in sample.clip and attempts == 1):
                os._exit(9)
            if "disk_full" in sample.clip:
                raise OSError(28, "No space left on device")
            if "always_raises" in sample.clip or ("raises_once" in sample.clip and attempts == 1):
                raise ValueError("bad luck")
            yield frames_of(sample)

    def release(self):
        (self.marks / "released").touch()


def refuse(device, **arguments):
    raise UserError("is no sequence model folder", "Check --sequence_model_path", "nowhere")


def cannot_start(device, marks, **arguments):
    with (Path(marks) / "starts").open("a") as handle:
        handle.write(f"{device}\n")
    if device == "cuda:0":
        raise RuntimeError("no such device")
    return StandIn(device, marks, **arguments)
