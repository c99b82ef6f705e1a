"""From a checkpoint to the folder that the next step expects: no hand copying between stages.

``pretrained_2d_model_[data]/{[data]-vae-pretrained, scheduler, text_encoder, tokenizer, unet}``, and for sequences the
same with ``unet3d`` in the place of ``unet``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path, remove, write_text
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.training.inputs import companion_models, content_of, refuse_other_companions
from ctrlgenaug.vae_folders import find_trained_vae, vae_folder

COMPANIONS = ("scheduler", "text_encoder", "tokenizer")
MODELS = ("vae", "unet", "unet3d")  # a checkpoint's model folder tells the stage
# What the inflated model's loader reads from the image model's config.json.
SEQUENCE_CONFIG_LINES = {"self_attn_mode": "SAM", "insert_strategy": "concat", "motion_condition": True}
CONFIG_FILE = "config.yaml"


def copy_folder(source: str | Path, target: str | Path, config_lines: dict[str, Any] | None = None) -> Path:
    """Copies a model folder, whole or not at all, replacing what was there.

    Args:
        source: a folder with config.json and weights.
        target: where to.
        config_lines: entries to set in the copy's config.json.
    """
    source, target = Path(source), Path(target)
    if not source.is_dir():
        raise UserError("does not exist", "Check the path in the config", source)
    if target.exists() and target.resolve() == source.resolve():
        return target
    with atomic_path(target) as temporary:
        shutil.copytree(source, temporary)
        if config_lines:
            config = read_json(temporary / "config.json")
            write_json(temporary / "config.json", {**config, **config_lines})
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.exists():
            shutil.rmtree(target)
    return target


def copy_companions(
    source: str | Path, export_dir: str | Path, names: Iterable[str] = COMPANIONS
) -> list[Path]:
    """Copies scheduler, text encoder and tokenizer from a Stable Diffusion-like folder."""
    return [copy_folder(Path(source) / name, Path(export_dir) / name) for name in names]


def model_in(checkpoint: Path, model: str, *, use_average: bool = True) -> Path:
    """The model to use from a checkpoint: the average of the weights where the run kept one."""
    averaged = checkpoint / f"{model}_ema"
    return averaged if use_average and averaged.is_dir() else checkpoint / model


def export_model(config: Mapping[str, Any], model: str, model_folder: Path, export_dir: str | Path) -> Path:
    """Puts a checkpoint's model, with all that belongs to it, where the next step expects it.

    Args:
        config: the run's resolved config.
        model: one of `MODELS`.
        model_folder: the model to export.
        export_dir: ``pretrained_2d_model_[data]``, or for sequences a folder of its own.

    Returns:
        The folder made.
    """
    export_dir, data_name = Path(export_dir), str(config["data_name"])
    trained_vae = vae_folder(export_dir, data_name)
    if model == "vae":
        other = content_of(trained_vae) not in ("", content_of(model_folder))
        made = copy_folder(model_folder, trained_vae)
        if other and (export_dir / "unet").is_dir():
            problem = f"note: {export_dir / 'unet'} was trained with the VAE that was here before"
            print(f"{problem}. Train the LDM again, with another output_dir", flush=True)
        return made
    source, run = config["pretrained_model_path"], Path(config["output_dir"])
    vae = find_trained_vae(data_name, config["vae_path"], source, config["export_dir"])
    refuse_other_companions(run, companion_models(vae, source))
    # An earlier model goes first and the new one comes last: an export that was ended in between is one without a
    # model, which every step refuses, not an old model beside another VAE.
    if (export_dir / model).resolve() != model_folder.resolve():
        remove(export_dir / model)
    copy_companions(source, export_dir)
    _note_schedule(config, export_dir)
    copy_folder(vae, trained_vae)
    if (run / CONFIG_FILE).is_file():
        # generation and the measure of steering look here for the caption_column that the model was trained with
        write_text(export_dir / "training_config.yaml", (run / CONFIG_FILE).read_text(encoding="utf-8"))
    copy_folder(model_folder, export_dir / model, SEQUENCE_CONFIG_LINES if model == "unet" else None)
    return export_dir


def _note_schedule(config: Mapping[str, Any], export_dir: Path) -> None:
    """Makes the exported scheduler config say what the run trained; runs of older versions trained what it says."""
    found = NoiseSchedule.of_folder(export_dir)
    zero_snr = config.get("rescale_betas_zero_snr")
    NoiseSchedule(
        config.get("prediction_type") or found.prediction_type,
        found.rescale_betas_zero_snr if zero_snr is None else zero_snr,
    ).write(export_dir)


def read_run_config(path: Path) -> dict[str, Any]:
    """The config that a run keeps; a `UserError` if it cannot be read."""
    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, ValueError, OSError):
        found = None
    if not isinstance(found, dict):
        raise UserError("cannot be read", "Restore it, or choose another output_dir", path)
    return {str(name): value for name, value in found.items()}


def export_run(
    run: str | Path, out: str | None = None, checkpoint: str | None = None, *, use_average: bool = True
) -> Path:
    """Exports a run's newest whole checkpoint, or the one called ``checkpoint``, to ``out`` or the run's export_dir."""
    from ctrlgenaug.training import checkpoints

    run = Path(run)
    if not (run / CONFIG_FILE).is_file():
        raise UserError("is not a run folder (no config.yaml)", "Give the output_dir of a training", run)
    config = read_run_config(run / CONFIG_FILE)
    if lacking := [
        name for name in ("data_name", "pretrained_model_path", "output_dir") if not config.get(name)
    ]:
        raise UserError(f"lacks {', '.join(lacking)}", "Give the output_dir of a training", run / CONFIG_FILE)
    config |= {"output_dir": str(run)}  # where it is now, not where it was trained
    out = out or config.get("export_dir")
    if not out:
        raise UserError("the run's config names no export_dir", "Give --out", run)
    chosen = run / checkpoint if checkpoint else checkpoints.newest_whole(run, print)
    if checkpoint and chosen is not None:
        checkpoints.check(chosen)
    if chosen is None:
        raise UserError("holds no whole checkpoint", "Train first", run)
    model = next((name for name in MODELS if (chosen / name).is_dir()), None)
    if model is None:
        raise UserError(f"holds none of {', '.join(MODELS)}", "Give a run of a training script", chosen)
    return export_model(config, model, model_in(chosen, model, use_average=use_average), out)
