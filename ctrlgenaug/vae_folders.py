"""Where a VAE lies: in a folder of its own, or in a model folder under one of the method's names."""

from __future__ import annotations

import glob
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json


def vae_folder(model_folder: str | Path, data_name: str) -> Path:
    """Where a data set's trained VAE lies in a model folder."""
    return Path(model_folder) / f"{data_name}-vae-pretrained"


def _is_vae(folder: Path, trained: bool) -> bool:
    if not (folder / "config.json").is_file():
        return False
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        return False
    known = "latent_channels" in config or config.get("_class_name") == "AutoencoderKL"
    return known and (not trained or config.get("in_channels") == 1)


def find_vae(*places: str | Path | None, data_name: str | None = None, trained: bool = False) -> Path:
    """The VAE's folder: the first of ``places`` that is one, or that holds one by the names of the method.

    Args:
        *places: VAE folders or model folders; None is passed over.
        data_name: whose VAE it must be where a name says that; None: any, if there is only one.
        trained: Stable Diffusion's own VAE, which has 3 channels, does not count.

    Raises:
        UserError: no VAE in any of them, or several to choose from.
    """
    looked = [Path(place) for place in places if place]
    names = (f"{glob.escape(data_name) if data_name else '*'}-vae-pretrained", "vae-pretrained", "vae")
    for place in looked:
        for found in ([place], *(sorted(place.glob(name)) for name in names)):
            found = [folder for folder in found if _is_vae(folder, trained)]
            if len(found) > 1:
                raise UserError(
                    f"holds several candidates: {', '.join(folder.name for folder in found)}",
                    "Name the one to use",
                    place,
                )
            if found:
                return found[0]
    own = f"{data_name or '[data]'}-vae-pretrained"
    raise UserError(
        f"holds no {'trained ' if trained else ''}VAE ({own}/, vae-pretrained/ or config.json)",
        "Train it first (bash vae_train.sh), or give its folder as vae_path",
        looked[0] if looked else None,
    )


def find_trained_vae(data_name: str, vae_path: str | Path | None, *elsewhere: str | Path | None) -> Path:
    """The VAE to train on: in ``vae_path`` if it is given, else the first one ``elsewhere``; see `find_vae`."""
    return find_vae(*([vae_path] if vae_path else elsewhere), data_name=data_name, trained=True)
