"""Phantom cardiac MRI: short-axis stacks at end-diastole and end-systole with masks, for the five ACDC groups.

NOR pumps well; DCM has a wide, thin-walled, weak left ventricle; HCM a thick wall and a small cavity; MINF a thin dark
segment that does not contract; RV a wide right ventricle.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np

from ctrlgenaug.files import atomic_path, write_text
from ctrlgenaug.phantom import shapes
from ctrlgenaug.phantom.cohort import Patient, write_each

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")
FOLDERS = {False: "training", True: "testing"}  # by Patient.test
RIGHT, WALL, LEFT = 1, 2, 3  # labels of the masks

# group: end-diastolic radius of the left cavity, its wall (grid units), shrinkage at end-systole, size of the right
SHAPES = {
    "NOR": (0.15, 0.055, 0.62, 1.0),
    "MINF": (0.175, 0.052, 0.80, 1.0),
    "DCM": (0.225, 0.040, 0.92, 1.05),
    "HCM": (0.115, 0.115, 0.50, 0.95),
    "RV": (0.145, 0.055, 0.70, 1.75),
}


def draw_phase(
    rng: np.random.Generator, group: str, slices: int, shape: tuple[int, int], systole: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One phase of a heartbeat, from the base to the apex. Two calls with equal streams draw one heart in two phases.

    Args:
        rng: the patient's random stream.
        group: one of `GROUPS`.
        slices: short-axis slices; the first and the last show no ventricle.
        shape: (height, width) in pixels.
        systole: whether the heart is contracted.

    Returns:
        grey values (slices, H, W) float32 in [0, 1], and labels (slices, H, W) uint8.
    """
    height, width = shape
    g = shapes.grid(slices, height // 2, width // 2)
    aspect = height / width
    g = shapes.Grid(g.z, g.y * aspect, g.x)  # round stays round in a frame that is not square
    cavity, wall, squeeze, right = SHAPES[group]
    cavity, wall = cavity * rng.uniform(0.92, 1.08), wall * rng.uniform(0.9, 1.1)
    oy, ox = rng.uniform(-0.08, 0.08, 2)
    along = np.sqrt(np.clip(1 - np.clip((g.z - 0.1) / 0.86, 0, 1) ** 2.2, 0, 1))  # narrows towards the apex
    inside = (g.z > 0.5 / slices) & (g.z < 1 - 0.5 / slices)
    infarct = rng.uniform(-np.pi, np.pi)
    texture = shapes.noise(rng, g.shape, (4, 16, 16))
    if systole:
        wall *= 1.0 + 0.7 * (1 - squeeze)
        cavity *= squeeze
    cy, cx = oy + 0.04 * g.z, ox + 0.08 - 0.06 * g.z
    angle = np.arctan2(g.y - cy, g.x - cx)
    segment = np.exp(-((np.angle(np.exp(1j * (angle - infarct))) / 0.75) ** 2)) * (group == "MINF")
    thickness = wall * (0.6 + 0.4 * along) * (1 - 0.55 * segment)
    inner = cavity * along * (1 + 0.12 * segment)
    left = shapes.ellipse(g, cy, cx, inner, inner, soft=0.02) * inside
    outer = shapes.ellipse(g, cy, cx, inner + thickness, inner + thickness, soft=0.02) * inside
    size = right * along * (0.85 if systole else 1.0)
    offset = inner + 0.55 * thickness
    bulge = (
        shapes.ellipse(g, cy - 0.05, cx - offset - 0.05 * size, 0.19 * size, 0.17 * size, soft=0.02) * inside
    )
    bulge = bulge * (1 - outer)
    picture = _chest(g, rng, (oy, ox), texture)
    shapes.paint(picture, shapes.ellipse(g, oy, ox - 0.03, 0.46, 0.46, soft=0.1), 0.33)
    shapes.paint(picture, bulge, 0.80)
    shapes.paint(picture, outer, 0.20 - 0.08 * segment)
    shapes.paint(picture, left, 0.86)
    labels = np.zeros(g.shape, np.uint8)
    labels[bulge > 0.5] = RIGHT
    labels[outer > 0.5] = WALL
    labels[left > 0.5] = LEFT
    grown = labels.repeat(2, 1).repeat(2, 2)
    full = np.zeros((slices, height, width), np.uint8)
    full[:, : grown.shape[1], : grown.shape[2]] = grown
    return shapes.enlarge((picture + 0.012 * texture).clip(0, 1), height, width), full


def _chest(
    g: shapes.Grid, rng: np.random.Generator, centre: tuple[float, float], texture: np.ndarray
) -> np.ndarray:
    """What surrounds the heart: chest wall, fat, lungs, liver, spine."""
    oy, ox = centre
    picture = np.zeros(g.shape, np.float32)
    reach = float(np.abs(g.y).max())
    shapes.paint(picture, shapes.ellipse(g, 0, 0, reach * 0.94, 0.93, power=3), rng.uniform(0.5, 0.6))
    within = shapes.ellipse(g, 0, 0, reach * 0.84, 0.83, power=3)
    shapes.paint(picture, within, 0.28 + 0.02 * texture)
    for sign in (-1, 1):
        shapes.paint(picture, shapes.ellipse(g, oy, ox + sign * 0.52, reach * 0.60, 0.26), 0.06)
    shapes.paint(
        picture, shapes.ellipse(g, oy + 0.55, ox - 0.35, 0.30, 0.40) * within * (0.4 + 0.6 * g.z), 0.38
    )
    shapes.paint(picture, shapes.ellipse(g, reach * 0.66, ox + 0.1, 0.12, 0.13), 0.45)
    return picture


def write_patient(out: Path, patient: Patient) -> None:
    """Writes one patient's folder below ``out`` as ACDC stores it: Info.cfg, two images, two masks."""
    rng = patient.generator("setting")
    name = f"patient{patient.number:03d}"
    folder = out / "database" / FOLDERS[patient.test] / name
    height, width = int(rng.integers(150, 260)), int(rng.integers(154, 260))
    frames = int(rng.integers(20, 31))
    diastole = 4 if patient.number % 10 == 9 else 1  # one patient in the real data, so any test meets one
    systole = diastole + int(rng.integers(7, 12))
    most = float(rng.integers(200, 4032))
    dtype = rng.choice(["int16", "float32", "uint8"], p=[0.6, 0.3, 0.1])
    most = min(most, 255.0) if dtype == "uint8" else most
    spacing = (*rng.uniform(1.2, 1.8, 1).repeat(2), float(rng.choice([5.0, 8.0, 10.0])))
    for frame in (diastole, systole):
        picture, labels = draw_phase(
            patient.generator("heart"), patient.cls, patient.slices, (height, width), frame == systole
        )
        picture, labels = patient.moved(f"frame {frame}", picture, labels)  # slices of one breath each
        labels[-1, 2:5, 2:5] = RIGHT  # a stray click of the annotator's, in a slice without a ventricle
        for suffix, values in (("", (picture * most).astype(dtype)), ("_gt", labels)):
            # No spacing in the affine, only in pixdim, as in the real files.
            image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), np.eye(4))
            image.header["pixdim"][1:4] = spacing
            with atomic_path(folder / f"{name}_frame{frame:02d}{suffix}.nii.gz") as temporary:
                temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
    info = {
        "ED": diastole, "ES": systole, "Group": patient.cls, "Height": f"{rng.uniform(150, 195):.1f}",
        "NbFrame": frames, "Weight": f"{rng.uniform(50, 110):.1f}",
    }  # fmt: skip
    write_text(folder / "Info.cfg", "".join(f"{key}: {value}\n" for key, value in info.items()))


def write(out: Path, patients: list[Patient], *, num_workers: int = 1) -> None:
    """Writes database/training and database/testing."""
    write_each(write_patient, out, patients, num_workers=num_workers)
