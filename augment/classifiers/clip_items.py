"""Which clips a classifier learns from, is chosen on and is tested on; no patient on two sides."""

from __future__ import annotations

import filecmp
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augment.classifiers import clips as clip_tools
from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import read_video


@dataclass(frozen=True)
class Item:
    """One clip.

    Attributes:
        path: AVI or MP4.
        label: class id.
        patient: whom it shows; for a synthetic clip, whose conditions it was made from.
        synthetic: whether it was generated.
    """

    path: Path
    label: int
    patient: str
    synthetic: bool = False


def real_items(spec: DatasetSpec, home: Path, split: str) -> list[Item]:
    """The real clips of ``split``, in metadata order; a `UserError` if there are none, or a file is missing."""
    items = []
    for clip in spec.clips(home, split):
        path = home / spec.clips_dir / clip.file_name
        if not path.is_file():
            raise UserError("is in the metadata but does not exist", "Run the sampling step again", path)
        items.append(Item(path, spec.class_id(clip.cls), spec.patient(clip.name)))
    return items


def _size(path: Path) -> int:
    """Bytes; 0 of a link that leads nowhere, which reading the clip will name."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def digest(items: Sequence[Item]) -> str:
    """``12 files, 3f2a91c0``: changes with the items' number, names and sizes."""
    listed = hashlib.sha256()
    for item in items:
        listed.update(f"{item.path.name}\t{_size(item.path)}\n".encode())
    return f"{len(items)} files, {listed.hexdigest()[:8]}"


def label_digest(parts: Mapping[str, Sequence[Item]], classes: Sequence[str]) -> str:
    """``CT-0 12, CT-1 9; 3f2a91c0``: changes with a clip's class, its part of the data, and the classes' order."""
    listed, counted = hashlib.sha256("\t".join(classes).encode()), [0] * len(classes)
    for part, items in parts.items():
        for item in items:
            listed.update(f"\n{part}\t{item.path.name}\t{classes[item.label]}".encode())
            counted[item.label] += 1
    numbers = ", ".join(f"{cls} {number}" for cls, number in zip(classes, counted, strict=True))
    return f"{numbers}; {listed.hexdigest()[:8]}"


def refuse_test_patients(train: Sequence[Item], test: Sequence[Item]) -> None:
    """A `UserError` if a patient is in both splits."""
    shared = sorted({item.patient for item in train} & {item.patient for item in test})
    if shared:
        raise UserError(
            f"{len(shared)} patients are in the train and in the test split, such as {shared[0]}",
            "Run the extraction step again, or mend the metadata",
        )


def keep_patients(items: Sequence[Item], numbers: Mapping[int, int]) -> list[Item]:
    """The clips of the first ``numbers[label]`` patients of a class, in the items' order; other classes whole.

    The first ones are kept, so that a smaller choice is part of every larger one.

    Raises:
        UserError: a class has fewer patients than that.
    """
    patients: dict[int, dict[str, None]] = defaultdict(dict)
    for item in items:
        patients[item.label].setdefault(item.patient)
    for label, number in numbers.items():
        if len(patients[label]) < number:
            raise UserError(
                f"{number} patients of class {label} are wanted, but there are {len(patients[label])}",
                "Lower --patients",
            )
    kept = {label: set(list(names)[: numbers.get(label, len(names))]) for label, names in patients.items()}
    return [item for item in items if item.patient in kept[item.label]]


