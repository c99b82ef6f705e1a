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


TEXTS = {
    "Nodule43_f16": "The nodule is solid, hypoechoic, wider-than-tall, and smooth.",
    "Nodule7_f2": "The nodule is solid, isoechoic, taller-than-wide, and irregular.",
}


@pytest.fixture(scope="session")
def text_world(world):
    """(``world`` with two TUSC clips and ``text_model/``, trained with texts by its config; the texts by clip)."""
    import numpy as np

    from ctrlgenaug import datasets
    from ctrlgenaug.conditions.trajectories import save_tracks, track
    from ctrlgenaug.plain_data import save_npy, write_jsonl

    spec, home = datasets.get("TUSC"), world / datasets.get("TUSC").home
    rows = [{"file_name": f"{clip}.avi", "text": text, "cls": "TR4"} for clip, text in TEXTS.items()]
    write_jsonl(spec.metadata_path(home / spec.clips_dir, "train"), rows)
    field = np.zeros((7, 2, 256, 256), np.float32)
    for clip in TEXTS:
        save_npy(spec.prior_path(home, spec.first_frame(clip)), np.zeros((256, 64, 64), np.float32))
        save_npy(spec.motion_path(home, clip), field)
        save_tracks(spec.trajectory_path(home, clip), track(field, 0))
    model = world / "text_model"
    model.mkdir()
    for part in (world / "model").iterdir():
        (model / part.name.replace("MosMed", "TUSC")).symlink_to(part)
    (model / "training_config.yaml").write_text("data_name: TUSC\ncaption_column: text\n")
    return world, TEXTS
