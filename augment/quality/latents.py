"""VAE latents of clips, computed once and kept beside them: VAE-Seq and the noise filter share them."""

from __future__ import annotations

import copy
import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from augment.quality.reading import ahead
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import make_folder
from ctrlgenaug.plain_data import load_npy, save_npy
from ctrlgenaug.progress import say
from ctrlgenaug.steps import is_out_of_memory
from ctrlgenaug.video import read_video

CACHE = ".latents"
CANNOT_WRITE = (
    errno.EACCES,
    errno.EROFS,
    errno.EPERM,
)  # a folder that is somebody else's, or a read-only disk
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


@dataclass
class _Video:
    """A video on its way through the store: read (``frames``), then settled (``result``)."""

    path: Path
    digest: str
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    result: np.ndarray | UserError | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.frames.shape


class _LazyVae:
    """A VAE on a device, loaded when it is first asked for; it travels to other processes unloaded."""

    def __init__(self, load: Callable[[], Any], device: str) -> None:
        self.load, self.device = load, device
        self._loaded: Any = None

    def __call__(self) -> Any:
        if self._loaded is None:
            import torch

            # channels_last is 1.2 times as fast on a CPU, and equal to 1e-5
            self._loaded = self.load().to(self.device, memory_format=torch.channels_last)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": None}


