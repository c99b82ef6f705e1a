"""Step (c): the image prior of every sampled frame, (256, 64, 64), beside the frames' folder (method, section 4)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ctrlgenaug import steps
from ctrlgenaug.conditions.clip import PRIOR_SHAPE
from ctrlgenaug.conditions.medsam import encode, load_encoder, weight_files
from ctrlgenaug.conditions.variants import (
    WEIGHTS_FILE,
    check_variants,
    noted_variants,
    split_variant,
    variant_name,
    vary,
)
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import fingerprint, verified
from ctrlgenaug.folders import claim_folder, exclusive
from ctrlgenaug.model_steps import Workers
from ctrlgenaug.plain_data import load_npy, read_json, save_npy
from ctrlgenaug.preprocessing import ledger
from ctrlgenaug.preprocessing.png import read_png
from ctrlgenaug.processes import default_workers
from ctrlgenaug.progress import progress, say

BATCHES_A_LEASE = 4  # so that reading and writing go on beside the encoder on a worker too
REMEDY = "Delete it and run extract_image_priors.py again"


@dataclass(frozen=True)
class Settings:
    """Which priors are made, and how.

    Attributes:
        checkpoint: the encoder's weights; not needed to verify.
        dtype: stored precision, ``float32`` or ``float16``; the encoder computes in float32.
        batch_size: frames at once.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        num_workers: who encode, see `ctrlgenaug.model_steps.Workers`.
        first_frames_only: only the clips' first frames, enough to train the sequence model and to generate.
        split: ``train``, ``test`` or ``both``.
        variants: of each training frame, further priors of so many variants (`ctrlgenaug.conditions.variants`).
    """

    checkpoint: str | None = None
    dtype: str = "float32"
    batch_size: int = 4
    device: str = "auto"
    num_workers: int | None = None
    first_frames_only: bool = False
    split: str = "both"
    variants: int = 0

    def __post_init__(self) -> None:
        if self.variants and self.first_frames_only:
            problem = "--variants are for the image model, --first_frames_only is for the sequence model"
            raise UserError(problem, "Give one of them")
        if self.batch_size < 1:
            raise UserError(f"--batch_size {self.batch_size} is not a number of frames", "Give 1 or more")

    @property
    def workers(self) -> Workers:
        """Who encodes."""
        return Workers(self.device, self.num_workers)


def wanted_frames(data_dir: Path, spec: DatasetSpec, settings: Settings) -> dict[str, Path]:
    """Frame files by prior name, in metadata order."""
    frames = {row.name: data_dir / row.file_name for row in spec.all_rows(data_dir, settings.split)}
    if settings.first_frames_only:
        clips = spec.all_rows(data_dir.parent / spec.clips_dir, settings.split)
        firsts = [spec.first_frame(clip.name) for clip in clips]
        # a first frame that the metadata lack is wanted all the same, so that it is reported
        frames = {name: frames.get(name, data_dir / f"{name}.png") for name in firsts}
    elif settings.variants and settings.split != "test":
        for row in spec.rows(data_dir, "train"):
            for number in range(1, settings.variants + 1):
                frames[variant_name(row.name, number)] = data_dir / row.file_name
    if not frames:
        raise UserError("names no frame in its metadata", "Run the sampling step first", data_dir)
    return frames


def read_variant(path: Path, name: str) -> np.ndarray:
    """The frame in ``path``, or the variant of it that ``name`` tells, (256, 256) uint8."""
    return vary(read_png(path), *split_variant(name))


def frame_digest(path: Path) -> str | None:
    """Tells two versions of a frame's file apart, whenever they were written; None if there is none."""
    return fingerprint([path]) if path.is_file() else None


def load_prior(path: str | Path, dtype: str | None = None) -> np.ndarray:
    """A prior, (256, 64, 64), mapped read-only; a `UserError` if it is damaged or not of ``dtype``."""
    prior = load_npy(path, PRIOR_SHAPE, mmap=True, remedy=REMEDY)
    if dtype is not None and prior.dtype != np.dtype(dtype):
        raise UserError(f"holds {prior.dtype}, not {dtype}", REMEDY, path)
    return prior


def _check_values(prior: np.ndarray, path: Path) -> None:
    if not np.isfinite(prior).all():
        raise UserError("holds values that are not finite", "Check the weights, or use --dtype float32", path)
    if prior.min() == prior.max():
        raise UserError("holds one value throughout", "Check the weights", path)


def verify_priors(data_dir: str | Path, spec: DatasetSpec, settings: Settings) -> tuple[steps.Outcome, Path]:
    """Reads every wanted prior; checks shape, precision, values, and that it is of the frame as it is now.

    Changes nothing. A frame that is not there is not missed.

    Returns:
        The outcome (``failures``: the bad ones; count ``whole``) and the folder of the priors.
    """
    data_dir = Path(data_dir)
    folder = data_dir.parent / spec.priors_dir
    if not settings.first_frames_only:
        settings = replace(settings, variants=noted_variants(folder))
    frames = wanted_frames(data_dir, spec, settings)
    noted = read_json(folder / WEIGHTS_FILE)
    noted = noted if isinstance(noted, dict) else {}
    if settings.checkpoint and noted.get("fingerprint") != fingerprint(weight_files(settings.checkpoint)):
        raise UserError(
            f"holds priors of another encoder ({noted.get('encoder')})", "Check the weights", folder
        )
    outcome, finished = steps.Outcome(), ledger.entries(folder)
    for name in progress(frames, description="verifying", unit="prior"):
        path = spec.prior_path(data_dir.parent, name)
        try:
            _check_values(load_prior(path, noted.get("dtype")), path)
            digest = frame_digest(frames[name])
            if digest is not None and (name not in finished or finished[name]["made_from"] != digest):
                raise UserError("was made of another version of its frame", REMEDY, path)
            outcome.counts["whole"] += 1
        except UserError as error:
            outcome.failures[name] = str(error)
            say(f"bad: {error}")
    return outcome, folder


