"""A tiny data set and a small random sequence model, in the formats of the real ones."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "training"))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with ``MosMedData/`` (three training and three test clips) and ``model/``, a sequence model."""
    import torch
    from tiny import make_data, make_weights

    from cond2img.models import UNet2DMultiConditionModel, load_vae
    from cond2video.models import UNet3DMultiConditionModel

    root = make_data(tmp_path_factory.mktemp("world"))
    torch.manual_seed(0)
    weights = make_weights(root / "weights")
    UNet2DMultiConditionModel.from_pretrained_2d(weights, "unet", num_class_embeds=3).save_pretrained(
        root / "unet"
    )
    # the official initialisation: every condition has an effect without any training
    sequence = UNet3DMultiConditionModel.from_pretrained_2d(root / "unet", init="official")
    sequence.save_pretrained(root / "model" / "unet3d")
    load_vae(weights / "vae").save_pretrained(root / "model" / "MosMed-vae-pretrained")
    for name in ("text_encoder", "tokenizer", "scheduler"):
        (weights / name).rename(root / "model" / name)
    return root
