"""Drawn patients and what is computed from them once, as arrays in a scratch folder that a second run finds again."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from augment.demo.base.patients import FRAMES, draw_patient
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.conditions.origins import CELL
from ctrlgenaug.conditions.trajectories import track
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.files import atomic_path
from ctrlgenaug.phantom import shapes
from ctrlgenaug.phantom.movement import drift, shifted
from ctrlgenaug.plain_data import read_json, write_json


def field_of(clip: np.ndarray) -> np.ndarray:
    """`motion_field` of a clip that says where things go: between neighbours, and everywhere (docs/conditions.md)."""
    return motion_field(np.ascontiguousarray(clip), adjacent_reference=True, fill_blocks=True)


def _draw(job: tuple[int, int]) -> tuple[np.ndarray, str]:
    example = draw_patient(*job)
    return example.frames, example.text


def filled(path: Path, shape: tuple[int, ...], dtype: str, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """The array at ``path``, read-only and memory-mapped; made by ``fill`` if it is not there yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            fill(array)
            array.flush()
    return np.load(path, mmap_mode="r")


def drawn_patients(folder: Path, seed: int, count: int) -> tuple[np.ndarray, list[str]]:
    """The first ``count`` patients of the line that ``seed`` names: frames (count, 8, 256, 256) uint8, and texts."""
    texts_path = folder / f"texts-{seed}-{count}.json"

    def fill(frames: np.ndarray) -> None:
        texts = []
        jobs = [(seed, number) for number in range(count)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for number, (clip, text) in enumerate(
                tqdm(
                    pool.map(_draw, jobs, chunksize=8),
                    total=count,
                    desc="drawing",
                    unit="patient",
                    mininterval=10,
                )
            ):
                frames[number] = clip
                texts.append(text)
        write_json(texts_path, texts)

    path = folder / f"frames-{seed}-{count}.npy"
    frames = filled(path, (count, FRAMES, IMAGE_SIZE, IMAGE_SIZE), "uint8", fill)
    return frames, read_json(texts_path)


def encoded(folder: Path, name: str, frames: np.ndarray, vae: torch.nn.Module) -> np.ndarray:
    """The VAE's moments of every frame, (patients, 8, 8, 32, 32) float32."""

    def fill(moments: np.ndarray) -> None:
        for number, clip in enumerate(tqdm(frames, desc="encoding", unit="clip", mininterval=10)):
            pixels = torch.from_numpy(np.array(clip)).float()[:, None] / 127.5 - 1
            with torch.no_grad():
                moments[number] = vae.encode(pixels).latent_dist.parameters.numpy()

    side = IMAGE_SIZE // 8
    return filled(folder / f"{name}.npy", (len(frames), FRAMES, 8, side, side), "float32", fill)


def moved(clip: np.ndarray, seed: int, number: int, most: float) -> np.ndarray:
    """``clip`` (F, H, W) of patient ``number`` of the line ``seed``, the view drifting; of one in four it stays."""
    rng = shapes.generator(seed, f"base movement {number}")
    return shifted(clip, drift(rng, len(clip), most))


def moving(folder: Path, seed: int, frames: np.ndarray, most: float) -> np.ndarray:
    """``frames`` (patients, 8, 256, 256) of the line ``seed``, the view drifting by up to ``most`` pixels a frame."""

    def fill(clips: np.ndarray) -> None:
        for number, clip in enumerate(tqdm(frames, desc="moving", unit="clip", mininterval=10)):
            clips[number] = moved(clip, seed, number, most)

    return filled(folder / f"moving-{seed}-{len(frames)}-{most:g}.npy", frames.shape, "uint8", fill)


def _motion(clip: np.ndarray, published: bool) -> tuple[np.ndarray, np.ndarray]:
    field = motion_field(np.ascontiguousarray(clip)) if published else field_of(clip)
    tracks = track(field, 0)
    return (field if published else field[..., ::CELL, ::CELL]).astype(np.float16), tracks


class Motion:
    """Motion fields and trajectories of clips.

    Args:
        folder: where they are kept.
        name: of the file.
        frames: (clips, 8, 256, 256) uint8.
        published: one vector a block and the encoder's defaults, as the published code extracts them; else
            `field_of`.
    """

    def __init__(self, folder: Path, name: str, frames: np.ndarray, published: bool = False) -> None:
        path = folder / f"{name}.npz"
        if not path.exists():
            with ProcessPoolExecutor(os.cpu_count()) as pool:
                bar = tqdm(
                    pool.map(partial(_motion, published=published), frames, chunksize=8),
                    total=len(frames), desc="motion", unit="clip", mininterval=10,
                )  # fmt: skip
                fields, tracks = zip(*bar, strict=True)
            with atomic_path(path) as temporary:
                np.savez_compressed(temporary, fields=fields, tracks=tracks)
        with np.load(path) as stored:
            self.fields, self.tracks = stored["fields"], stored["tracks"]

    def field(self, index: int) -> np.ndarray:
        """(7, 2, 256, 256) float32, as the extraction writes it."""
        field = self.fields[index].astype(np.float32)
        side = IMAGE_SIZE // field.shape[-1]
        return field.repeat(side, -2).repeat(side, -1)
