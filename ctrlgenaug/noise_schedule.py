"""The noise schedule that a diffusion model is trained with, and where a model folder keeps it.

``scheduler/scheduler_config.json`` beside the model is diffusers' own file. Two of its fields may differ from one of
our models to the next and decide what its output means: ``prediction_type`` and ``rescale_betas_zero_snr``. A folder
without the file, or without a field, means the published values. The betas are the published ones in all our models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json, write_json

CONFIG = Path("scheduler") / "scheduler_config.json"
PREDICTION_TYPES = ("epsilon", "v_prediction")

# Stable Diffusion's, with which all models of the method are trained (method, section 6).
PUBLISHED_FIELDS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@dataclass(frozen=True)
class NoiseSchedule:
    """What a model's output means.

    Attributes:
        prediction_type: ``epsilon``, the noise, as published; or ``v_prediction``, the velocity
            sqrt(a) noise - sqrt(1 - a) latents of Salimans and Ho (2022), with a the share of signal.
        rescale_betas_zero_snr: whether the last timestep is noise alone (Lin et al. 2023). Noise prediction has nothing
            to say there, so this needs v_prediction.
    """

    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type must be {' or '.join(PREDICTION_TYPES)}, got {self.prediction_type!r}"
            )
        if self.rescale_betas_zero_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr=true needs prediction_type=v_prediction: the last timestep is noise alone, and "
                "who predicts the noise there learns nothing of the frame"
            )

    def fields(self) -> dict[str, Any]:
        """As any diffusers scheduler takes them."""
        return {
            **PUBLISHED_FIELDS,
            "prediction_type": self.prediction_type,
            "rescale_betas_zero_snr": self.rescale_betas_zero_snr,
        }

    @classmethod
    def of_folder(cls, folder: str | Path, weights_type: str | None = None) -> NoiseSchedule:
        """The schedule of a model folder.

        Args:
            folder: holds ``scheduler/``, or not.
            weights_type: the ``prediction_type`` in the config.json of its UNet, None where it says nothing.

        Raises:
            UserError: the file is damaged, says something else than the weights, or names other betas.
        """
        path = Path(folder) / CONFIG
        config = read_json(path) if path.is_file() else {}
        if not isinstance(config, dict):
            raise UserError("is no scheduler's config", "Copy it again from where the model came from", path)
        _refuse_other_betas(config, path)
        stated, zero_snr = config.get("prediction_type"), config.get("rescale_betas_zero_snr")
        if zero_snr not in (None, True, False):  # "false" would be taken for true
            problem = f"says rescale_betas_zero_snr {zero_snr!r}, which is neither true nor false"
            raise UserError(problem, "Mend the field", path)
        if stated is not None and weights_type and stated != weights_type:
            raise UserError(
                f"says prediction_type {stated}, the UNet beside it was trained for {weights_type}",
                "Copy scheduler/ from the folder that the UNet came from",
                path,
            )
        try:
            return cls(weights_type or "epsilon" if stated is None else stated, bool(zero_snr))
        except ValueError as error:
            if stated is None and weights_type is not None:
                raise UserError(f"the UNet's config.json: {error}", "Mend the field there", folder) from None
            raise UserError(str(error), "Mend the field", path) from None

    def write(self, folder: str | Path) -> None:
        """Notes the schedule in the folder's scheduler config; a file that says the same already stays as it is."""
        path = Path(folder) / CONFIG
        if path.is_file() and NoiseSchedule.of_folder(folder) == self:
            return
        config = read_json(path) if path.is_file() else {"_class_name": "DDIMScheduler", **PUBLISHED_FIELDS}
        write_json(path, {**config, **self.fields()})


def _refuse_other_betas(config: dict[str, Any], path: Path) -> None:
    """A `UserError` if a scheduler config tells of another growth of the noise than the one that is used here."""
    wanted = {**PUBLISHED_FIELDS, "trained_betas": None}
    other = [
        f"{name} {config[name]!r}, not {value!r}"
        for name, value in wanted.items()
        if config.get(name) is not None and config[name] != value
    ]
    if other:
        raise UserError(
            f"is another noise schedule than Stable Diffusion's ({'; '.join(other)})",
            "Copy scheduler/ from the folder that the UNet came from; models of other schedules cannot be used",
            path,
        )
