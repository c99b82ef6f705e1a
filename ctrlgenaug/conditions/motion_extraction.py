"""Step (d): motion fields and trajectories of all clips of a data set, beside the clips' folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlgenaug import steps
from ctrlgenaug.conditions import trajectories
from ctrlgenaug.conditions.motion_arrows import draw_field
from ctrlgenaug.conditions.motion_field import READERS, load_field, motion_field
from ctrlgenaug.conditions.provenance import noted_settings
from ctrlgenaug.contact_sheet import save_picture
from ctrlgenaug.datasets import IMAGE_SIZE, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import fingerprint
from ctrlgenaug.folders import claim_folder, exclusive
from ctrlgenaug.plain_data import save_npy
from ctrlgenaug.preprocessing import ledger
from ctrlgenaug.video import ENCODER_THREADS, read_video

ENCODER = "x264 defaults from rgb24, {} threads"


@dataclass(frozen=True)
class Settings:
    """How the conditions of motion are made.

    Attributes:
        num_frames: F that every clip must have.
        seed: base seed of the draws, see `trajectories.clip_seed`.
        adjacent_reference, fill_blocks, encoder_threads, motion_reader: see `motion_field`.
        official_format: write trajectories as the official code reads them.
        visualize: also draw a picture a clip.
    """

    num_frames: int = 8
    seed: int = 0
    adjacent_reference: bool = False
    fill_blocks: bool = False
    encoder_threads: int = ENCODER_THREADS
    motion_reader: str = "pyav"
    official_format: bool = False
    visualize: bool = False

    @property
    def encoding(self) -> dict[str, object]:
        """What a field depends on besides its clip."""
        return {
            "adjacent_reference": self.adjacent_reference,
            "fill_blocks": self.fill_blocks,
            "encoder": ENCODER.format(self.encoder_threads),
            "motion_reader": self.motion_reader,
        }


def field_options(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `motion_field` that a folder's `noted_settings` name; what it lacks is the default."""
    options = {name: bool(encoding.get(name)) for name in ("adjacent_reference", "fill_blocks")}
    threads = re.fullmatch(ENCODER.format("([1-9][0-9]?)"), str(encoding.get("encoder")))
    reader = encoding.get("motion_reader")
    return {
        **options,
        "encoder_threads": int(threads[1]) if threads else ENCODER_THREADS,
        "reader": reader if reader in READERS else READERS[0],
    }


FOLLOWED = (
    "adjacent_reference",
    "fill_blocks",
)  # what fields must be made with to be followed from frame to frame


def require_followed(motion_dir: str | Path) -> None:
    """Raises a `UserError` if the fields in a folder are known not to say of every pixel where it was a frame before.

    A model whose image prior follows the motion field needs that.
    """
    noted = noted_settings(motion_dir)
    lacking = " ".join(f"--{name}" for name in FOLLOWED if not noted.get(name))
    if noted and lacking:  # of fields from elsewhere nothing is known
        raise UserError(
            f"was made without {lacking}, but the model's image prior follows the motion field (prior_follows_motion)",
            "Move it and the folder of trajectories away and run extract_motion_field_trajs.py "
            f"{' '.join(f'--{name}' for name in FOLLOWED)}, or train with prior_follows_motion=false",
            motion_dir,
        )


@dataclass(frozen=True)
class ClipFiles:
    """One clip's name, its file, and the files made of it."""

    name: str
    clip: Path
    field: Path
    trajectories: Path
    picture: Path


