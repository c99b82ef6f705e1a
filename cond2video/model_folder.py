"""A sequence model's folder: where its parts lie and what they were trained for. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import fingerprint_folder
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.vae_folders import find_vae

WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class ModelFolder:
    """Where the parts of a sequence model lie.

    The folder looks like ``pretrained_2d_model_[data]`` with the sequence UNet in ``unet3d/`` (or ``unet/``).
    """

    unet: Path
    vae: Path
    text_encoder: Path | None

    def fingerprints(self) -> dict[str, str]:
        """What tells this model from any other: a digest of each part's weights and config."""
        parts = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        return {name: fingerprint_folder(path) for name, path in parts.items() if path is not None}

    def weight_bytes(self) -> int:
        """Size of all weights on disk."""
        parts = (self.unet, self.vae, self.text_encoder)
        files = (file for part in parts if part is not None for file in part.rglob("*"))
        return sum(file.stat().st_size for file in files if file.suffix in WEIGHTS)


def find_model_folder(path: str | Path, data_name: str, vae_path: str | Path | None = None) -> ModelFolder:
    """Finds the parts by the names that the method gives them.

    Args:
        path: the sequence model's folder.
        data_name: for ``{data_name}-vae-pretrained/``.
        vae_path: another VAE folder.

    Raises:
        UserError: no sequence UNet, no VAE, or a UNet that is not a sequence model's.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError("is not a folder", "Give the trained sequence model's folder", path)

    def first(names: Sequence[str], needed: str) -> Path | None:
        return next((path / name for name in names if (path / name / needed).is_file()), None)

    unet = first(("unet3d", "unet"), "config.json")
    if unet is None:
        raise UserError(
            "holds no unet3d/config.json", "Give the folder that the sequence LDM's training exported", path
        )
    config = read_json(unet / "config.json")
    class_name = config.get("_class_name", "") if isinstance(config, dict) else ""
    if class_name and "3D" not in class_name:
        raise UserError(
            f"is a {class_name}, an image model", "Train the sequence LDM and give its folder", unet
        )
    vae = find_vae(vae_path) if vae_path else find_vae(path, data_name=data_name)
    return ModelFolder(unet, vae, first(("text_encoder",), "config.json"))


def trained_with_text(path: str | Path) -> bool:
    """Whether the training config saved in a model folder names a ``caption_column``; False where none tells.

    Raises:
        UserError: a YAML file in the folder is damaged.
    """
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError

    for file in sorted(Path(path).glob("*.yaml")):
        try:
            config = OmegaConf.load(file)
        except (YAMLError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"is not YAML ({reason})", "Mend or remove it", file) from None
        if isinstance(config, DictConfig) and config.get("caption_column"):
            return True
    return False
