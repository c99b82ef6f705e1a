"""The VAE: Stable Diffusion's with one grey channel, in either spelling of its attention layers."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import diffusers
from diffusers import ModelMixin  # diffusers also looks it up here when it loads a whole pipeline
from torch import Tensor

from cond2img.models.checkpoints import build, fill, read_checkpoint, summarise
from ctrlgenaug.errors import UserError
from ctrlgenaug.vae_folders import find_vae

logger = logging.getLogger(__name__)

_SPELLINGS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)\.")
_NEW = re.compile(r"(\.attentions\.\d+\.)(to_q|to_k|to_v|to_out\.0)\.")


def to_current_spelling(name: str) -> str:
    """``...attentions.0.query.weight`` -> ``...attentions.0.to_q.weight``; other names stay."""
    return _OLD.sub(lambda match: f"{match[1]}{_SPELLINGS[match[2]]}.", name)


def to_official_spelling(name: str) -> str:
    """``...attentions.0.to_q.weight`` -> ``...attentions.0.query.weight``; other names stay."""
    old = {new: old for old, new in _SPELLINGS.items()}
    return _NEW.sub(lambda match: f"{match[1]}{old[match[2]]}.", name)


class AutoencoderKL(diffusers.AutoencoderKL):
    """diffusers' AutoencoderKL, saved with the official code's names, which diffusers understands too."""

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Saves config.json and weights; ``safe_serialization=False`` writes ``.bin``. See diffusers' ModelMixin."""
        hook = self.register_state_dict_post_hook(_spell_officially)
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            hook.remove()


def _spell_officially(module: ModelMixin, weights: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    if prefix:
        return
    for name in list(weights):
        weights[to_official_spelling(name)] = weights.pop(name)


def load_vae(
    pretrained_model_path: str | Path,
    subfolder: str | None = None,
    grey: str = "fold",
    **overrides: Any,
) -> AutoencoderKL:
    """Loads a VAE: Stable Diffusion's (3 channels) or a trained one (1 channel), whatever its spelling.

    Args:
        pretrained_model_path: the VAE's folder, or the folder of a whole pipeline.
        subfolder: where in it; None, or nothing there: see `ctrlgenaug.vae_folders.find_vae`.
        grey: how 3-channel weights become 1-channel ones. "fold": the first conv is summed over its inputs and the
            last averaged over its outputs, so that grey pictures are reconstructed as before; "random": both are
            drawn anew, as in the official code.
        **overrides: config fields that win over config.json.

    Raises:
        ctrlgenaug.errors.UserError: missing or damaged files, or other shapes than the config says.
    """
    if grey not in ("fold", "random"):
        raise ValueError(f"grey is {grey!r}, must be 'fold' or 'random'")
    folder = Path(pretrained_model_path) / (subfolder or "")
    if not (folder / "config.json").is_file():
        wanted, folder = folder, find_vae(pretrained_model_path)
        logger.info("%s: not there, using %s", wanted, folder)
    checkpoint = read_checkpoint(folder)
    ignored = [name for name in checkpoint.weights if name.startswith("vae_loss.")]
    if ignored:
        logger.info("%s: ignored %d tensors: %s", checkpoint.folder, len(ignored), summarise(ignored, most=3))
    weights = {to_current_spelling(n): v for n, v in checkpoint.weights.items() if n not in ignored}
    for name, value in weights.items():  # early diffusers kept these projections as 1x1 convolutions
        if _NEW.search(name) and value.ndim == 4:
            weights[name] = value[:, :, 0, 0]
    if "encoder.conv_in.weight" not in weights or "decoder.conv_out.weight" not in weights:
        raise UserError("is not a VAE (no encoder.conv_in in it)", "Give the VAE's folder", checkpoint.folder)

    random = []
    if weights["encoder.conv_in.weight"].shape[1] == 3:
        if grey == "fold":
            weights["encoder.conv_in.weight"] = weights["encoder.conv_in.weight"].sum(1, keepdim=True)
            for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
                weights[name] = weights[name].mean(0, keepdim=True)
            logger.info("%s: 3-channel weights folded to grey", checkpoint.folder)
        else:
            random = [n for n in weights if n.startswith(("encoder.conv_in.", "decoder.conv_out."))]
    checkpoint.weights = {name: value for name, value in weights.items() if name not in random}
    vae = build(AutoencoderKL, checkpoint, **{"in_channels": 1, "out_channels": 1, **overrides})
    fill(vae, checkpoint, lambda name: name in random)
    return vae