def extract_motion(
    clip_dir: str | Path,
    spec: DatasetSpec,
    settings: Settings,
    *,
    split: str = "both",
    num_workers: int = 0,
    strict: bool = False,
) -> tuple[steps.Outcome, Path, Path]:
    """Makes what is missing of every clip in ``clip_dir``'s metadata.

    A bad clip is reported and skipped. Files do not depend on the order of the clips, nor on ``num_workers``.

    Returns:
        The outcome, with counts ``made`` and ``kept``, and the folders of the fields and of the trajectories.
    """
    clip_dir = Path(clip_dir)
    rows = spec.all_rows(clip_dir, split)
    if not rows:
        raise UserError("names no clip in its metadata", "Run the sampling step first", clip_dir)
    home = clip_dir.parent
    field_dir, trajectory_dir = home / spec.motion_dir, home / spec.trajectories_dir
    files = [
        ClipFiles(
            row.name,
            clip_dir / row.file_name,
            spec.motion_path(home, row.name),
            spec.trajectory_path(home, row.name),
            home / f"{spec.motion_dir}_pictures" / f"{row.name}.png",
        )
        for row in rows
    ]
    with exclusive(field_dir), exclusive(trajectory_dir):
        drawing = {"seed": settings.seed, "official_format": settings.official_format}
        before = {"fill_blocks": False}
        claim_folder(field_dir, settings.encoding, before=before)
        claim_folder(trajectory_dir, settings.encoding | drawing, before=before)
        noted = ledger.entries(field_dir)
        outcome = steps.for_each_case(
            extract_clip,
            [item.name for item in files],
            [(item, settings, noted.get(item.name)) for item in files],
            num_workers=num_workers,
            strict=strict,
            description="motion",
            unit="clip",
            folders=[clip_dir, field_dir, trajectory_dir],
        )
    outcome.counts.update("made" if made else "kept" for made in outcome.results.values())
    return outcome, field_dir, trajectory_dir


def extract_clip(files: ClipFiles, settings: Settings, noted: dict[str, Any] | None = None) -> bool:
    """Makes the files of one clip where they are missing, damaged or of a former clip; returns whether any was.

    ``noted`` is the clip's entry in the ledger of the fields' folder, which says which version of it they are of.
    """
    if _complete(files, settings, noted):
        if noted is None:  # of a folder from before there was a ledger
            _note(files)
        return False
    try:
        frames = read_video(files.clip, settings.num_frames)
        if frames.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
            size = " x ".join(map(str, frames.shape[1:]))
            raise UserError(
                f"has frames of {size}, expected {IMAGE_SIZE} x {IMAGE_SIZE}", "Sample it again", files.clip
            )
    except UserError:
        for path in (files.field, files.trajectories, files.picture):  # of a former clip of this name
            path.unlink(missing_ok=True)
        raise
    field = motion_field(
        frames,
        adjacent_reference=settings.adjacent_reference,
        fill_blocks=settings.fill_blocks,
        encoder_threads=settings.encoder_threads,
        reader=settings.motion_reader,
    )
    tracks = trajectories.track(field, trajectories.clip_seed(settings.seed, files.name))
    save_npy(files.field, field)
    save = trajectories.save_official if settings.official_format else trajectories.save_tracks
    save(files.trajectories, tracks)
    if settings.visualize:
        save_picture(files.picture, draw_field(frames, field))
    _note(files)
    return True


def made_from(clip: Path) -> list[Any]:
    """Which version of a clip its field is of: digest, size and time."""
    stat = clip.stat()
    return [fingerprint([clip]), stat.st_size, stat.st_mtime_ns]


def is_of(noted: dict[str, Any], clip: Path) -> bool:
    """Whether a field is noted to be of ``clip`` as it is now; a mere copy with another date is the same clip."""
    digest, *unchanged = noted["made_from"]
    stat = clip.stat()
    return unchanged == [stat.st_size, stat.st_mtime_ns] or digest == fingerprint([clip])


def _note(files: ClipFiles) -> None:
    entry = {"case": files.name, "made_from": made_from(files.clip), "files": {}}
    ledger.record(files.field.parent, entry)


def _complete(files: ClipFiles, settings: Settings, noted: dict[str, Any] | None) -> bool:
    wanted = [files.field, files.trajectories] + [files.picture] * settings.visualize
    try:
        # Clips sampled otherwise have the same names. Without a note the time tells whether it is still the same.
        dates = [path.stat().st_mtime_ns for path in wanted]
        if not is_of(noted, files.clip) if noted else min(dates) < files.clip.stat().st_mtime_ns:
            return False
        load_field(files.field, settings.num_frames, mmap=True)
        trajectories.load_trajectories(files.trajectories, settings.num_frames)
    except (FileNotFoundError, UserError):
        return False
    return True
