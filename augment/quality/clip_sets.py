"""Sets of clips and what is computed of each clip: every clip is decoded once, whatever number of metrics asks.

A `Feature` is one entry of `FEATURES`: what it needs and how it is computed of a batch. Metrics name the features that
they use; those whose needs are not met are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from augment.classifiers.clip_items import Item
from augment.classifiers.clips import fit_length
from augment.generation.plan import parse_file_name
from augment.quality import similarity
from augment.quality.reading import ahead
from augment.quality.vae_seq import vae_seq
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.errors import UserError
from ctrlgenaug.model_steps import Workers
from ctrlgenaug.progress import progress
from ctrlgenaug.video import read_video

if TYPE_CHECKING:
    from augment.quality.instruments import Instruments

SETS = ("synthetic", "real", "test")
SIZED = 32  # clips, spread over a set, whose most frequent frame size is the set's
Answer = tuple[dict[str, np.ndarray], dict[str, str]]  # features by name, and `Instruments.labels`


@dataclass
class Batch:
    """Clips decoded together, and what several features share of them.

    Attributes:
        group: the set that they are of, one of `SETS`.
        items: the clips.
        frames: (F, H, W) uint8 each.
        instruments: networks and functions.
    """

    group: str
    items: list[Item]
    frames: list[np.ndarray]
    instruments: Instruments

    @cached_property
    def latents(self) -> list[np.ndarray]:
        """(F, C, h, w) float16 each; a `UserError` for a clip that has none."""
        store = self.instruments.latent_store(self.group)
        found = store.of_clips([item.path for item in self.items], self.frames)
        for latents in found:
            if isinstance(latents, UserError):
                raise latents
        return found  # type: ignore[return-value]

    @cached_property
    def classified(self) -> tuple[np.ndarray, np.ndarray]:
        """(logits (N, classes), what the last layer sees (N, C)) of the classifier, in one pass."""
        return self.instruments.classify(self.frames)

    def stacked(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays of the clips' frames at the length that clips are compared at, as one array."""
        return np.stack([self._thinned(array) for array in arrays])

    @property
    def comparable(self) -> list[np.ndarray]:
        """The frames at the length that clips are compared at."""
        return [self._thinned(frames) for frames in self.frames]

    def _thinned(self, array: np.ndarray) -> np.ndarray:
        return fit_length(array, self.instruments.spec.required_clip_num)


@dataclass(frozen=True)
class Feature:
    """Something computed once of every clip.

    Attributes:
        name: what metrics ask for.
        compute: a batch -> an array whose first axis is the clips.
        needs: see `metrics.registry.Metric`.
        sets: the sets of which it is computed.
        finite: whether a clip for which it is no number is a failure.
    """

    name: str
    compute: Callable[[Batch], np.ndarray]
    needs: tuple[tuple[str, ...], ...] = ()
    sets: tuple[str, ...] = SETS
    finite: bool = False


FEATURES: dict[str, Feature] = {}


def feature(
    name: str,
    needs: tuple[tuple[str, ...], ...] = (),
    sets: tuple[str, ...] = SETS,
    finite: bool = False,
) -> Callable[[Callable[[Batch], np.ndarray]], Callable[[Batch], np.ndarray]]:
    """Registers the decorated function as the `Feature` called ``name``."""

    def add(compute: Callable[[Batch], np.ndarray]) -> Callable[[Batch], np.ndarray]:
        FEATURES[name] = Feature(name, compute, needs, sets, finite)
        return compute

    return add


@feature("thumbnails")
def _thumbnails(batch: Batch) -> np.ndarray:
    """(N, F, 32, 32) float32 grey values."""
    return batch.stacked([similarity.thumbnail(frames) for frames in batch.frames])


@feature("latents", needs=(("vae_path",),))
def _latents(batch: Batch) -> np.ndarray:
    """(N, F, C, h, w) float16."""
    return batch.stacked(batch.latents)


@feature("vae_seq", needs=(("vae_path",),))
def _vae_seq(batch: Batch) -> np.ndarray:
    """(N,) percent, NaN for a single frame."""
    return np.array([_number(vae_seq(latents)) for latents in batch.latents])


@feature("smoothness")
def _smoothness(batch: Batch) -> np.ndarray:
    """(N,) percent, NaN for fewer than three frames."""
    score = batch.instruments.smoothness
    pairs = zip(batch.items, batch.frames, strict=True)
    return np.array([_number(score(item.path, frames)) for item, frames in pairs])


@feature("clip_features", needs=(("classifier", "i3d_weights"),), finite=True)
def _clip_features(batch: Batch) -> np.ndarray:
    """(N, D)."""
    network = batch.instruments.clip_network
    return batch.classified[1] if network is None else network.extract(batch.frames)


