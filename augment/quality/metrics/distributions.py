"""Distances between the distributions of real and synthetic clips, each with what two halves of the real set reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from augment.quality.frechet import frechet_distance
from augment.quality.metrics.registry import Cells, Metric, Row, Selection, register
from augment.quality.neighbours import prdc
from augment.quality.resampling import Comparison, Measure, against_halves
from ctrlgenaug.number_format import NONE, interval, number, spread

HEADS = ("all clips", "equal numbers", "95 % of draws", "real against real", "95 % of draws", "of each")


def compare(chosen: Selection, feature: str, measure: Measure) -> dict[str, Comparison] | None:
    """Real against synthetic clips by a feature; of features of frames, each frame is a sample."""
    real, synthetic = chosen.real, chosen.synthetic
    if not len(real) or not len(synthetic):
        return None
    one, other = real[feature], synthetic[feature]
    patients, strata = np.asarray(real.patients), real.labels
    if one.ndim == 3:
        patients, strata = (np.repeat(part, one.shape[1]) for part in (patients, strata))
        one, other = one.reshape(-1, one.shape[-1]), other.reshape(-1, other.shape[-1])
    settings = chosen.run.instruments.settings
    return against_halves(
        measure, one, patients.tolist(), other, settings.draws, settings.seed, strata.tolist()
    )


def _cells(row: Row) -> tuple[str, ...]:
    line = [number(row["value"])]
    for found in (row["matched"], row["floor"]):
        line.append(spread(found["mean"], found["deviation"], 2) if found else NONE)
        line.append(interval(found.get("interval")) if found else NONE)
    return (*line, str(row["matched"]["size"]) if row["matched"] else NONE)


def _headline(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        fair = ""  # only equal numbers may be compared
        if row["matched"] and row["floor"]:
            matched, floor = (
                spread(part["mean"], part["deviation"], 2) for part in (row["matched"], row["floor"])
            )
            fair = f" (equal numbers {matched}, real against real {floor})"
        return f"{name} {number(row['value'])}{fair}"

    return text


def _frechet(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    return {"distance": frechet_distance(one, other)}


def frd(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """Frechet radiomic distance (Konz et al., Medical Image Analysis 2026): logarithm of a distance of features.

    Features are standardised by the real samples; those that are constant or not finite there are left out.
    """
    mean, deviation = real.mean(0), real.std(0)
    kept = np.isfinite(mean) & np.isfinite(deviation) & (deviation > 0) & np.isfinite(synthetic).all(0)
    one, other = (
        ((part - mean) / np.where(deviation > 0, deviation, 1))[:, kept] for part in (real, synthetic)
    )
    return {"distance": float(np.log(max(frechet_distance(one, other), 1e-12)))}


def _distance(
    name: str,
    title: str,
    feature: str,
    needs: tuple[tuple[str, ...], ...],
    measure: Measure = _frechet,
    on_request: bool = False,
    note: str = "Smaller is nearer. Compare the two middle figures with each other.",
) -> Metric:
    def compute(chosen: Selection) -> Row | None:
        found = compare(chosen, feature, measure)
        return None if found is None else asdict(found["distance"])

    return register(
        Metric(
            name=name,
            title=title,
            compute=compute,
            heads=HEADS,
            cells=lambda row: [_cells(row)],
            needs=(("real",), *needs),
            features=(feature,),
            headline=_headline(title.split(" by ")[0]),
            note=note,
            on_request=on_request,
        )
    )


_distance("fvd", "FVD", "clip_features", (("classifier", "i3d_weights"),))
_distance("fid", "FID by frame", "frame_features", (("classifier", "inception_weights"),))
_distance("fid_radimagenet", "RadImageNet FID by frame", "radimagenet", (("radimagenet_weights",),))
_distance(
    "frd",
    "FRD by frame",
    "radiomics",
    (),
    frd,
    on_request=True,
    note="Logarithm of a distance of radiomic features: may be negative; smaller is nearer.",
)


def _prdc(chosen: Selection) -> Row | None:
    found = compare(chosen, "clip_features", prdc)
    return None if found is None else {name: asdict(comparison) for name, comparison in found.items()}


def _prdc_cells(row: Row) -> Cells:
    return [(name, *_cells(figures)) for name, figures in row.items()]


register(
    Metric(
        name="prdc",
        title="Precision, recall, density, coverage",
        compute=_prdc,
        heads=("figure", *HEADS),
        cells=_prdc_cells,
        needs=(("real",), ("classifier", "i3d_weights")),
        features=("clip_features",),
        note="Larger is better. Precision and density: synthetic clips lie among real ones; recall and coverage: real "
        "clips have synthetic ones among them. Compare the two middle figures.",
    )
)
