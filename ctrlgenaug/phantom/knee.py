"""Phantom knee MRI: sagittal series, the cruciate ligament whole (class 0) or torn and the joint swollen (class 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctrlgenaug.files import write_text
from ctrlgenaug.phantom import shapes
from ctrlgenaug.phantom.cohort import Patient, write_each
from ctrlgenaug.plain_data import save_npy

DRAWN, SIZE = 128, 256  # pixels
FOLDERS = {False: "train", True: "valid"}  # by Patient.test


def draw_series(rng: np.random.Generator, torn: bool, slices: int) -> np.ndarray:
    """One knee, from the lateral to the medial side; the front is left.

    Args:
        rng: the patient's random stream.
        torn: whether the ligament is torn.
        slices: sagittal slices.

    Returns:
        (slices, 256, 256) uint8.
    """
    g = shapes.grid(slices, DRAWN, DRAWN)
    oy, ox = rng.uniform(-0.07, 0.07, 2)
    size = rng.uniform(0.92, 1.06)
    side = np.clip(1 - (2 * g.z - 1) ** 2, 0, 1)  # 0 at both ends of the stack, 1 in the middle of the joint
    skin = shapes.ellipse(g, oy, ox, 2.0, (0.72 + 0.10 * side) * size, power=4)
    muscle = shapes.ellipse(g, oy, ox + 0.05, 2.0, (0.60 + 0.08 * side) * size, power=4)
    volume = np.full(g.shape, 4.0, np.float32)
    shapes.paint(volume, skin, rng.uniform(165, 200))  # fat
    shapes.paint(volume, muscle, rng.uniform(70, 90) + 6 * shapes.noise(rng, g.shape, (3, 10, 10)))
    _draw_bones(volume, g, rng, (oy, ox), size, side)
    _draw_ligaments(volume, g, rng, torn, (oy, ox), size)
    volume *= 1 + 0.10 * rng.uniform(-1, 1) * g.x + 0.10 * rng.uniform(-1, 1) * g.y  # the coil's shading
    return shapes.enlarge(volume.clip(0, 255), SIZE, SIZE).astype(np.uint8)


def _draw_bones(
    volume: np.ndarray,
    g: shapes.Grid,
    rng: np.random.Generator,
    centre: tuple[float, float],
    size: float,
    side: np.ndarray,
) -> None:
    """Femur, tibia and patella with their dark rim and bright cartilage, in place."""
    oy, ox = centre
    marrow = rng.uniform(135, 165)
    condyle = (0.30 + 0.08 * side) * size
    bones: list[
        tuple[tuple[shapes.Numbers, shapes.Numbers], tuple[shapes.Numbers, shapes.Numbers], float]
    ] = [
        ((oy - 0.22, ox + 0.02), (condyle, condyle * 1.15), 2.2),
        ((oy - 0.80, ox + 0.04), (0.55, 0.22 * size), 4.0),  # shaft of the femur
        ((oy + 0.62, ox + 0.05), (0.44, (0.36 + 0.06 * side) * size), 4.0),  # tibia
        ((oy - 0.18, ox - 0.52 * size), (0.20 * size * (0.4 + 0.6 * side), 0.09 * (0.3 + 0.7 * side)), 2.0),
    ]
    for (cy, cx), (ry, rx), power in bones:
        shapes.paint(volume, shapes.ellipse(g, cy, cx, ry + 0.03, rx + 0.03, power=power), 35.0)
    for (cy, cx), (ry, rx), power in bones:
        texture = marrow + 5 * shapes.noise(rng, g.shape, (3, 12, 12))
        shapes.paint(volume, shapes.ellipse(g, cy, cx, ry, rx, power=power), texture)


def _draw_ligaments(
    volume: np.ndarray,
    g: shapes.Grid,
    rng: np.random.Generator,
    torn: bool,
    centre: tuple[float, float],
    size: float,
) -> None:
    """Both cruciate ligaments in the middle slices, and the joint fluid, in place."""
    oy, ox = centre
    middle = np.exp(-(((g.z - 0.5) / 0.27) ** 2))
    notch = shapes.ellipse(g, oy + 0.02, ox + 0.05, 0.24 * size, 0.26 * size) * np.minimum(1, 1.3 * middle)
    shapes.paint(volume, notch, 120.0)
    # Along a ligament t runs from the femur (0) to the tibia (1); across it u counts in units of its thickness.
    for (top, bottom), thickness, whole in (
        (((-0.16, 0.20), (0.22, -0.14)), 0.045, not torn),  # anterior
        (((-0.14, 0.10), (0.24, 0.34)), 0.050, True),  # posterior
    ):
        dy, dx = bottom[0] - top[0], bottom[1] - top[1]
        length = float(np.hypot(dy, dx))
        y, x = g.y - oy - top[0] * size, g.x - ox - top[1] * size
        t = (y * dy + x * dx) / length**2
        u = (y * dx - x * dy) / length / thickness
        band = np.exp(-(u**4)) * np.clip(12 * t, 0, 1) * np.clip(12 * (1 - t), 0, 1) * middle
        if not whole:
            gap = rng.uniform(0.35, 0.65)
            shapes.paint(
                volume, np.exp(-((u / 2.6) ** 2) - ((t - gap) / 0.34) ** 2) * middle, 215.0
            )  # oedema
            band = band * np.clip(np.abs(t - gap) / 0.16 - 0.6, 0, 1) * 0.7
        shapes.paint(volume, band.astype(np.float32), 18.0)
    # Joint fluid: a film in every knee, an effusion above the patella and behind it in a torn one.
    strength = rng.uniform(0.85, 1.0) if torn else rng.uniform(0.0, 0.25)
    pouch = shapes.ellipse(g, oy - 0.50, ox - 0.34, 0.26, 0.10, soft=0.12) + shapes.ellipse(
        g, oy + 0.14, ox - 0.40, 0.10, 0.12, soft=0.12
    )
    shapes.paint(volume, strength * pouch.clip(0, 1), 240.0)


def write_series(out: Path, patient: Patient) -> None:
    """Writes one series below ``out`` as MRNet stores it; ids start at 0."""
    (series,) = patient.moved(
        "", draw_series(patient.generator("series"), patient.cls == "1", patient.slices)
    )
    save_npy(out / FOLDERS[patient.test] / "sagittal" / f"{patient.number - 1:04d}.npy", series)


def write(out: Path, patients: list[Patient], *, num_workers: int = 1) -> None:
    """Writes the series and the two label files, without a header row and with ids as in the real ones."""
    write_each(write_series, out, patients, num_workers=num_workers)
    for test, folder in FOLDERS.items():
        lines = [f"{p.number - 1:04d},{p.cls}\n" for p in patients if p.test == test]
        write_text(out / f"{folder}-acl.csv", "".join(lines))
