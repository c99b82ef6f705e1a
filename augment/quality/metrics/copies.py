"""Whether synthetic clips repeat training clips, and what they tell about who was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from augment.classifiers.metrics import weighted_auc
from augment.quality import similarity
from augment.quality.clip_sets import View
from augment.quality.metrics.diversity import SPACES
from augment.quality.metrics.registry import Cells, Metric, Row, Run, Selection, register
from augment.quality.resampling import INTERVAL, RESAMPLES
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.files import atomic_path
from ctrlgenaug.number_format import NONE, interval, number, percent
from ctrlgenaug.video import read_video

CLOSEST_SHOWN = 6  # pairs in the picture of nearest clips
NEAR = 0.05  # quantile of the test clips' distances below which a synthetic clip counts as nearer than new patients are


def comparable(one: View, other: View, feature: str) -> bool:
    """Whether both sets have a feature, of one shape: latents of other frame sizes have another."""
    if not (one.has(feature) and other.has(feature)):
        return False
    return one.clips.features[feature].shape[1:] == other.clips.features[feature].shape[1:]


def _shared_spaces(run: Run) -> list[str]:
    """The spaces in which synthetic, training and test clips can be compared with each other."""
    made, train, new = (run.sets[name].view() for name in ("synthetic", "real", "test"))
    return [
        space
        for space, (feature, _) in SPACES.items()
        if comparable(made, train, feature) and comparable(new, train, feature)
    ]


def nearest(synthetic: View, real: View, quantile: float) -> dict[str, similarity.Nearest]:
    """The nearest real clip of every synthetic one by space; none where too few patients give no yardstick."""
    found: dict[str, similarity.Nearest] = {}
    twins = None
    for space, (feature, distances) in SPACES.items():
        if len(synthetic) and len(real) and comparable(synthetic, real, feature):
            one, other = synthetic[feature], real[feature]
            among = distances(other, other)
            if space == "pixel":
                twins = similarity.twins(among, real.patients)
            result = similarity.nearest_real(distances(one, other), among, real.patients, quantile, twins)
            if result is not None:
                found[space] = result
    return found


def _memorisation(chosen: Selection) -> Row | None:
    synthetic, real = chosen.synthetic, chosen.real
    row: Row = {}
    quantile = chosen.run.instruments.settings.memorisation_quantile
    for space, found in nearest(synthetic, real, quantile).items():
        sources = np.asarray(real.patients)[found.index]
        closest = np.argsort(found.distance)
        names = [item.path.name for item in synthetic.items]
        row[space] = {
            "flagged": int(found.flagged.sum()),
            "count": len(synthetic),
            "threshold": found.threshold,
            "median_distance": float(np.median(found.distance)),
            "smallest_distance": float(found.distance.min()),
            "median_between_patients": float(np.median(found.reference)),
            "training_clips_of_two_patients": found.twins,
            "nearest_is_its_own_source": float((sources == np.asarray(synthetic.patients)).mean()),
            "flagged_files": [names[index] for index in closest if found.flagged[index]],
        }
    return row or None


def _memorisation_cells(row: Row) -> Cells:
    return [
        (
            space,
            f"{found['flagged']} of {found['count']}",
            number(found["threshold"], 4),
            number(found["median_distance"], 4),
            number(found["median_between_patients"], 4),
            percent(found["nearest_is_its_own_source"], 0),
        )
        for space, found in row.items()
    ]


def _memorisation_headline(row: Row) -> str:
    found = row.get("latent") or row["pixel"]
    twins = found.get("training_clips_of_two_patients")
    said = f"; {twins} training clips are there again under another patient's name" if twins else ""
    return f"{found['flagged']} of {found['count']} clips flagged as near copies{said}"


register(
    Metric(
        name="memorisation",
        title="Memorisation",
        compute=_memorisation,
        heads=("distance", "flagged", "threshold", "median", "between patients", "own source, %"),
        cells=_memorisation_cells,
        needs=(("real",),),
        features=("thumbnails", "latents"),
        headline=_memorisation_headline,
        note="Distance to the nearest training clip. Flagged: nearer than real clips of different patients nearly ever "
        "are to each other.",
        steering="nearest_training_clip",
    )
)


# --- privacy ---------------------------------------------------------------------------------------------------------


def _nearest_distances(run: Run, space: str) -> dict[str, np.ndarray]:
    """Distances over all classes: of synthetic and of test clips to the nearest training clip, of training and of test
    clips to the nearest synthetic one."""

    def compute() -> dict[str, np.ndarray]:
        feature, distances = SPACES[space]
        synthetic, train, test = (run.sets[name].view()[feature] for name in ("synthetic", "real", "test"))
        to_train, to_test = distances(synthetic, train), distances(synthetic, test)
        return {
            "synthetic": to_train.min(1),
            "test": distances(test, train).min(1),
            "train_to_synthetic": to_train.min(0),
            "test_to_synthetic": to_test.min(0),
        }

    return run.once(f"privacy, {space}", compute)


def _by_patient(distance: np.ndarray, patients: list[str]) -> np.ndarray:
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    smallest = np.full(len(names), np.inf)
    np.minimum.at(smallest, owner, distance)
    return smallest


def membership_auc(train: np.ndarray, test: np.ndarray, seed: int) -> Row:
    """How well nearness to the synthetic set tells training from test patients: 0.5 not at all, 1 always.

    Args:
        train: (P,) distance of each training patient to the synthetic set.
        test: (Q,) likewise of each test patient.
        seed: of the bootstrap over patients.
    """
    scores = -np.concatenate([train, test])
    positive = np.arange(len(scores)) < len(train)
    rng = np.random.default_rng(seed)
    parts = [
        rng.multinomial(size, np.full(size, 1 / size), size=RESAMPLES) for size in (len(train), len(test))
    ]
    areas = weighted_auc(
        scores, positive, np.concatenate([np.ones((1, len(scores))), np.concatenate(parts, 1)])
    )
    low, high = np.percentile(areas[1:], INTERVAL)
    return {
        "auc": float(areas[0]),
        "interval": (float(low), float(high)),
        "train": len(train),
        "test": len(test),
    }


def _privacy(chosen: Selection) -> Row | None:
    run = chosen.run
    if not len(chosen.synthetic) or not all(name in run.sets for name in ("real", "test")):
        return None
    row: Row = {}
    for space in _shared_spaces(run):
        found = _nearest_distances(run, space)
        synthetic, test = found["synthetic"][chosen.synthetic.positions], found["test"]
        nearer = (synthetic[:, None] < test).mean() + (synthetic[:, None] == test).mean() / 2
        row[space] = {
            "median_distance": float(np.median(synthetic)),
            "test_median_distance": float(np.median(test)),
            "nearer_than_test_clips": float(nearer),
            "nearer_than_the_nearest_test_clips": float((synthetic < np.quantile(test, NEAR)).mean()),
            "count": len(synthetic),
        }
        if chosen.label is None:
            train, new = run.sets["real"].view(), run.sets["test"].view()
            row[space]["membership"] = membership_auc(
                _by_patient(found["train_to_synthetic"], train.patients),
                _by_patient(found["test_to_synthetic"], new.patients),
                run.seed,
            )
    return row or None


def _privacy_cells(row: Row) -> Cells:
    cells: Cells = []
    for space, found in row.items():
        member = found.get("membership")
        cells.append(
            (
                space,
                number(found["median_distance"], 4),
                number(found["test_median_distance"], 4),
                percent(found["nearer_than_test_clips"]),
                percent(found["nearer_than_the_nearest_test_clips"]),
                number(member["auc"]) if member else NONE,
                interval(member["interval"]) if member else NONE,
            )
        )
    return cells


register(
    Metric(
        name="privacy",
        title="Privacy",
        compute=_privacy,
        heads=(
            "distance",
            "synthetic to training",
            "test to training",
            "nearer than test clips, %",
            "nearer than 95 % of them, %",
            "membership AUC",
            "95 % interval",
        ),  # fmt: skip
        cells=_privacy_cells,
        needs=(("real",),),
        features=("thumbnails", "latents"),
        headline=lambda row: (
            f"membership AUC {number((row.get('latent') or row['pixel'])['membership']['auc'])}"
        ),
        note="Median distance to the nearest training clip; clips of new patients are the yardstick (50 % and 5 % "
        "where synthetic clips are as far away). Membership: telling training from test patients by their distance "
        "to the synthetic clips; 0.5 is none. Conditions come from training clips, so some nearness is asked for.",
        sets=("synthetic", "real", "test"),
    )
)


# --- pictures --------------------------------------------------------------------------------------------------------


def draw_closest(path: Path, run: Run) -> None:
    """The synthetic clips that lie nearest to a training clip, each above that clip."""
    synthetic, real = run.sets["synthetic"].view(), run.sets["real"].view()
    by_space = nearest(synthetic, real, run.instruments.settings.memorisation_quantile)
    found = by_space.get("latent") or by_space.get("pixel")
    if found is None:
        return
    rows = []
    ours, theirs = synthetic.items, real.items
    for index in np.argsort(found.distance)[:CLOSEST_SHOWN]:
        mine, its = ours[index].path, theirs[found.index[index]].path
        flag = "COPY? " if found.flagged[index] else ""
        rows.append((f"{flag}synthetic {mine.name}, distance {found.distance[index]:.4g}", read_video(mine)))
        rows.append((f"   nearest real {its.name}", read_video(its)))
    save_picture(path, contact_sheet(rows))


def draw_distances(path: Path, run: Run) -> None:
    """Histograms of the distance to the nearest training clip: synthetic clips beside real test clips."""
    from matplotlib.figure import Figure

    spaces = _shared_spaces(run)
    figure = Figure(figsize=(4.5 * len(spaces), 3.2), layout="constrained")
    for axes, space in zip(figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        found = _nearest_distances(run, space)
        edges = np.histogram_bin_edges(np.concatenate([found["synthetic"], found["test"]]), bins=24)
        for name in ("synthetic", "test"):
            axes.hist(found[name], edges, density=True, alpha=0.6, label=f"{name} clips ({len(found[name])})")
        axes.set(xlabel=f"{space} distance to the nearest training clip", yticks=[])
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
