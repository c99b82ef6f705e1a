"""Runs a script of the published code on a machine without a GPU; used by `against_published.py`.

    python published_on_cpu.py SCRIPT [ARGUMENT ...]

``.to("cuda...")`` stays on the CPU, and the VAE class that its users copy into diffusers is diffusers' own with the one
method that the scripts call. The filter's classifier, which needs mmcv 1, is one that costs nothing. Nothing else that
is timed changes.
"""

from __future__ import annotations

import json
import runpy
import sys
import types
from pathlib import Path

import diffusers
import torch

# The spelling of attention layers in newer diffusers -> the old one.
OLD_NAMES = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}


def old_spelling(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the names of older diffusers."""
    renamed = {}
    for key, value in weights.items():
        for new, old in OLD_NAMES.items():
            key = key.replace(new, old)
        renamed[key] = value
    return renamed


def from_pretrained_mine(folder: str, subfolder: str) -> torch.nn.Module:
    """The VAE in ``folder/subfolder``, as the published class loads it."""
    path = Path(folder) / subfolder
    config = json.loads((path / "config.json").read_text())
    fields = {key: value for key, value in config.items() if not key.startswith("_")}
    known = diffusers.AutoencoderKL.__init__.__wrapped__.__code__.co_varnames
    model = diffusers.AutoencoderKL(**{key: value for key, value in fields.items() if key in known})
    weights = torch.load(path / "diffusion_pytorch_model.bin", weights_only=True)
    model.load_state_dict(old_spelling(weights))
    return model


def stand_in(name: str, **contents: object) -> None:
    """A module ``name`` that holds ``contents`` alone, and the packages above it."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:depth]), types.ModuleType(parts[depth - 1]))
    vars(sys.modules[name]).update(contents)


class FreeClassifier(torch.nn.Module):
    """Answers as mmaction's recognisers do when they are asked for a loss, without a network."""

    def forward(self, imgs: torch.Tensor, label: torch.Tensor, return_loss: bool) -> dict[str, torch.Tensor]:
        return {"loss_cls": imgs.mean()}


def main() -> None:
    stand_in("Real_Base_Classifiers", mmaction_model=lambda **_: FreeClassifier())
    stand_in("Real_Base_Classifiers.all_organs.mmaction.utils", build_dp=lambda model, *_, **__: model)
    for kind in (torch.Tensor, torch.nn.Module):
        original = kind.to

        def to(self: object, *args: object, original: object = original, **kwargs: object) -> object:
            kept = [arg for arg in args if not str(arg).startswith("cuda")]
            return original(self, *kept, **kwargs) if kept or kwargs else self  # type: ignore[operator]

        kind.to = to  # type: ignore[method-assign, assignment]
    diffusers.AutoencoderKL.from_pretrained_mine = staticmethod(from_pretrained_mine)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
