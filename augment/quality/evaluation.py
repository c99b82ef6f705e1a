"""Synthetic clips against real ones: every figure per class and in total, with counts and what to hold it against."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from augment.classifiers.clip_items import Item
from augment.classifiers.metrics import figures
from augment.quality import frechet, similarity
from augment.quality.features import Extractor
from augment.quality.latents import LatentStore
from augment.quality.vae_seq import vae_seq
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import read_video

METRICS = ("fvd", "fid", "vae_seq", "smoothness", "diversity", "class_control", "memorisation")
NEED_REAL = ("fvd", "fid", "memorisation")
CLOSEST_SHOWN = 6  # pairs in the picture of nearest clips


@dataclass(frozen=True)
class Tools:
    """What the metrics are computed with; a metric whose tool is None cannot be asked for.

    Attributes:
        clip_features: for FVD.
        frame_features: for FID by frame.
        logits: a classifier trained on real clips: clips -> (N, C).
        smoothness: (path, frames) -> percent or None.
        latents: a store for the real clips' folder, one for the synthetic clips'; or None.
        labels: what each tool is, for the report.
    """

    clip_features: Extractor | None = None
    frame_features: Extractor | None = None
    logits: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None
    smoothness: Callable[[Path, np.ndarray], float | None] | None = None
    latents: tuple[LatentStore, LatentStore] | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass
class Described:
    """One set of clips and everything that was computed of them, aligned with ``items``."""

    items: list[Item]
    thumbnails: np.ndarray
    computed: dict[str, np.ndarray]
    failures: dict[str, str]

    def of_class(self, label: int | None) -> np.ndarray:
        """Positions of the clips of a class; of all for None."""
        labels = np.array([item.label for item in self.items], int)
        return np.arange(len(labels)) if label is None else np.flatnonzero(labels == label)


def describe(
    items: Sequence[Item],
    tools: Tools,
    metrics: Sequence[str],
    batch_size: int,
    store: LatentStore | None,
    title: str,
) -> Described:
    """Reads every clip once and computes what ``metrics`` need of it; unreadable clips are reported and left out."""
    asked: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {}
    if "fvd" in metrics and tools.clip_features:
        asked["fvd"] = tools.clip_features.extract
    if "fid" in metrics and tools.frame_features:
        asked["fid"] = tools.frame_features.extract
    if "class_control" in metrics and tools.logits and title == "synthetic":
        asked["class_control"] = tools.logits
    good: list[Item] = []
    small: list[np.ndarray] = []
    parts: dict[str, list[np.ndarray]] = {key: [] for key in asked}
    smooth: list[float] = []
    failures: dict[str, str] = {}
    with tqdm(total=len(items), desc=title, unit="clip", mininterval=2, file=sys.stderr) as bar:
        for start in range(0, len(items), batch_size):
            chosen, clips = [], []
            for item in items[start : start + batch_size]:
                try:
                    clips.append(read_video(item.path))
                    chosen.append(item)
                except UserError as error:
                    failures[item.path.name] = str(error)
            for item, frames in zip(chosen, clips, strict=True):
                small.append(similarity.thumbnail(frames))
                if "smoothness" in metrics and tools.smoothness:
                    value = tools.smoothness(item.path, frames)
                    smooth.append(np.nan if value is None else value)
            for key, compute in asked.items():
                if clips:
                    parts[key].append(compute(clips))
            good += chosen
            bar.update(len(items[start : start + batch_size]))
    if not good:
        raise UserError(f"none of the {title} clips can be read", "Check the folder", items[0].path.parent)
    lengths = {len(frames) for frames in small}
    if len(lengths) > 1:
        raise UserError(
            f"the {title} clips have different lengths ({sorted(lengths)})", "Evaluate them separately"
        )
    computed = {key: np.concatenate(values) for key, values in parts.items()}
    if smooth:
        computed["smoothness"] = np.array(smooth)
    if store is not None and {"vae_seq", "diversity", "memorisation"} & set(metrics):
        computed["latents"] = _latents(store, [item.path for item in good])
        computed["vae_seq"] = np.array(
            [np.nan if (score := vae_seq(latents)) is None else score for latents in computed["latents"]]
        )
    return Described(good, np.stack(small), computed, failures)


def _latents(store: LatentStore, paths: Sequence[Path]) -> np.ndarray:
    found = []
    for _, latents in tqdm(
        store.stream(paths), total=len(paths), desc="latents", mininterval=2, file=sys.stderr
    ):
        if isinstance(latents, UserError):
            raise latents
        found.append(latents)
    return np.stack(found)


def evaluate(
    spec: DatasetSpec,
    real: Sequence[Item],
    synthetic: Sequence[Item],
    metrics: Sequence[str],
    tools: Tools,
    *,
    batch_size: int = 8,
    draws: int = 10,
    seed: int = 3407,
    quantile: float = 0.01,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Computes ``metrics``.

    Args:
        spec: the data set.
        real: its real clips; may be empty where no metric needs them.
        synthetic: the clips to judge.
        metrics: some of `METRICS`.
        tools: see `Tools`.
        batch_size: clips at once.
        draws: resamples of the Frechet distances.
        seed: of the resamples.
        quantile: see `similarity.nearest_real`.
        picture: where the closest pairs are drawn, if anywhere.

    Returns:
        plain values for JSON: ``counts``, ``tools``, ``metrics`` ({name: {"all": ..., class: ...}}), ``published``,
        ``failures``.
    """
    stores = tools.latents or (None, None)
    sets = {"synthetic": describe(synthetic, tools, metrics, batch_size, stores[1], "synthetic")}
    if real:
        sets["real"] = describe(real, tools, metrics, batch_size, stores[0], "real")
    rows: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        rows[metric] = {}
        for label, cls in [(None, "all"), *enumerate(spec.classes)]:
            chosen = {name: (group, group.of_class(label)) for name, group in sets.items()}
            if not len(chosen["synthetic"][1]):
                continue
            rows[metric][cls] = _METRICS[metric](chosen, spec, draws, seed, quantile)
    if "memorisation" in metrics and picture is not None:
        _draw_closest(picture, sets, quantile)
    return {
        "data_name": spec.data_name,
        "counts": {
            name: {
                "all": len(group.items),
                **{cls: len(group.of_class(c)) for c, cls in enumerate(spec.classes)},
            }
            for name, group in sets.items()
        },
        "tools": tools.labels,
        "draws": draws,
        "seed": seed,
        "metrics": rows,
        "published": dict(spec.published),
        "failures": {name: reason for group in sets.values() for name, reason in group.failures.items()},
    }


