"""The encoder: MedSAM's preparation, both weight formats against a plain SAM, weights that do not fit."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import scipy.ndimage
import torch
from moving import texture
from segment_anything import plain_encoder, random_weights
from transformers import SamConfig, SamModel, SamVisionConfig, SamVisionModel

from ctrlgenaug.conditions.medsam import encode, load_encoder, prepare
from ctrlgenaug.errors import UserError

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "mlp_dim": 32,
    "window_size": 4,
    "global_attn_indexes": [],
    "initializer_range": 0.1,
}


# --- preparation -------------------------------------------------------------------------------------------------


def medsam_levels(frame):
    """What scikit-image's ``resize(order=3, preserve_range=True, anti_aliasing=True).astype(uint8)`` computes."""
    large = scipy.ndimage.zoom(frame.astype(float), 4, order=3, mode="mirror", grid_mode=True)
    return np.clip(large, frame.min(), frame.max())


@pytest.mark.parametrize("kind", ["texture", "noise", "edges", "narrow"])
def test_prepared_as_medsam_prepares(kind):
    frame = {
        "texture": texture(0, 256),
        "noise": np.random.default_rng(1).integers(0, 256, (256, 256), dtype=np.uint8),
        "edges": np.kron(np.random.default_rng(2).integers(0, 2, (16, 16)), np.full((16, 16), 200)).astype(
            np.uint8
        ),
        "narrow": (texture(3, 256) // 32 + 90).astype(np.uint8),
    }[kind]
    exact = medsam_levels(frame)
    levels = np.floor(exact + 1e-6)
    expected = (levels - levels.min()) / (levels.max() - levels.min())
    got = prepare(frame[None])
    assert got.shape == (1, 3, 1024, 1024) and got.dtype == torch.float32
    assert got.min() == 0 and got.max() == 1 and (got[:, 0] == got[:, 2]).all()
    # equal but where the exact value is a whole number up to rounding errors
    differing = np.abs(got[0, 0].numpy() - expected) > 1e-6
    assert not differing[np.abs(exact + 1e-6 - np.round(exact)) > 1e-9].any()
    assert differing.mean() < 1e-3


def test_each_frame_is_scaled_by_itself_and_a_flat_one_is_zero():
    frames = np.stack([texture(0, 256), texture(0, 256) // 2, np.full((256, 256), 77, np.uint8)])
    got = prepare(frames)
    assert (got[0] == prepare(frames[:1])[0]).all() and got[1].max() == 1
    assert (got[2] == 0).all()


# --- weights -----------------------------------------------------------------------------------------------------


def test_original_weights_give_what_a_plain_sam_gives(tmp_path):
    state = random_weights()
    torch.save(state, tmp_path / "medsam_vit_b.pth")
    model = load_encoder(tmp_path / "medsam_vit_b.pth")
    frames = texture(0, 256)[None]
    expected = plain_encoder(state, prepare(frames)).numpy()
    got = encode(model, frames)
    assert got.shape == (1, 256, 64, 64) and got.dtype == np.float32
    assert np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()
    config = model.config
    assert (config.num_attention_heads, config.window_size, list(config.global_attn_indexes)) == (2, 14, [1])


def test_all_formats_of_one_encoder_agree(tmp_path):
    """The original names, a Hugging Face vision model, a whole Hugging Face SAM, .safetensors and .bin."""
    torch.save(random_weights(1, global_blocks=()), tmp_path / "a.pth")
    model = load_encoder(tmp_path / "a.pth")
    frames = texture(1, 256)[None]
    expected = encode(model, frames)
    model.save_pretrained(tmp_path / "vision")
    whole = SamModel(SamConfig(vision_config=model.config.to_dict()))
    whole.vision_encoder.load_state_dict(model.vision_encoder.state_dict())
    whole.save_pretrained(tmp_path / "whole")
    (tmp_path / "bin").mkdir()
    torch.save(whole.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "bin" / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    torch.save({"model": random_weights(1, global_blocks=())}, tmp_path / "wrapped.pth")
    for name in ("vision", "whole", "bin", "wrapped.pth"):
        assert (encode(load_encoder(tmp_path / name), frames) == expected).all(), name


class Malicious:
    def __reduce__(self):
        return print, ("run by the unpickler",)


def without(part):
    return {key: value for key, value in random_weights().items() if part not in key}


BAD_CHECKPOINTS = {
    "noise": b"no weights",
    "empty": b"",
    "malicious": pickle.dumps({"image_encoder.pos_embed": Malicious()}),
    "not a dict": [1, 2],
    "another model": {"conv.weight": torch.zeros(1)},
    "no encoder": without("image_encoder."),
    "a block missing": without("blocks.1.attn.qkv"),
    "no blocks": without("blocks."),
    "too much": random_weights() | {"image_encoder.blocks.0.extra.weight": torch.zeros(1)},
    "another size": random_weights() | {"image_encoder.pos_embed": torch.zeros(1, 32, 32, 32)},
    "other channels": random_weights() | {"image_encoder.neck.0.weight": torch.zeros(128, 32, 1, 1)},
}


@pytest.mark.parametrize("kind", BAD_CHECKPOINTS)
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, kind, capsys):
    path = tmp_path / "medsam_vit_b.pth"
    content = BAD_CHECKPOINTS[kind]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match="medsam_vit_b.pth.*Get medsam_vit_b.pth"):
        load_encoder(path)
    assert "run by the unpickler" not in capsys.readouterr().out


def test_a_folder_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_encoder(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no SAM folder"):
        load_encoder(tmp_path / "empty")

    folder = tmp_path / "weights"
    SamVisionModel(SamVisionConfig(**TINY)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(UserError, match=r"is no SAM image encoder \(lacks \d+ weights"):
        load_encoder(folder)  # transformers would leave the second layer random
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not readable JSON"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"noise")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_encoder(folder)

    small = tmp_path / "small"
    SamVisionModel(SamVisionConfig(**TINY | {"image_size": 512})).save_pretrained(small)
    with pytest.raises(UserError, match="maps 512 pixels"):
        load_encoder(small)
