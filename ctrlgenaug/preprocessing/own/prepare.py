"""Steps (a) and (b) for a data set that its data file describes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shlex
from pathlib import Path

from ctrlgenaug import datasets
from ctrlgenaug.datasets import SPLITS, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing import clips
from ctrlgenaug.preprocessing.extraction import extract
from ctrlgenaug.preprocessing.own.cases import find_cases
from ctrlgenaug.preprocessing.own.reading import read_case
from ctrlgenaug.preprocessing.sampling import Sampling


def prepare(spec: DatasetSpec, *, num_workers: int = 1, strict: bool = False) -> int:
    """Reads the raw files of ``spec`` into frames and cuts clips from them.

    Returns:
        the exit code: 0, or 1 if a case failed.

    Raises:
        UserError: the data set has a reader of its own, or its files cannot be found.
    """
    data = datasets.data_file(spec)
    if not data.raw.kind:
        how = (
            f"It has its own scripts in {spec.home}/; see docs/data.md"
            if data.raw.reader
            else "Write raw.kind"
        )
        raise UserError(f"{spec.data_name} says no raw.kind", how, spec.file)
    home = Path(spec.home)
    found = find_cases(data, home)
    sampling = Sampling(**dataclasses.asdict(data.clips))
    frames = home / spec.slices_dir
    settings = {"reading": _digest(data)}
    code = extract(
        spec,
        found.cases,
        functools.partial(read_case, data=data),
        frames,
        settings=settings,
        rejected=found.rejected,
        private=bool(data.pseudonyms),
        num_workers=num_workers,
        strict=strict,
        next_step="cutting clips",
    )
    return max(
        code,
        clips.sample(
            spec,
            frames,
            sampling,
            splits=SPLITS,
            num_workers=num_workers,
            strict=strict,
            next_step=f"extract_image_priors.py --data_dir {shlex.quote(os.path.relpath(home / spec.frames_dir))} and "
            f"extract_motion_field_trajs.py --clip_data_dir {shlex.quote(os.path.relpath(home / spec.clips_dir))}",
        ),
    )


def _digest(data: datasets.DataFile) -> str:
    """Changes when anything that decides about the frames' pixels does."""
    parts = [dataclasses.asdict(part) for part in (data.raw, data.intensity, data.slices)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
