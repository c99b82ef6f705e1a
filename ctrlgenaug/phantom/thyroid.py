"""Phantom thyroid ultrasound: films of a nodule whose look follows its TI-RADS codes, in TUSC's hdf5 and table.

The oddities of the real data are there too: rows of a nodule apart from each other, gaps in frame numbers, a nodule too
short for a clip, masks with a second speck or grey edges, the isolated first frame of nodule 4, and nodule 8 (TR1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas

from ctrlgenaug.files import atomic_path
from ctrlgenaug.phantom import shapes
from ctrlgenaug.phantom.cohort import Patient
from ctrlgenaug.progress import progress

LEVELS = ("TR2", "TR3", "TR4", "TR5")
HEIGHT, WIDTH = 802, 1054  # pixels
DRAWN = (HEIGHT // 2, WIDTH // 2)
EXCLUDED = 8  # the nodule with grade TR1
FEATURES = ("composition", "echogenicity", "shape", "margin", "echogenicfoci")

# Codes of the five features whose points add up to each level; one row is drawn.
CODES = {
    "TR1": ((0, 0, 0, 0, 0),),
    "TR2": ((1, 1, 0, 0, 0),),
    "TR3": ((2, 1, 0, 0, 0), (1, 2, 0, 0, 0)),
    "TR4": ((2, 2, 0, 0, 0), (2, 2, 0, 2, 0), (2, 2, 0, 0, 1), (2, 2, 0, 0, 2)),
    "TR5": ((2, 3, 3, 2, 3), (2, 2, 3, 2, 3), (2, 3, 3, 3, 4)),
}


@dataclass(frozen=True)
class Nodule:
    """One nodule: its id, level, codes and frame numbers."""

    number: int
    level: str
    codes: tuple[int, ...]
    frames: list[int]
    patient: Patient


def draw_film(rng: np.random.Generator, codes: tuple[int, ...], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A film of one nodule while the probe moves across it.

    Args:
        rng: the patient's random stream.
        codes: composition, echogenicity, shape, margin, echogenic foci.
        frames: how many.

    Returns:
        picture (frames, 401, 527) float32 in [0, 255], and mask (frames, 401, 527) float32 in [0, 1].
    """
    composition, echogenicity, shape, margin, foci = codes
    g = shapes.grid(frames, *DRAWN)
    z = g.z
    cy, cx = (
        rng.uniform(-0.1, 0.15) + 0.05 * np.sin(3 * z),
        rng.uniform(-0.25, 0.25) + rng.uniform(-0.2, 0.2) * z,
    )
    swell = 0.65 + 0.35 * np.sin(np.pi * (0.15 + 0.7 * z))
    radius = rng.uniform(0.20, 0.28) * swell
    tall, wide = (1.45, 0.62) if shape == 3 else (0.85, 0.95)
    angle = np.arctan2(g.y - cy, g.x - cx)
    wave = {0: 0.02, 2: 0.13, 3: 0.18}[margin] * np.sin(
        rng.integers(6, 9) * angle + rng.uniform(0, 6) + 2 * z
    )
    distance = np.hypot((g.y - cy) / tall, (g.x - cx) / wide) / (radius * (1 + wave))
    mask = np.clip(0.5 + 12 * (1 - distance), 0, 1).astype(np.float32)
    # Speckle keeps its grain while the tissue moves under it; two fields in turn make it live.
    speckle = np.stack(
        [cv2.resize(rng.standard_normal((100, 132)).astype(np.float32), DRAWN[::-1]) for _ in range(2)]
    )
    flicker = np.cos(2 * np.pi * z) * speckle[0] + np.sin(2 * np.pi * z) * speckle[1]
    depth = (g.y + 1) / 2
    tissue = 120 - 55 * depth + 25 * np.exp(-(((g.y + 0.8 + 0.03 * np.sin(4 * g.x)) / 0.07) ** 2))
    tissue = tissue - 35 * np.exp(-(((g.y + 0.55) / 0.12) ** 2)) + 0 * z
    level = {0: 105.0, 1: 98.0, 2: 52.0, 3: 22.0}[echogenicity] * np.ones_like(z)
    inner = level + 0 * g.y + 0 * g.x
    if composition < 2:  # fluid: dark chambers
        for _ in range(3):
            oy, ox = rng.uniform(-0.4, 0.4, 2)
            chamber = (
                np.hypot((g.y - cy - oy * radius) / tall, (g.x - cx - ox * radius) / wide) < 0.30 * radius
            )
            inner = np.where(chamber, 8.0, inner)
    picture = (tissue * (1 - mask) + inner * mask).astype(np.float32)
    _draw_foci(picture, g, rng, foci, (cy, cx), radius, distance)
    return (picture * (1 + 0.22 * flicker)).clip(0, 255), mask


