"""Which frames of a case become which clip (method, section 3). Pure functions of counts."""

from __future__ import annotations

from dataclasses import dataclass

from ctrlgenaug.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How clips are cut from a case.

    Attributes:
        frames_per_clip: frames that a clip covers in its case.
        clip_sampling_interval: frames left out between two that are kept.
        required_clip_num: frames of a clip.
        max_clips: most clips of a case.
        pad_short_cases: whether a case shorter than frames_per_clip still becomes a clip (else it is dropped).

    Raises:
        UserError: the first two do not give required_clip_num frames, or a number is out of range.
    """

    frames_per_clip: int
    clip_sampling_interval: int
    required_clip_num: int
    max_clips: int
    pad_short_cases: bool

    def __post_init__(self) -> None:
        if min(self.frames_per_clip, self.required_clip_num, self.max_clips) < 1:
            raise UserError(
                "--frames_per_clip, --required_clip_num and --max_clips must be at least 1", "Mend it"
            )
        if self.clip_sampling_interval < 0:
            raise UserError("--clip_sampling_interval must not be negative", "Use 0 to keep every frame")
        kept = len(range(0, self.frames_per_clip, self.clip_sampling_interval + 1))
        if kept != self.required_clip_num:
            raise UserError(
                f"--frames_per_clip {self.frames_per_clip} with --clip_sampling_interval "
                f"{self.clip_sampling_interval} keeps {kept} frames, not --required_clip_num {self.required_clip_num}",
                "Make the three numbers agree, e.g. 15, 1 and 8",
            )


def uniform_clips(num_frames: int, sampling: Sampling) -> list[list[int]]:
    """The clips of a case of ``num_frames`` frames, evenly spread over it.

    Returns:
        the frame indices (from 0) of each clip. A list shorter than required_clip_num is to be padded at its end with
        black frames; no list at all means that the case is dropped.
    """
    covered = sampling.frames_per_clip
    clips = min(sampling.max_clips, num_frames // covered)
    if clips == 0:
        return [_short_case(num_frames, sampling)] if sampling.pad_short_cases and num_frames else []
    gap = (num_frames - clips * covered) // (clips - 1) if clips > 1 else 0
    step = sampling.clip_sampling_interval + 1
    return [
        list(range(first, first + covered, step)) for first in (i * (covered + gap) for i in range(clips))
    ]


def _short_case(num_frames: int, sampling: Sampling) -> list[int]:
    """All frames of a case too short for one clip; if still too many, evenly spaced ones, first and last kept."""
    wanted = sampling.required_clip_num
    if num_frames <= wanted:
        return list(range(num_frames))
    if wanted == 1:
        return [0]
    return [(i * (num_frames - 1) + (wanted - 1) // 2) // (wanted - 1) for i in range(wanted)]