def hold_out(items: Sequence[Item], fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Splits by patient, class by class: (items to learn from, items to choose the best epoch on).

    A class of one patient stays whole with the first part, his clips of other classes with it. No class loses its last
    patient to the second part, not through other classes of his either.

    Args:
        items: real clips of the train split.
        fraction: of each class's patients, at least one, goes to the second part; 0 leaves it empty.
        seed: of the choice.

    Raises:
        UserError: ``fraction`` outside [0, 1), or nothing could be held out.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"--validation_fraction {fraction} is not in [0, 1)", "Use e.g. 0.2")
    patients: dict[int, list[str]] = defaultdict(list)
    for item in items:
        if item.patient not in patients[item.label]:
            patients[item.label].append(item.patient)
    rng, chosen = random.Random(seed), set[str]()

    def take(candidates: Sequence[str]) -> None:
        for name in candidates:
            if all(set(members) - chosen - {name} for members in patients.values() if name in members):
                chosen.add(name)

    for label in sorted(patients):
        names = patients[label]
        if fraction and len(names) > 1:
            take(rng.sample(names, min(len(names) - 1, max(1, round(fraction * len(names))))))
            for name in names:  # those drawn may all be some class's last patients
                if chosen.isdisjoint(names):
                    take([name])
    if fraction and not chosen:
        raise UserError(
            "no class has two patients of whom one can be held out for choosing the best epoch",
            "Give --validation_fraction 0",
        )
    return (
        [item for item in items if item.patient not in chosen],
        [item for item in items if item.patient in chosen],
    )


def synthetic_items(
    folders: Sequence[str | Path], spec: DatasetSpec, test: Sequence[Item] = ()
) -> tuple[list[Item], list[str]]:
    """The synthetic clips in ``folders``, labelled with the class that was asked for.

    Args:
        folders: made by generate.py or noisy_data_filter.py.
        spec: their data set.
        test: the real test clips, whose patients' conditions must not have been used.

    Returns:
        the clips by folder and name, and what was skipped: files that are not this data set's.

    Raises:
        UserError: no clips, clips made from test conditions, or two folders that hold the same ones.
    """
    seen = [Path(folder).resolve() for folder in folders]
    if twice := next((folder for folder in seen if seen.count(folder) > 1), None):
        raise UserError("is given twice, its clips would count twice", "Give each folder once", twice)
    forbidden = {item.patient for item in test}
    items: list[Item] = []
    skipped: list[str] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError("is not a folder", "Give the folder that generate.py or the filter made", folder)
        leak = UserError(
            "holds clips made from test conditions",
            "Generate with --split train: a classifier must not see test patients, not even through the generator",
            folder,
        )
        synthesis = SynthesisFolder(folder)
        synthesis.say_if_filled()
        if synthesis.splits() - {"train"}:
            raise leak
        found = synthesis.clips(spec)
        skipped += [f"{name} (not a file of {spec.data_name})" for name in found.foreign]
        before = len(items)
        for path, sample in found.samples.items():
            try:
                patient = spec.patient(sample.clip)
            except UserError:
                skipped.append(f"{path.name} (not a file of {spec.data_name})")
                continue
            if patient in forbidden:
                raise leak
            items.append(Item(path, spec.class_id(sample.cls), patient, synthetic=True))
        if len(items) == before:
            raise UserError(f"holds no synthetic clip of {spec.data_name}", "Check the folder", folder)
    if len(seen) > 1:
        _refuse_same_clips(items)
    return items, skipped


def _refuse_same_clips(items: Sequence[Item]) -> None:
    """A `UserError` if two folders hold the same file, as a folder and what the filter kept of it do."""
    seen: dict[tuple[str, int], list[Path]] = defaultdict(list)
    for item in items:
        seen[item.path.name, _size(item.path)].append(item.path)
    for (_, size), paths in seen.items():
        for other in paths[1:]:
            if size and filecmp.cmp(paths[0], other, shallow=False):
                raise UserError(
                    f"holds clips that {paths[0].parent} holds too, such as {other.name}: they would count twice",
                    "Give one of the two folders",
                    other.parent,
                )


def readable(items: Sequence[Item], threads: int = 2) -> tuple[list[Item], list[str]]:
    """The items whose file really decodes, and what was skipped, with its reason.

    A generation that died can leave an empty or torn file behind; one such file must not end a night's training.
    """

    def problem(item: Item) -> str | None:
        try:
            read_video(item.path)
        except UserError as error:
            return f"{item.path.name} ({error.problem})"
        return None

    with ThreadPoolExecutor(max(1, threads)) as pool:
        problems = list(pool.map(problem, items))
    good = [item for item, why in zip(items, problems, strict=True) if why is None]
    return good, [why for why in problems if why is not None]