# --- one function a metric: ({"real" | "synthetic": (set, positions)}, ...) -> plain values --------------------------

Chosen = dict[str, tuple[Described, np.ndarray]]


def _patients(group: Described, positions: np.ndarray) -> list[str]:
    return [group.items[index].patient for index in positions]


def _frechet(key: str) -> Callable[..., dict[str, Any] | None]:
    def compute(
        chosen: Chosen, spec: DatasetSpec, draws: int, seed: int, quantile: float
    ) -> dict[str, Any] | None:
        (real, ours), (synthetic, theirs) = chosen["real"], chosen["synthetic"]
        one, other = real.computed[key][ours], synthetic.computed[key][theirs]
        patients, strata = _patients(real, ours), [real.items[index].label for index in ours]
        if one.ndim == 3:  # frames: each is a sample
            patients, strata = (np.repeat(part, one.shape[1]) for part in (patients, strata))
            one, other = one.reshape(-1, one.shape[-1]), other.reshape(-1, other.shape[-1])
        result = frechet.compare(one, patients, other, draws, seed, strata)
        return None if result is None else asdict(result)

    return compute


def _mean(key: str) -> Callable[..., dict[str, Any]]:
    def compute(chosen: Chosen, spec: DatasetSpec, draws: int, seed: int, quantile: float) -> dict[str, Any]:
        result = {}
        for name, (group, positions) in chosen.items():
            values = group.computed[key][positions]
            values = values[np.isfinite(values)]
            if len(values):
                result[name] = {
                    "mean": float(values.mean()),
                    "deviation": float(values.std()),
                    "count": len(values),
                }
        return result

    return compute