class LatentStore:
    """Latents of videos by way of a cache folder.

    They are rounded to float16 always, cached or not, so that a score never depends on where they came from (64 kB a
    clip of 8 frames; the rounding moves a VAE-Seq by less than 0.001 points).

    Args:
        load_vae: gives the VAE in eval mode; called only when something is not in the cache. The VAE's
            ``encode(x).latent_dist`` must have ``mean`` and ``std``.
        vae_name: tells this VAE from others, e.g. a fingerprint of its weights.
        folder: where the cache ``.latents`` is kept, usually where the videos lie. None keeps nothing, and so does a
            folder that cannot be written, with a note.
        settings: see `LatentSettings`.
        device: ``cpu`` or ``cuda:N``.
        batch_size: videos that go through the VAE together on a GPU; on a CPU it is always one.
        vae_folder: where ``load_vae`` reads, if it reads a folder.

    It can be sent to other processes if ``load_vae`` can.
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
        vae_folder: Path | None = None,
    ) -> None:
        self.settings = settings or LatentSettings()
        self._vae_name, self.most_at_once = vae_name, max(1, batch_size)
        self.folder, self._vae_folder = folder, vae_folder
        self._use(_LazyVae(load_vae, device))

    def _use(self, vae: _LazyVae) -> None:
        """Begins with nothing computed; folder and settings are known."""
        self._vae, self.device = vae, vae.device
        tag = f"{self._vae_name}-{self.settings.tag()}"
        self._cache = None if self.folder is None else self.folder / CACHE / tag
        self.batch_size = 1 if self.device == "cpu" else self.most_at_once
        self.computed = 0

    @property
    def made_with(self) -> dict[str, str]:
        """What latents, and scores from them, depend on besides the video; the same words for the same latents."""
        return {"vae": self._vae_name, "latents": self.settings.tag()}

    def folders(self) -> list[Path]:
        """What another process needs to see: VAE and cache, whose folder is made now."""
        if self.folder is not None:
            make_folder(self.folder)
        return [folder for folder in (self._vae_folder, self.folder) if folder is not None]

    def for_folder(self, folder: Path | None) -> LatentStore:
        """A store with the same VAE and settings that keeps its latents in ``folder``."""
        other = copy.copy(self)
        other.folder = folder
        other._use(self._vae)
        return other

    def on(self, device: str) -> LatentStore:
        """This store, if it is on ``device``; else one that loads the VAE there."""
        if device == self.device:
            return self
        other = copy.copy(self)
        other._use(_LazyVae(self._vae.load, device))
        return other

    def stream(self, videos: Sequence[Path]) -> Iterator[tuple[Path, np.ndarray | UserError]]:
        """Latents (F, C, h, w) float16 of each video in order, or the error why there are none.

        Holds a few batches at a time, however many videos there are; a thread decodes the next ones meanwhile.
        """
        waiting: list[_Video] = []
        for video in ahead(self._read, videos, depth=2 * self.batch_size):
            waiting.append(video)
            if len(waiting) >= self.batch_size:  # the batch may shrink on the way
                yield from self._settle(waiting)
                waiting = []
        yield from self._settle(waiting)

    def of_clips(self, paths: Sequence[Path], clips: Sequence[np.ndarray]) -> list[np.ndarray | UserError]:
        """The same for clips (F, H, W) uint8 that have been decoded from ``paths`` already."""
        found: list[np.ndarray | UserError] = []
        for start in range(0, len(paths), self.batch_size):
            part = slice(start, start + self.batch_size)
            videos = [self._read(path, frames) for path, frames in zip(paths[part], clips[part], strict=True)]
            found += [latents for _, latents in self._settle(videos)]
        return found

    def _read(self, path: Path, frames: np.ndarray | None = None) -> _Video:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            cached = self._cached(digest)
            if cached is not None:
                return _Video(path, digest, result=cached)
            return _Video(path, digest, _checked(read_video(path) if frames is None else frames, path))
        except OSError as error:
            problem = UserError(f"cannot be read ({error.strerror})", "Check the file", path)
            return _Video(path, "", result=problem)
        except UserError as error:
            return _Video(path, "", result=error)

    def _settle(self, videos: Sequence[_Video]) -> Iterator[tuple[Path, np.ndarray | UserError]]:
        todo = [video for video in videos if video.result is None]
        while todo:  # together only what has the same shape
            same = [video for video in todo if video.shape == todo[0].shape]
            todo = [video for video in todo if video.shape != same[0].shape]
            encoded = self._encode([video.frames for video in same], [video.digest for video in same])
            for video, latents in zip(same, encoded, strict=True):
                video.result = self._keep(video, latents)
        for video in videos:
            assert video.result is not None
            yield video.path, video.result

    def _keep(self, video: _Video, latents: np.ndarray) -> np.ndarray | UserError:
        if not np.isfinite(latents).all():
            problem = "has latents that are not finite"
            return UserError(problem, "Check the VAE's weights, or encode in float32", video.path)
        if self._cache is not None:
            try:
                save_npy(self._cache / f"{video.digest}.npy", latents)
            except OSError as error:
                if error.errno not in CANNOT_WRITE:
                    raise
                note = f"note: latents are not kept: {self._cache.parent} cannot be written"
                say(note)
                self._cache = None
        return latents

    def _cached(self, digest: str) -> np.ndarray | None:
        if self._cache is None or not (self._cache / f"{digest}.npy").is_file():
            return None
        try:
            found = load_npy(self._cache / f"{digest}.npy", (None, None, None, None))
        # damaged: compute it again
        except UserError:
            return None
        return found if np.isfinite(found).all() else None

    def _encode(self, clips: Sequence[np.ndarray], digests: Sequence[str]) -> list[np.ndarray]:
        try:
            return self._encode_together(clips, digests)
        except RuntimeError as error:
            if len(clips) == 1 or not is_out_of_memory(error):
                raise
        self.batch_size = middle = len(clips) // 2
        say(f"note: out of memory: going on with {middle} clips at once")
        return self._encode(clips[:middle], digests[:middle]) + self._encode(clips[middle:], digests[middle:])

    def _encode_together(self, clips: Sequence[np.ndarray], digests: Sequence[str]) -> list[np.ndarray]:
        import torch

        from cond2img.latent_codec import to_pixels, to_unit_pixels

        vae = self._vae()
        dtype = next(vae.parameters()).dtype
        as_fed = to_pixels if self.settings.pixel_range == "model" else to_unit_pixels
        pixels = as_fed(np.concatenate(clips)).contiguous(memory_format=torch.channels_last)  # (B*F, 1, H, W)
        # A CPU is a quarter faster frame by frame, whose activations stay in its caches.
        at_once = 1 if self.device == "cpu" and len(clips) == 1 else len(pixels)
        with torch.inference_mode():
            parts = [vae.encode(part.to(self.device, dtype)).latent_dist for part in pixels.split(at_once)]
        latents = torch.cat([part.mean.float().cpu() for part in parts])
        if self.settings.posterior == "sample":
            every = torch.cat([part.std.float().cpu() for part in parts])
            deviations = every.split([len(clip) for clip in clips])
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