def take_ratio(synthetic: Sequence[Item], number_real: int, ratio: float | None, seed: int) -> list[Item]:
    """At most ``ratio`` synthetic clips for each real one, drawn evenly from the classes; all if ``ratio`` is None."""
    if ratio is None:
        return list(synthetic)
    if ratio < 0:
        raise UserError(f"--synthetic_ratio {ratio} is negative", "Use e.g. 1.0")
    order = list(range(len(synthetic)))
    random.Random(seed).shuffle(order)
    rank: dict[int, int] = defaultdict(int)
    turn = {}
    for index in order:  # the first of each class, then the second of each class, ...
        turn[index] = (rank[synthetic[index].label], synthetic[index].label)
        rank[synthetic[index].label] += 1
    chosen = sorted(sorted(order, key=turn.__getitem__)[: round(ratio * number_real)])
    return [synthetic[index] for index in chosen]


class ClipReader:
    """Batches of clips, read ahead by threads and kept in memory while there is room.

    Args:
        items: the clips.
        input_size: side of the frames given out, in pixels.
        num_frames: frames of a clip given out.
        cache_gb: decoded clips kept, in gigabytes.
        threads: that read and augment.
    """

    def __init__(
        self, items: Sequence[Item], input_size: int, num_frames: int, cache_gb: float = 4.0, threads: int = 2
    ) -> None:
        self.items, self._size, self._length = list(items), input_size, num_frames
        self._cache: dict[int, np.ndarray] = {}
        self._room = int(cache_gb * 1e9)
        self._threads = max(1, threads)

    def frames(self, index: int) -> np.ndarray:
        """Clip ``index`` as (F, S, S) uint8."""
        if index in self._cache:
            return self._cache[index]
        frames = clip_tools.fit_length(read_video(self.items[index].path), self._length)
        frames = clip_tools.resize(frames, self._size)
        if self._room >= frames.nbytes:
            self._room -= frames.nbytes
            self._cache[index] = frames
        return frames

    def _changed(self, index: int, change: clip_tools.ClipChange | None, seed: tuple[int, ...]) -> np.ndarray:
        """Clip ``index``, changed: a function of seed, epoch and clip, so threads and restarts change nothing."""
        frames = self.frames(index)
        return frames if change is None else change(frames, np.random.default_rng((*seed, index)))

    def batches(
        self,
        order: Sequence[int] | np.ndarray,
        batch_size: int,
        change: clip_tools.ClipChange | None = None,
        seed: tuple[int, ...] = (),
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(clips (B, 1, F, S, S) float32, labels (B,) int64) in ``order``, cut into pieces of ``batch_size``.

        Args:
            order: indices of ``items``.
            batch_size: clips at once; where it is above 1, a last batch of one clip joins nothing and is left out in
                training, because batch statistics of one clip are none.
            change: in training; None gives the clips as they are.
            seed: of the change.
        """
        groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        if change is not None and len(groups) > 1 and len(groups[-1]) == 1 < batch_size:
            groups.pop()
        threaded = change is None or change.in_threads

        def finished(index: int, future: Future[np.ndarray]) -> np.ndarray:
            frames = future.result() if threaded else self._changed(index, change, seed)
            return clip_tools.standardise(frames)

        with ThreadPoolExecutor(self._threads) as pool:
            waiting: list[list[Future[np.ndarray]]] = []
            try:
                for step in range(len(groups) + 2):  # two batches ahead
                    if step < len(groups):
                        early = change if threaded else None
                        waiting.append(
                            [pool.submit(self._changed, int(i), early, seed) for i in groups[step]]
                        )
                    if step >= 2:
                        group, futures = groups[step - 2], waiting.pop(0)
                        clips = np.stack(
                            [finished(int(i), future) for i, future in zip(group, futures, strict=True)]
                        )
                        yield clips, np.array([self.items[i].label for i in group], np.int64)
            finally:
                for future in [future for group in waiting for future in group]:
                    future.cancel()
