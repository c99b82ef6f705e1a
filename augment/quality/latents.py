"""VAE latents of clips, computed once and kept beside them: VAE-Seq and the noise filter share them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import load_npy, save_npy
from ctrlgenaug.steps import is_out_of_memory
from ctrlgenaug.video import read_video

CACHE = ".latents"
PixelRange = Literal["official", "model"]
Posterior = Literal["sample", "mode"]


@dataclass(frozen=True)
class LatentSettings:
    """What latents depend on besides VAE and video.

    Attributes:
        pixel_range: ``official`` feeds pixel / 255 in [0, 1], as the published scores do; ``model`` feeds the range
            that the VAE was trained with, [-1, 1].
        posterior: ``sample`` draws from the posterior, as published; ``mode`` takes its mean.
        seed: of the draws. A video's draw depends on this and on the video's bytes alone.
    """

    pixel_range: PixelRange = "official"
    posterior: Posterior = "sample"
    seed: int = 3407

    def tag(self) -> str:
        """A folder name for these settings."""
        return f"{self.pixel_range}-{self.posterior}" + (
            f"-{self.seed}" if self.posterior == "sample" else ""
        )


class LatentStore:
    """Latents of videos by way of a cache folder.

    They are rounded to float16 always, cached or not, so that a score never depends on where they came from (64 kB a
    clip of 8 frames; the rounding moves a VAE-Seq by less than 0.001 points).

    Args:
        load_vae: gives the VAE in eval mode on ``device``; called only when something is not in the cache. The VAE's
            ``encode(x).latent_dist`` must have ``mean`` and ``std``.
        vae_name: tells this VAE from others, e.g. a fingerprint of its weights.
        folder: where the videos lie; the cache is ``.latents`` in it. None keeps nothing.
        settings: see `LatentSettings`.
        device: ``cpu`` or ``cuda:N``.
        batch_size: videos that go through the VAE together on a GPU; on a CPU it is always one.
    """

    def __init__(
        self,
        load_vae: Callable[[], Any],
        vae_name: str,
        folder: Path | None,
        settings: LatentSettings | None = None,
        *,
        device: str = "cpu",
        batch_size: int = 4,
    ) -> None:
        self.settings = settings or LatentSettings()
        self._load_vae, self._vae = load_vae, None
        self._cache = None if folder is None else folder / CACHE / f"{vae_name}-{self.settings.tag()}"
        self.device = device
        self.batch_size = 1 if device == "cpu" else max(1, batch_size)
        self.computed = 0

    def stream(self, videos: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray | UserError]]:
        """Latents (F, C, h, w) float16 of each video in order, or the error why there are none.

        Holds ``batch_size`` videos at a time, however many there are.
        """
        start = 0
        while start < len(videos):  # the batch may shrink on the way
            chunk = videos[start : start + self.batch_size]
            yield from zip(chunk, self._chunk(chunk), strict=True)
            start += len(chunk)

    def _chunk(self, videos: Sequence[Path]) -> list[np.ndarray | UserError]:
        results: list[np.ndarray | UserError | None] = [None] * len(videos)
        todo: list[tuple[int, str, np.ndarray]] = []
        for place, video in enumerate(videos):
            try:
                digest = hashlib.sha256(video.read_bytes()).hexdigest()
                results[place] = self._cached(digest)
                if results[place] is None:
                    todo.append((place, digest, _checked(read_video(video), video)))
            except OSError as error:
                results[place] = UserError(f"cannot be read ({error.strerror})", "Check the file", video)
            except UserError as error:
                results[place] = error
        while todo:  # together only what has the same shape
            same = [item for item in todo if item[2].shape == todo[0][2].shape]
            todo = [item for item in todo if item[2].shape != same[0][2].shape]
            encoded = self._encode([frames for *_, frames in same], [digest for _, digest, _ in same])
            for (place, digest, _), latents in zip(same, encoded, strict=True):
                results[place] = latents
                if self._cache is not None:
                    save_npy(self._cache / f"{digest}.npy", latents)
        return results  # type: ignore[return-value]

    def _cached(self, digest: str) -> np.ndarray | None:
        if self._cache is None or not (self._cache / f"{digest}.npy").is_file():
            return None
        try:
            return load_npy(self._cache / f"{digest}.npy", (None, None, None, None))
        except UserError:
            return None  # damaged: compute it again

    def _encode(self, clips: Sequence[np.ndarray], digests: Sequence[str]) -> list[np.ndarray]:
        try:
            return self._encode_together(clips, digests)
        except RuntimeError as error:
            if len(clips) == 1 or not is_out_of_memory(error):
                raise
        self.batch_size = middle = len(clips) // 2
        tqdm.write(f"note: out of memory: going on with {middle} clips at once", file=sys.stderr)
        return self._encode(clips[:middle], digests[:middle]) + self._encode(clips[middle:], digests[middle:])

    def _encode_together(self, clips: Sequence[np.ndarray], digests: Sequence[str]) -> list[np.ndarray]:
        import torch

        if self._vae is None:
            self._vae = self._load_vae()
        dtype = next(self._vae.parameters()).dtype
        pixels = torch.from_numpy(np.concatenate(clips))[:, None].float() / 255  # (B*F, 1, H, W)
        if self.settings.pixel_range == "model":
            pixels = pixels * 2 - 1
        with torch.inference_mode():
            posterior = self._vae.encode(pixels.to(self.device, dtype)).latent_dist
        latents = posterior.mean.float().cpu()
        if self.settings.posterior == "sample":
            deviations = posterior.std.float().cpu().split([len(clip) for clip in clips])
            generators = [torch.Generator().manual_seed(self._noise_seed(digest)) for digest in digests]
            noise = [
                torch.randn(std.shape, generator=generator) * std
                for std, generator in zip(deviations, generators, strict=True)
            ]
            latents = latents + torch.cat(noise)
        halves = latents.to(torch.float16).split([len(clip) for clip in clips])
        self.computed += len(clips)
        return [part.numpy().copy() for part in halves]

    def _noise_seed(self, digest: str) -> int:
        text = f"{self.settings.seed}:{digest}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def _checked(frames: np.ndarray, path: Path) -> np.ndarray:
    if frames.shape[1] % 8 or frames.shape[2] % 8:
        raise UserError(
            f"has frames of {frames.shape[2]} x {frames.shape[1]} pixels, not multiples of 8",
            "Keep only files made by generate.py in the folder",
            path,
        )
    return frames


def frame_directions(latents: np.ndarray) -> np.ndarray:
    """(F, C, h, w) latents as unit vectors (F, C*h*w) float32; a frame of zeros stays zero."""
    flat = latents.reshape(len(latents), -1).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-8)
