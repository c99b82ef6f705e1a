"""The VAE behind VAE-Seq and the noise filter: found in a folder, loaded only when a latent is missing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from augment.quality.latents import LatentSettings, LatentStore
from ctrlgenaug.devices import pick_device
from ctrlgenaug.folders import fingerprint_folder
from ctrlgenaug.vae_folders import find_vae


def open_store(
    vae_path: str | Path,
    folder: Path | None,
    settings: LatentSettings,
    *,
    device: str = "auto",
    batch_size: int = 8,
) -> LatentStore:
    """Latents of the videos in ``folder`` (None: not cached) by the VAE at ``vae_path``.

    Raises:
        UserError: no VAE there, or no such device.
    """
    vae_folder = find_vae(vae_path)
    chosen = pick_device(device)

    load = functools.partial(_load, vae_folder.resolve())
    name = fingerprint_folder(vae_folder)
    return LatentStore(
        load, name, folder, settings, device=chosen, batch_size=batch_size, vae_folder=vae_folder
    )


def _load(vae_folder: Path) -> Any:
    from cond2img.models import load_vae

    return load_vae(vae_folder).eval().requires_grad_(False)
