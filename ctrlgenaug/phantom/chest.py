"""Phantom chest CT: volumes in HU whose findings are those of the MosMed classes, kept apart from the anatomy.

CT-0 has clear lungs, CT-1 a few small faint patches of ground glass, CT-2 to CT-4 growing bilateral consolidations.
Anatomy (size, place and density of the lungs, heart, vessels, liver dome) differs from patient to patient.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pandas

from ctrlgenaug.files import atomic_path
from ctrlgenaug.phantom import shapes
from ctrlgenaug.phantom.cohort import Patient, write_each

CATEGORIES = ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
AIR, FAT, TISSUE, BLOOD, BONE = -1000.0, -90.0, 45.0, 55.0, 330.0  # HU
Pair = np.ndarray  # (2,): of y and x
DRAWN = 128  # pixels: what is drawn is smooth, so a small grid enlarged holds all of it


def draw_volume(rng: np.random.Generator, category: str, slices: int, in_plane: int = 512) -> np.ndarray:
    """One chest, as a viewer shows it.

    Args:
        rng: the patient's random stream.
        category: one of `CATEGORIES`.
        slices: axial slices, from the liver dome (first) to the upper lobes (last).
        in_plane: height and width in pixels.

    Returns:
        (slices, in_plane, in_plane) int16 in HU; anterior up, the patient's left on the right.
    """
    g = shapes.grid(slices, DRAWN, DRAWN)
    size, shift = rng.uniform(0.9, 1.04, 2), rng.uniform(-0.05, 0.05, 2)
    volume = np.full(g.shape, AIR, np.float32)
    _draw_body(volume, g, rng, size, shift)
    lungs = _lungs(g, rng, size, shift)
    shapes.paint(volume, lungs, _lung_density(g, rng, lungs, size, shift))
    shapes.paint(volume, _findings(g, rng, category, size, shift) * lungs, rng.uniform(-80, 20))
    _draw_airway(volume, g, rng, shift)
    return np.rint(shapes.enlarge(volume, in_plane, in_plane)).astype(np.int16)


def _draw_body(volume: np.ndarray, g: shapes.Grid, rng: np.random.Generator, size: Pair, shift: Pair) -> None:
    """Skin, fat, muscle, ribs, spine, heart, aorta and the table, in place."""
    (sy, sx), (oy, ox) = size, shift
    outline = dict(cy=oy + 0.02, cx=ox, power=2.5)
    shapes.paint(volume, shapes.ellipse(g, ry=0.66 * sy, rx=0.90 * sx, **outline), FAT)
    wall = rng.uniform(0.04, 0.09)  # thickness of the fat
    shapes.paint(volume, shapes.ellipse(g, ry=0.66 * sy - wall, rx=0.90 * sx - wall, **outline), TISSUE)
    # Ribs run obliquely, so that in axial slices each is a short arc that travels round the wall.
    around = np.arctan2((g.y - oy) / 0.56, (g.x - ox) / 0.78)
    on_wall = shapes.ring(g, oy + 0.01, ox, 0.55 * sy, 0.77 * sx, 0.055)
    ribs = np.clip(2.2 * np.cos(11 * around + 16 * np.sign(g.x - ox) * g.z + rng.uniform(0, 6)) - 1.1, 0, 1)
    shapes.paint(volume, on_wall * ribs, BONE)
    spine_y = oy + 0.40 * sy
    shapes.paint(volume, shapes.ellipse(g, spine_y, ox, 0.095, 0.115), BONE * (0.8 + 0.2 * np.cos(25 * g.z)))
    shapes.paint(volume, shapes.ellipse(g, spine_y + 0.125, ox, 0.035, 0.04), TISSUE - 20)
    shapes.paint(volume, shapes.ellipse(g, spine_y + 0.205, ox, 0.06, 0.03), BONE)
    table = np.abs(g.y - (0.80 + 0.10 * (1 - g.x**2))) < 0.012
    shapes.paint(volume, (table & (np.abs(g.x) < 0.8)).astype(np.float32), -550.0)


def _lungs(g: shapes.Grid, rng: np.random.Generator, size: Pair, shift: Pair) -> np.ndarray:
    """Soft mask (n, H, W) of both lungs: ellipses less the mediastinum, the heart and the dome of the liver."""
    (sy, sx), (oy, ox) = size, shift
    swell = 1 - 0.30 * np.clip(g.z - 0.35, 0, 1) ** 1.5 - 0.10 * (1 - g.z) ** 3
    reach = rng.uniform(0.93, 1.04, 2)  # of the right and the left lung
    sides = [
        shapes.ellipse(
            g, oy - 0.02, ox + sign * 0.385 * sx, 0.47 * sy * swell * reach[i], 0.335 * sx * swell, power=2.2
        )
        for i, sign in enumerate((-1, 1))
    ]
    heart_size = rng.uniform(0.85, 1.15) * (1 - np.clip(1.5 * (g.z - 0.3), 0, 1))
    heart = shapes.ellipse(g, oy - 0.13, ox + 0.13, 0.03 + 0.27 * heart_size, 0.03 + 0.31 * heart_size)
    mediastinum = shapes.ellipse(g, oy - 0.12, ox, 0.34, 0.13 + 0.03 * np.sin(3 * g.z), power=3)
    behind = shapes.ellipse(g, oy + 0.36 * sy, ox, 0.22, 0.17)
    aorta = shapes.ellipse(g, oy + 0.19 * sy, ox + 0.13, 0.085, 0.085)
    dome_height = rng.uniform(0.10, 0.24)
    dome = np.sqrt(np.clip(1 - (g.z / dome_height) ** 2, 0, 1))
    liver = shapes.ellipse(g, oy - 0.06, ox - 0.36, 0.02 + 0.27 * dome, 0.02 + 0.23 * dome) * (dome > 0)
    solid = shapes.union([heart, mediastinum, behind, aorta, liver.astype(np.float32)])
    return (sides[0] + sides[1]).clip(0, 1) * (1 - solid)


def _lung_density(
    g: shapes.Grid, rng: np.random.Generator, lungs: np.ndarray, size: Pair, shift: Pair
) -> np.ndarray:
    """HU (n, H, W) of healthy lung: air, a little denser at the back, and vessels that branch from the hilum."""
    (sy, sx), (oy, ox) = size, shift
    base = rng.uniform(-890, -790)  # inspiration differs: mean density alone does not give the class away
    density = base + 45 * (g.y - oy) + 14 * shapes.noise(rng, g.shape, (4, 14, 14))
    vessels = np.zeros(g.shape, np.float32)
    z = g.z[:, 0, 0]
    for sign in (-1, 1):
        for _ in range(13):
            # A vessel leaves the hilum in mid-lung and runs up or down, and outwards.
            angle, up = rng.uniform(-1.25, 1.25), rng.choice([-1, 1])
            start = rng.uniform(0.25, 0.7)
            run = np.clip(up * (z - start), 0, None)
            out = 0.10 + rng.uniform(0.5, 1.1) * run ** rng.uniform(0.6, 1.0)
            y = oy + 0.02 + out * np.sin(angle) * 1.1 * sy
            x = ox + sign * (0.18 + out * np.cos(angle) * sx)
            radius = (
                rng.uniform(0.017, 0.028) * (1 - 0.5 * np.clip(out / 0.5, 0, 1)) * (up * (z - start) > -0.04)
            )
            shapes.add_spot(vessels, g, y, x, np.maximum(radius, 1e-3), rng.uniform(0.75, 1.0))
    return density + vessels * (BLOOD - density) * (lungs > 0.5)


def _findings(g: shapes.Grid, rng: np.random.Generator, category: str, size: Pair, shift: Pair) -> np.ndarray:
    """How far (0 to 1) disease has replaced the air, (n, H, W): smooth patches whose centres drift along z."""
    grade = CATEGORIES.index(category)
    patches = []
    if grade == 0:
        return np.zeros(g.shape, np.float32)
    if grade == 1:  # faint, small, peripheral; one after another along z, so that every clip shows one or two
        count, radius, strength = int(rng.integers(3, 5)), (0.075, 0.11), (0.42, 0.58)
    else:  # large and dense in both lungs
        count, radius, strength = 6 + 2 * grade, (0.13 + 0.015 * grade, 0.18 + 0.02 * grade), (0.8, 0.98)
    (sy, sx), (oy, ox) = size, shift
    first_side = rng.choice([-1, 1])
    for i in range(count):
        side = first_side * (-1) ** i if grade > 1 or rng.random() < 0.5 else first_side
        angle = rng.uniform(-1.2, 1.3)  # towards the back more often than the front
        depth = rng.uniform(0.62, 0.85) if grade == 1 else rng.uniform(0.35, 0.8)
        centre = (
            (i + rng.uniform(0.2, 0.8)) / count,
            oy + 0.40 * sy * depth * np.sin(angle),
            ox + side * sx * (0.385 + 0.28 * depth * np.cos(angle) * rng.choice([1, 1, 0.2])),
        )
        r = rng.uniform(*radius)
        along = rng.uniform(0.16, 0.24) if grade == 1 else rng.uniform(0.18, 0.35)
        shape = shapes.blob(
            g,
            centre,
            (along, r * rng.uniform(0.8, 1.2), r * rng.uniform(0.8, 1.2)),
            rng.uniform(-0.25, 0.25, 2),
        )
        patches.append(rng.uniform(*strength) * (1 - np.exp(-2.5 * shape)))
    ragged = 1 + 0.22 * shapes.noise(rng, g.shape, (5, 20, 20))
    return np.clip(shapes.union(patches) * ragged, 0, 0.97)


def _draw_airway(volume: np.ndarray, g: shapes.Grid, rng: np.random.Generator, shift: Pair) -> None:
    """The trachea, which parts into the main bronchi in mid-chest, in place."""
    oy, ox = shift
    carina = rng.uniform(0.5, 0.62)
    spread = 0.55 * np.clip(carina - g.z, 0, 0.24)
    radius = np.where(g.z > carina - 0.24, 0.05 - 0.05 * np.clip(carina - g.z, 0, 0.24), 1e-3)
    for sign in (-1, 1):
        tube = shapes.ellipse(g, oy + 0.06 - 0.1 * (1 - g.z), ox + sign * spread, radius, radius)
        shapes.paint(volume, tube * (g.z > carina - 0.24), AIR + 30)


def write_study(out: Path, patient: Patient, in_plane: int = 512) -> None:
    """Writes one study below ``out`` as MosMedData stores it: gzipped NIfTI, int16 HU, axes LAS."""
    (shown,) = patient.moved(
        "", draw_volume(patient.generator("study"), patient.cls, patient.slices, in_plane)
    )
    stored = np.rot90(shown.transpose(1, 2, 0), -1)  # (W, H, slices): what step (a) turns upright again
    spacing = 360 / in_plane  # mm
    affine = np.array([[-spacing, 0, 0, 180], [0, spacing, 0, -180], [0, 0, 8, 0], [0, 0, 0, 1]])
    with atomic_path(out / study_file(patient).lstrip("/")) as temporary:
        image = nibabel.Nifti1Image(np.ascontiguousarray(stored), affine)
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def study_file(patient: Patient) -> str:
    """A study's path as the registry writes it, with the leading slash that the real one has."""
    return f"/studies/{patient.cls}/study_{patient.number:04d}.nii.gz"


def write(out: Path, patients: list[Patient], *, in_plane: int = 512, num_workers: int = 1) -> None:
    """Writes the studies and dataset_registry.xlsx, its rows in id order."""
    write_each(write_study, out, patients, in_plane, num_workers=num_workers)
    rows = [
        {"study_id": p.number, "category": p.cls, "study_file": study_file(p), "mask_file": None}
        for p in patients
    ]
    with atomic_path(out / "dataset_registry.xlsx") as temporary:
        pandas.DataFrame(rows).to_excel(temporary, index=False)