def _draw_foci(
    picture: np.ndarray,
    g: shapes.Grid,
    rng: np.random.Generator,
    foci: int,
    centre: tuple[np.ndarray, np.ndarray],
    radius: np.ndarray,
    distance: np.ndarray,
) -> None:
    """Calcifications, in place: a few large ones, a bright rim, or many points."""
    if foci == 2:
        shapes.paint(picture, np.exp(-(((distance - 0.95) / 0.06) ** 2)).astype(np.float32), 245.0)
    count, size = {1: (3, 0.035), 3: (14, 0.012), 4: (18, 0.014)}.get(foci, (0, 0.0))
    bright = np.zeros_like(picture)
    for _ in range(count):
        oy, ox = rng.uniform(-0.5, 0.5, 2)
        y, x = (centre[0] + oy * radius).ravel(), (centre[1] + ox * radius).ravel()
        shapes.add_spot(bright, g, y, x, np.full(len(y), size), 1.0)
    shapes.paint(picture, bright, 250.0)


def _nodules(patients: list[Patient]) -> list[Nodule]:
    """Nodules with their frame numbers, some of them odd; and the excluded one."""
    nodules = []
    for patient in patients:
        rng = patient.generator("frames")
        number = patient.number + (patient.number >= EXCLUDED)
        first = int(rng.choice([1, 1, int(rng.integers(2, 60))]))
        frames = list(range(first, first + patient.slices))
        if number == 2:
            frames = frames[:10]  # too short for a clip
        elif number == 4:
            frames = [1, *range(9, 9 + patient.slices)]  # the first frame stands alone
        elif number % 5 == 3 and patient.slices > 4:  # a gap near the end
            frames = frames[:-3] + [frame + 4 for frame in frames[-3:]]
        codes = CODES[patient.cls]
        nodules.append(Nodule(number, patient.cls, codes[rng.integers(len(codes))], frames, patient))
    odd = Patient(EXCLUDED, "TR1", 3, patients[0].seed)
    return sorted(
        [*nodules, Nodule(EXCLUDED, "TR1", CODES["TR1"][0], [1, 2, 3], odd)], key=lambda nodule: nodule.number
    )


def write(out: Path, patients: list[Patient], *, num_workers: int = 1) -> None:
    """Writes dataset.hdf5 and metadata.csv; one film at a time is in memory. One file, so one process."""
    nodules = _nodules(patients)
    total = sum(len(nodule.frames) for nodule in nodules)
    # The second half of each film lies behind all first halves.
    halves = [(nodule, half) for half in (0, 1) for nodule in nodules]
    first_row, start = {}, 0
    for nodule, half in halves:
        first_row[nodule.number, half] = start
        middle = len(nodule.frames) // 2
        start += middle if half == 0 else len(nodule.frames) - middle
    with atomic_path(out / "dataset.hdf5") as temporary, h5py.File(temporary, "w") as films:
        shape, chunk = (total, HEIGHT, WIDTH), (1, HEIGHT, WIDTH)
        image, mask = (
            films.create_dataset(name, shape, "u1", chunks=chunk, compression="lzf")
            for name in ("image", "mask")
        )
        annotation, frame_num = (
            films.create_dataset(name, (total,), "S8") for name in ("annot_id", "frame_num")
        )
        for nodule in progress(nodules, description="drawing films", unit="film"):
            picture, lesion = draw_film(nodule.patient.generator("film"), nodule.codes, len(nodule.frames))
            middle = len(nodule.frames) // 2
            for i, frame in enumerate(nodule.frames):
                half = int(i >= middle)
                row = first_row[nodule.number, half] + i - half * middle
                image[row] = shapes.enlarge(picture[i : i + 1], HEIGHT, WIDTH)[0].astype(np.uint8)
                mask[row] = _stored_mask(lesion[i], nodule.number, i)
                annotation[row], frame_num[row] = f"{nodule.number}_".encode(), str(frame).encode()
    rows = [
        {
            "annot_id": f"{nodule.number}_", "age": 40 + nodule.number % 40, "sex": "FM"[nodule.number % 2],
            "location": "left", "size_x": 1.5, "size_y": 1.2, "size_z": 1.8,
            **{f"ti-rads_{feature}": code for feature, code in zip(FEATURES, nodule.codes, strict=True)},
            "ti-rads_level": int(nodule.level[2:]), "histopath_diagnosis": "phantom",
        }
        for nodule in nodules
    ]  # fmt: skip
    with atomic_path(out / "metadata.csv") as temporary:
        pandas.DataFrame(rows).to_csv(temporary, index=False)


def _stored_mask(lesion: np.ndarray, number: int, frame: int) -> np.ndarray:
    """A mask at full size: {0, 255}, but grey at the edges for every third nodule; now and then a second speck."""
    full = shapes.enlarge(lesion[None] * 255, HEIGHT, WIDTH)[0]
    stored = full.astype(np.uint8) if number % 3 == 0 else np.where(full >= 128, 255, 0).astype(np.uint8)
    if frame % 4 == 1:
        # 120 pixels: small enough to be erased; below the lesion, where the published code expects it
        stored[-30:-20, 30:42] = 255
    return stored
