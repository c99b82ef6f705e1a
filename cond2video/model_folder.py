"""A sequence model's folder: where its parts lie and what they were trained for. Light: imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.folders import fingerprint_folder
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.vae_folders import find_vae

WEIGHTS = (".safetensors", ".bin")
CONFIG = "config.json"


@dataclass(frozen=True)
class ModelFolder:
    """Where the parts of a sequence model lie.

    Attributes:
        unet: the sequence UNet.
        vae: the VAE.
        text_encoder: CLIP's, or None.
        companions: the folder that holds ``text_encoder/``, ``tokenizer/`` and ``scheduler/``.
    """

    unet: Path
    vae: Path
    text_encoder: Path | None
    companions: Path

    def fingerprints(self) -> dict[str, str]:
        """What tells this model from any other: a digest of each part's weights and config."""
        parts = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        return {name: fingerprint_folder(path) for name, path in parts.items() if path is not None}

    def schedule_settings(self) -> dict[str, Any]:
        """What the scheduler's config says of this model, as far as `fingerprints` does not tell it.

        None where it says what is published, or nothing.

        Raises:
            UserError: see `NoiseSchedule.of_folder`.
        """
        config = read_json(self.unet / CONFIG)
        told = config.get("prediction_type") if isinstance(config, dict) else None
        schedule = NoiseSchedule.of_folder(self.companions, told)
        kind = None if told or schedule.prediction_type == "epsilon" else schedule.prediction_type
        return {"prediction_type": kind, "rescale_betas_zero_snr": schedule.rescale_betas_zero_snr or None}

    def weight_bytes(self) -> int:
        """Size of all weights on disk."""
        parts = (self.unet, self.vae, self.text_encoder)
        files = (file for part in parts if part is not None for file in part.rglob("*"))
        return sum(file.stat().st_size for file in files if file.suffix in WEIGHTS)


def find_model_folder(
    path: str | Path,
    data_name: str,
    vae_path: str | Path | None = None,
    image_model_path: str | Path | None = None,
) -> ModelFolder:
    """Finds the parts by the names that the method gives them.

    Args:
        path: the sequence model's folder. Its UNet is in ``checkpoint/unet3d/`` (the model zoo's layout), ``unet3d/``
            (what training exports), the newest ``checkpoint-N/unet3d/`` (a training's own folder) or ``unet/``.
        data_name: for ``{data_name}-vae-pretrained/``.
        vae_path: another VAE folder.
        image_model_path: ``pretrained_2d_model_[data]``, which has VAE, text encoder, tokenizer and scheduler where
            they are not the sequence model's own; None: they are in ``path``.

    Raises:
        UserError: no sequence UNet, no VAE, or a UNet that is not a sequence model's.
    """
    path = Path(path)
    companions = Path(image_model_path or path)
    for folder in (path, companions):
        if not folder.is_dir():
            raise UserError("is not a folder", "Give the folder of the trained model", folder)
    unet = _sequence_unet(path)
    config = read_json(unet / CONFIG)
    class_name = config.get("_class_name", "") if isinstance(config, dict) else ""
    if class_name and "3D" not in class_name:
        raise UserError(
            f"is a {class_name}, an image model", "Train the sequence LDM and give its folder", unet
        )
    vae = find_vae(vae_path) if vae_path else find_vae(companions, data_name=data_name)
    text_encoder = companions / "text_encoder"
    return ModelFolder(unet, vae, text_encoder if (text_encoder / CONFIG).is_file() else None, companions)


def _sequence_unet(path: Path) -> Path:
    def step(checkpoint: Path) -> int:
        number = checkpoint.name.rpartition("-")[2]
        return int(number) if number.isascii() and number.isdigit() else -1

    newest = sorted(path.glob("checkpoint-*"), key=step, reverse=True)
    candidates = [
        path / "checkpoint" / "unet3d",
        path / "unet3d",
        *(one / "unet3d" for one in newest),
        path / "unet",
    ]
    for folder in candidates:
        if (folder / CONFIG).is_file():
            return folder
    raise UserError(
        "holds no sequence UNet (checkpoint/unet3d, unet3d or checkpoint-N/unet3d)",
        "Give the folder that the sequence LDM's training exported, or its output_dir",
        path,
    )


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
            reason = in_one_line(error)
            raise UserError(f"is not YAML ({reason})", "Mend or remove it", file) from None
        if isinstance(config, DictConfig) and config.get("caption_column"):
            return True
    return False