@feature("frame_features", needs=(("classifier", "inception_weights"),), finite=True)
def _frame_features(batch: Batch) -> np.ndarray:
    """(N, F, D)."""
    return batch.instruments.frame_network.extract(batch.comparable)


@feature("radimagenet", needs=(("radimagenet_weights",),), finite=True)
def _radimagenet(batch: Batch) -> np.ndarray:
    """(N, F, D)."""
    return batch.instruments.radimagenet.extract(batch.comparable)


@feature("radiomics")
def _radiomics(batch: Batch) -> np.ndarray:
    """(N, F, D)."""
    return batch.instruments.radiomics.extract(batch.comparable)


@feature("logits", needs=(("classifier",),), sets=("synthetic",), finite=True)
def _logits(batch: Batch) -> np.ndarray:
    """(N, classes)."""
    return batch.classified[0]


@feature("motion", sets=("synthetic",))
def _motion(batch: Batch) -> np.ndarray:
    """(N,) objects, (F-1, 2, H/16, W/16) each: the motion field re-extracted from the clip, in pixels."""
    found = np.empty(len(batch.items), object)  # a clip's own length, because a field cannot be thinned
    for index, frames in enumerate(batch.frames):
        field = motion_field(frames, **batch.instruments.motion_settings)
        found[index] = similarity.motion_cells(field)
    return found


@feature("flow", sets=("synthetic",))
def _flow(batch: Batch) -> np.ndarray:
    """(N,) objects, (F-1, 2, H/16, W/16) each: the optical flow of the clip, in pixels."""
    found = np.empty(len(batch.items), object)
    for index, frames in enumerate(batch.frames):
        found[index] = similarity.flow_cells(frames)
    return found


def _number(value: float | None) -> float:
    return np.nan if value is None else value


@dataclass
class ClipSet:
    """Clips and what was computed of them.

    Attributes:
        name: one of `SETS`.
        items: the clips that could be read.
        features: arrays by name, the first axis in the order of ``items``.
        failures: why others could not, by file name.
        size: (H, W) of the frames; None: not known.
    """

    name: str
    items: list[Item]
    features: dict[str, np.ndarray] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    size: tuple[int, ...] | None = None

    def view(self, label: int | None = None) -> View:
        """The clips of a class; all for None."""
        labels = np.array([item.label for item in self.items], int)
        return View(self, np.arange(len(labels)) if label is None else np.flatnonzero(labels == label))


@dataclass(frozen=True)
class View:
    """Some clips of a set, by their positions in it."""

    clips: ClipSet
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def items(self) -> list[Item]:
        """The clips."""
        return [self.clips.items[index] for index in self.positions]

    @property
    def labels(self) -> np.ndarray:
        """(N,) class ids."""
        return np.array([item.label for item in self.items], int)

    @property
    def patients(self) -> list[str]:
        """Whom each clip shows; of a synthetic one, whose conditions it was made from."""
        return [item.patient for item in self.items]

    @property
    def names(self) -> list[str]:
        """The clips' names; of a synthetic one, the real clip's whose conditions it was made from."""
        return [
            parse_file_name(item.path.name).clip if item.synthetic else item.path.stem for item in self.items
        ]

    def has(self, feature: str) -> bool:
        """Whether ``feature`` was computed of this set."""
        return feature in self.clips.features

    def __getitem__(self, feature: str) -> np.ndarray:
        """``feature`` of these clips."""
        return self.clips.features[feature][self.positions]