def extract_priors(
    data_dir: str | Path, spec: DatasetSpec, settings: Settings, *, strict: bool = False
) -> tuple[steps.Outcome, Path]:
    """Encodes the frames that have no prior, or one of another version of the frame; a bad frame is skipped.

    The ledger notes each prior with its frame's digest, so that nothing of a frame extracted anew stays unnoticed.

    Returns:
        The outcome (counts ``made`` and ``kept``) and the folder of the priors.
    """
    if settings.checkpoint is None:
        raise UserError("--medsam_checkpoint is missing", "Give medsam_vit_b.pth or a Hugging Face folder")
    data_dir = Path(data_dir)
    frames = wanted_frames(data_dir, spec, settings)
    targets = {name: spec.prior_path(data_dir.parent, name) for name in frames}
    files = weight_files(settings.checkpoint)
    folder = data_dir.parent / spec.priors_dir
    with exclusive(folder):
        if (folder / WEIGHTS_FILE).is_file() and not settings.first_frames_only:
            check_variants(folder, settings.variants)
        claim_folder(
            folder,
            {"fingerprint": fingerprint(files), "dtype": settings.dtype},
            name=WEIGHTS_FILE,
            notes={"encoder": Path(settings.checkpoint).name, "variants": settings.variants},
        )
        finished = ledger.entries(folder)
        sizes: dict[str, dict[str, os.stat_result]] = {}
        digests = {name: frame_digest(frame) for name, frame in frames.items()}
        todo = [
            name
            for name, target in targets.items()
            if name not in finished
            or not ledger.intact(finished[name], digests[name], folder, sizes)
            or not verified(lambda path: load_prior(path, settings.dtype), target)
        ]
        for name in todo:  # should its frame be unreadable now, no prior is better than that of a former one
            targets[name].unlink(missing_ok=True)
        outcome = steps.Outcome()
        outcome.counts["kept"] = len(frames) - len(todo)
        answers = settings.workers.ask(
            PriorMaker,
            {"settings": settings},
            [PriorJob(name, frames[name], targets[name]) for name in todo],
            batch_size=settings.batch_size * BATCHES_A_LEASE,
            folders=[data_dir, folder, *{file.parent for file in files}],
        )
        bar = progress(answers, total=len(todo), description="image priors", unit="frame")
        for name, answer in zip(todo, bar, strict=True):
            if isinstance(answer, UserError):
                if strict:
                    raise answer
                outcome.failures[name] = str(answer)
                say(f"skipped {name}: {answer}")
                continue
            made = {targets[name].name: answer}
            ledger.record(folder, {"case": name, "made_from": digests[name], "files": made})
            outcome.counts["made"] += 1
    return outcome, folder


class PriorJob(NamedTuple):
    """A prior that is to be made: its name, the frame's file, its own file."""

    name: str
    frame: Path
    target: Path


class PriorMaker:
    """Answers a job with the bytes of the prior once it is written, or with what is wrong with the frame.

    Reading and writing go on beside the encoder; at most two batches are in memory.

    Args:
        device: where the encoder runs.
        settings: with its weights, the batch size and the stored precision.
    """

    def __init__(self, device: str, settings: Settings) -> None:
        self.model, self.device = load_encoder(str(settings.checkpoint)).to(device), device
        self.settings = settings

    def __call__(self, jobs: Sequence[PriorJob]) -> Iterator[int | UserError]:
        size = self.settings.batch_size
        with ThreadPoolExecutor(default_workers()) as pool:

            def read(start: int) -> dict[PriorJob, Future]:
                batch = jobs[start : start + size]
                return {job: pool.submit(read_variant, job.frame, job.name) for job in batch}

            reading, writing = read(0), dict[PriorJob, Future]()
            for start in range(0, len(jobs), size):
                done = reading
                good = {job: found.result() for job, found in done.items() if found.exception() is None}
                reading = read(start + size)
                if good:
                    batch = _encode(self.model, np.stack(list(good.values())), self.device)
                    done |= {
                        job: pool.submit(self._write, job, prior)
                        for job, prior in zip(good, batch, strict=True)
                    }
                yield from map(_settled, writing.values())
                writing = done
            yield from map(_settled, writing.values())

    def _write(self, job: PriorJob, prior: np.ndarray) -> int:
        prior = prior.astype(self.settings.dtype)
        _check_values(prior, job.target)
        save_npy(job.target, prior)
        return job.target.stat().st_size


def _settled(job: Future) -> int | UserError:
    """What a reading that failed or a writing came to; other errors, such as a full disk, stop the step."""
    error = job.exception()
    if isinstance(error, UserError):
        return error
    return job.result()


def _encode(model: torch.nn.Module, frames: np.ndarray, device: str) -> np.ndarray:
    with contextlib.suppress(torch.OutOfMemoryError):
        return encode(model, frames, device)
    if len(frames) == 1:
        raise UserError("a single frame does not fit the GPU", "Use --device cpu")
    middle = len(frames) // 2
    say(f"note: out of memory: trying {middle} frames at once")
    return np.concatenate([_encode(model, part, device) for part in (frames[:middle], frames[middle:])])