def _diversity(chosen: Chosen, spec: DatasetSpec, draws: int, seed: int, quantile: float) -> dict[str, Any]:
    """Mean distance of pairs of clips: pixels in grey values, latents as 1 - cosine; real beside synthetic."""
    result: dict[str, Any] = {}
    for name, (group, positions) in chosen.items():
        small = group.thumbnails[positions]
        result[name] = {"pixel": similarity.mean_pairwise(similarity.pixel_distances(small, small))}
        if "latents" in group.computed:
            latents = group.computed["latents"][positions]
            result[name]["latent"] = similarity.mean_pairwise(similarity.cosine_distances(latents, latents))
    return result


def _class_control(
    chosen: Chosen, spec: DatasetSpec, draws: int, seed: int, quantile: float
) -> dict[str, Any]:
    group, positions = chosen["synthetic"]
    logits = group.computed["class_control"][positions]
    labels = np.array([group.items[index].label for index in positions])
    accuracy = float((logits.argmax(1) == labels).mean())
    result: dict[str, Any] = {"accuracy": accuracy, "count": len(labels)}
    if len(np.unique(labels)) > 1:  # in total, not for one class
        from augment.classifiers import probabilities

        found = figures(labels, probabilities(logits), spec.classes, _patients(group, positions), seed=seed)
        result |= {
            key: found[key] for key in ("balanced_accuracy", "macro_f1", "auc", "intervals", "confusion")
        }
        result["chance"] = 1 / len(np.unique(labels))
    return result


def _nearest(chosen: Chosen, quantile: float) -> dict[str, similarity.Nearest | None]:
    (real, ours), (synthetic, theirs) = chosen["real"], chosen["synthetic"]
    patients, found = _patients(real, ours), {}
    one, other = synthetic.thumbnails[theirs], real.thumbnails[ours]
    distances = similarity.pixel_distances
    found["pixel"] = similarity.nearest_real(
        distances(one, other), distances(other, other), patients, quantile
    )
    if "latents" in real.computed and "latents" in synthetic.computed:
        one, other = synthetic.computed["latents"][theirs], real.computed["latents"][ours]
        distances = similarity.cosine_distances
        found["latent"] = similarity.nearest_real(
            distances(one, other), distances(other, other), patients, quantile
        )
    return found


def _memorisation(
    chosen: Chosen, spec: DatasetSpec, draws: int, seed: int, quantile: float
) -> dict[str, Any]:
    (real, ours), (synthetic, theirs) = chosen["real"], chosen["synthetic"]
    result: dict[str, Any] = {}
    for kind, nearest in _nearest(chosen, quantile).items() if len(ours) else ():
        if nearest is None:
            continue
        own = [
            real.items[ours[near]].patient == synthetic.items[index].patient
            for near, index in zip(nearest.index, theirs, strict=True)
        ]
        closest = np.argsort(nearest.distance)
        result[kind] = {
            "flagged": int(nearest.flagged.sum()),
            "count": len(theirs),
            "threshold": nearest.threshold,
            "median_distance": float(np.median(nearest.distance)),
            "smallest_distance": float(nearest.distance.min()),
            "median_between_patients": float(np.median(nearest.reference)),
            "nearest_is_its_own_source": float(np.mean(own)),
            "flagged_files": [synthetic.items[theirs[i]].path.name for i in closest if nearest.flagged[i]],
        }
    return result


_METRICS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "fvd": _frechet("fvd"),
    "fid": _frechet("fid"),
    "vae_seq": _mean("vae_seq"),
    "smoothness": _mean("smoothness"),
    "diversity": _diversity,
    "class_control": _class_control,
    "memorisation": _memorisation,
}


def _draw_closest(path: Path, sets: dict[str, Described], quantile: float) -> None:
    """The synthetic clips that lie nearest to a training clip, each above that clip."""
    real, synthetic = sets["real"], sets["synthetic"]
    found = _nearest({name: (group, group.of_class(None)) for name, group in sets.items()}, quantile)
    nearest = found.get("latent") or found["pixel"]
    if nearest is None:
        return
    rows = []
    for index in np.argsort(nearest.distance)[:CLOSEST_SHOWN]:
        ours, theirs = synthetic.items[index].path, real.items[nearest.index[index]].path
        flag = "COPY? " if nearest.flagged[index] else ""
        rows.append(
            (f"{flag}synthetic {ours.name}, distance {nearest.distance[index]:.4g}", read_video(ours))
        )
        rows.append((f"   nearest real {theirs.name}", read_video(theirs)))
    save_picture(path, contact_sheet(rows))