class _Features:
    """Answers an item with its features, by name, each with a first axis of 1, and what they were computed with.

    The answer for one that cannot be read, or that has another frame size than most, is a `UserError`.

    Args:
        device: where the networks run.
        group: the set that the items are of.
        wanted: names of features.
        instruments: networks and functions.
        batch_size: clips at once.
        size: (H, W) of most clips' frames; None: not one is readable.
    """

    def __init__(
        self,
        device: str,
        group: str,
        wanted: Sequence[str],
        instruments: Instruments,
        batch_size: int,
        size: tuple[int, ...] | None = None,
    ) -> None:
        self.group, self.instruments, self.size = group, instruments.on(device), size
        self.features = [FEATURES[name] for name in wanted]
        self.batch_size = batch_size

    def __call__(self, items: Sequence[Item]) -> Iterator[Answer | UserError]:
        chunks = _chunks(items, self.batch_size)
        for chunk, decoded in zip(chunks, ahead(_decode, chunks), strict=True):
            checked = [self._checked(frames) for frames in decoded]
            good = [pair for pair in zip(chunk, checked, strict=True) if not isinstance(pair[1], UserError)]
            answers = iter(self._compute(good))  # type: ignore[arg-type]
            for frames in checked:
                yield frames if isinstance(frames, UserError) else next(answers)

    def _checked(self, frames: np.ndarray | UserError) -> np.ndarray | UserError:
        if isinstance(frames, UserError) or frames.shape[1:] == self.size:
            return frames
        shape, usual = (" x ".join(map(str, shape[::-1])) for shape in (frames.shape[1:], self.size or ()))
        return UserError(f"has frames of {shape}, the others of {usual}")

    def _compute(self, clips: Sequence[tuple[Item, np.ndarray]]) -> list[Answer | UserError]:
        if not clips:
            return []
        batch = Batch(
            self.group, [item for item, _ in clips], [frames for _, frames in clips], self.instruments
        )
        try:
            found = {item.name: item.compute(batch) for item in self.features}
        except UserError as error:
            if len(clips) == 1:
                return [error]
            # one clip at a time, so that a bad one costs itself alone
            return [answer for clip in clips for answer in self._compute([clip])]
        labels = self.instruments.labels
        parts = [{name: values[i : i + 1] for name, values in found.items()} for i in range(len(clips))]
        return [self._broken(part) or (part, labels) for part in parts]

    def _broken(self, part: dict[str, np.ndarray]) -> UserError | None:
        """Why a clip's features are of no use: one NaN in them would be everybody's distance."""
        for item in self.features:
            if item.finite and not np.isfinite(part[item.name]).all():
                return UserError(
                    f"has {item.name.replace('_', ' ')} that are not finite", "Check the network"
                )
        return None


def read_set(
    name: str,
    items: Sequence[Item],
    wanted: Sequence[str],
    instruments: Instruments,
    batch_size: int,
    workers: Workers | None = None,
) -> ClipSet:
    """Decodes every clip once and computes the ``wanted`` features of it.

    A clip that cannot be read, or that has another frame size than most, is a failure and is left out.

    Args:
        name: of the set, one of `SETS`.
        items: its clips.
        wanted: names of features; those that are not computed of this set are left out.
        instruments: networks and functions.
        batch_size: clips at once.
        workers: who computes; None: this process.

    Raises:
        UserError: not one of the clips is good.
    """
    features = [key for key in wanted if name in FEATURES[key].sets]
    workers, result = workers or Workers(instruments.settings.device), ClipSet(name, [])
    parts: dict[str, list[np.ndarray]] = {key: [] for key in features}
    arguments = {"group": name, "wanted": features, "instruments": instruments, "batch_size": batch_size}
    # not of the first clips alone: those of an earlier attempt may come first by name
    result.size = arguments["size"] = _size_of_most(items, batch_size)
    folders: list[Path] = []
    if workers.elsewhere:
        folders = [*instruments.folders(name), *{item.path.parent for item in items}]
    answers = workers.ask(_Features, arguments, items, batch_size=batch_size, folders=folders)
    bar = progress(answers, total=len(items), description=name, unit="clip")
    for item, answer in zip(items, bar, strict=True):
        if isinstance(answer, UserError):
            result.failures[item.path.name] = str(answer)
            continue
        found, labels = answer
        instruments.labels.update(labels)
        result.items.append(item)
        for key, values in found.items():
            parts[key].append(values)
    if not result.items:
        reason = next(iter(result.failures.values()), "there are none")
        raise UserError(f"none of the {name} clips can be read ({reason.rstrip('.')})", "Check the folder")
    result.features = {key: np.concatenate(values) for key, values in parts.items()}
    return result


def _chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _decode(items: Sequence[Item]) -> list[np.ndarray | UserError]:
    found: list[np.ndarray | UserError] = []
    for item in items:
        try:
            found.append(read_video(item.path))
        except UserError as error:
            found.append(error)
    return found


def _size_of_most(items: Sequence[Item], batch_size: int) -> tuple[int, ...] | None:
    """The most frequent frame size of `SIZED` clips, or, where none of them can be read, of the first batch that has a
    readable one."""
    spread = sorted(set(np.linspace(0, len(items) - 1, SIZED).round().astype(int).tolist()))
    found = _usual_size(_decode([items[index] for index in spread]))
    if found:
        return found
    decoded = map(_decode, _chunks(items, batch_size))
    return next((size for size in map(_usual_size, decoded) if size), None)


def _usual_size(decoded: Sequence[np.ndarray | UserError]) -> tuple[int, ...] | None:
    sizes = Counter(frames.shape[1:] for frames in decoded if not isinstance(frames, UserError))
    return sizes.most_common(1)[0][0] if sizes else None
