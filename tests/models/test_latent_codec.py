"""Pixels and latents: scales, slices, and what one frame has to do with another."""

import numpy as np
import pytest
import torch

from cond2img.latent_codec import LatentCodec, to_pixels, to_uint8, to_unit, to_unit_pixels
from cond2img.models import AutoencoderKL


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    widths = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(1, 1, **kinds, **widths, scaling_factor=0.25).eval()


def test_every_grey_value_survives_both_ways():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    pixels = to_pixels(frames)
    assert pixels.shape == (1, 1, 16, 16) and (pixels.min(), pixels.max()) == (-1, 1)
    back = to_uint8(to_unit(pixels).numpy())[:, 0].astype(int)
    assert np.abs(back - frames).max() <= 1  # truncated, as published
    assert (to_unit_pixels(frames)[0, 0].numpy() == frames[0].astype(np.float32) / 255).all()
    assert (to_unit(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])) == torch.tensor([0, 0, 0.5, 1, 1])).all()


def test_slices_change_nothing_and_bound_what_the_vae_sees(vae, monkeypatch):
    pixels = torch.randn(5, 1, 16, 16).clamp(-1, 1)
    whole, sliced = LatentCodec(vae, 5), LatentCodec(vae, 2)
    torch.testing.assert_close(whole.moments(pixels), sliced.moments(pixels))
    latents = torch.randn(5, 4, 8, 8)
    seen = []
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: seen.append(len(z)) or decode(z))
    torch.testing.assert_close(whole.decode(latents), sliced.decode(latents))
    assert seen == [5, 2, 2, 1]


def test_latents_are_scaled_once_each_way(vae):
    codec = LatentCodec(vae)
    moments = codec.moments(torch.randn(2, 1, 16, 16))
    noise = torch.randn(2, 4, 8, 8)
    drawn = codec.latents(moments, noise)
    mean, logvar = moments.chunk(2, dim=1)
    torch.testing.assert_close(drawn, 0.25 * (mean + (0.5 * logvar).exp() * noise))
    with torch.no_grad():
        expected = vae.decode(drawn / 0.25).sample
    torch.testing.assert_close(codec.decode(drawn), (expected / 2 + 0.5).clamp(0, 1))


def test_autocast_around_it_is_left_out(vae):
    with torch.autocast("cpu", torch.bfloat16):
        assert LatentCodec(vae).moments(torch.zeros(1, 1, 16, 16)).dtype == torch.float32
