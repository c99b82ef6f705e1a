"""Variants of frames: what they are, which priors are made of them, and what training shows."""

from __future__ import annotations

import numpy as np
import pytest
from moving import moving_clip, texture

from augment.demo.weights import write_medsam
from cond2img.config import LDMConfig
from cond2img.data import LabelledFrameData
from ctrlgenaug import datasets
from ctrlgenaug.conditions.image_priors import Settings, extract_priors, verify_priors
from ctrlgenaug.conditions.medsam import encode, load_encoder
from ctrlgenaug.conditions.variants import split_variant, variant_name, vary
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.png import read_png
from ctrlgenaug.training.order import SampleKey

MOSMED = datasets.get("MosMed")


def test_a_variant_is_a_function_of_name_and_number():
    frame = texture(0)[:256, :256]
    assert vary(frame, "a", 0) is frame
    assert (vary(frame, "a", 1) == vary(frame, "a", 1)).all()
    others = [vary(frame, name, number) for name in ("a", "b") for number in range(1, 9)]
    assert len({other.tobytes() for other in others}) == 16
    assert all(other.shape == frame.shape and other.dtype == np.uint8 for other in others)
    for name in ("a", "a__v", "a__vx"):
        assert split_variant(variant_name(name, 3)) == (name, 3) and split_variant(name) == (name, 0)


def test_variants_are_mirrored_shifted_and_zoomed():
    spot = np.zeros((256, 256), np.uint8)
    spot[118:138, 70:90] = 255  # left of the middle
    columns, sizes = [], []
    for number in range(1, 60):
        varied = vary(spot, "x", number) > 127
        columns.append(np.nonzero(varied)[1].mean())
        sizes.append(varied.sum())
    columns = np.array(columns)
    assert 0.3 < (columns > 128).mean() < 0.7  # half of them are mirrored
    left = columns[columns < 128]
    assert 55 < left.min() < 72 and 88 < left.max() < 105  # 80 - 16 - 5 to 80 + 16 + 5, about
    assert min(sizes) < 0.9 * 400 and max(sizes) > 1.1 * 400


@pytest.fixture
def made(make_home, tmp_path):
    home = make_home({f"study_{i:04d}_s01": moving_clip(i) for i in (1, 2)}, frames_of=2)
    write_medsam(tmp_path / "medsam", seed=0)
    settings = Settings(checkpoint=str(tmp_path / "medsam"), device="cpu", variants=2)
    outcome, folder = extract_priors(home / MOSMED.frames_dir, MOSMED, settings)
    assert outcome.counts["made"] == 4 * 3 and not outcome.failures
    return home, settings, folder


def test_each_variant_has_the_prior_of_its_own_pixels_and_training_shows_both(made, tmp_path):
    home, settings, folder = made
    config = LDMConfig(data_name="MosMed", data_root=str(tmp_path), prior_variants=2)
    data = LabelledFrameData(config, "train")
    data.check()
    seen = set()
    encoder = load_encoder(tmp_path / "medsam")
    for epoch in range(12):
        key = SampleKey(epoch, 1)
        number, batch = data.variant(key), data[key]
        name = data.rows[1].name
        frame = vary(read_png(home / MOSMED.frames_dir / f"{name}.png"), name, number)
        assert np.abs(batch.pixels[0, 0, 0].numpy() - (frame / 127.5 - 1)).max() < 1e-6
        if batch.conditions.prior.any() and number not in seen:
            expected = encode(encoder, frame[None])
            np.testing.assert_allclose(batch.conditions.prior.numpy(), expected, atol=1e-4)
            seen.add(number)
    assert len(seen) >= 2, "no variant was shown with its prior, so this test saw nothing"
    (folder / f"{variant_name(data.rows[0].name, 2)}.npy").unlink()
    with pytest.raises(UserError, match="__v2.npy: does not exist"):
        data.check()


def test_another_number_of_variants_is_an_error_in_every_step(made, tmp_path):
    home, settings, _ = made
    frames = home / MOSMED.frames_dir
    for number in (0, 3):
        with pytest.raises(UserError, match=f"of 2 variants of each training frame, not of {number}"):
            extract_priors(frames, MOSMED, Settings(settings.checkpoint, device="cpu", variants=number))
    with pytest.raises(UserError, match="of 2 variants .* not of 1"):
        LabelledFrameData(LDMConfig(data_name="MosMed", data_root=str(tmp_path), prior_variants=1), "train")
    with pytest.raises(ValueError, match="cache_latents"):
        LDMConfig(data_name="MosMed", prior_variants=1, cache_latents=True)
    with pytest.raises(UserError, match="first_frames_only"):
        Settings(variants=1, first_frames_only=True)
    outcome, _ = verify_priors(frames, MOSMED, Settings())
    assert outcome.counts["whole"] == 12 and not outcome.failures
