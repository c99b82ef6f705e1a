"""The VAE behind VAE-Seq and the noise filter: found in a folder, loaded only when a latent is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctrlgenaug.devices import pick_device
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import fingerprint_folder
from ctrlgenaug.quality.latents import LatentSettings, LatentStore


def find_vae(path: str | Path, data_name: str | None = None) -> Path:
    """The VAE's folder: ``path`` itself, or the one in a model folder by the names that the method gives it.

    Args:
        path: a VAE folder or a model folder.
        data_name: prefers ``{data_name}-vae-pretrained`` where several are there.

    Raises:
        UserError: no VAE there.
    """
    path = Path(path)
    inside = sorted(path.glob("*-vae-pretrained"))
    for folder in (
        path / f"{data_name}-vae-pretrained",
        *inside,
        path / "vae-pretrained",
        path / "vae",
        path,
    ):
        config = folder / "config.json"
        if config.is_file() and (folder != path or "latent_channels" in config.read_text(errors="replace")):
            return folder
    raise UserError(
        "holds no VAE ([data]-vae-pretrained/, vae-pretrained/ or config.json)",
        "Give the folder that VAE training exported",
        path,
    )


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

    def load() -> Any:
        from cond2img.models import load_vae

        return load_vae(vae_folder).eval().requires_grad_(False).to(chosen)

    name = fingerprint_folder(vae_folder)
    return LatentStore(load, name, folder, settings, device=chosen, batch_size=batch_size)
