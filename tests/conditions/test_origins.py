"""Following places back to the first frame: against shifts that are known, pixel by pixel, and the chain rule."""

import numpy as np
import pytest
import torch

from cond2img.pipelines.denoising import initial_noise
from ctrlgenaug.conditions.clip import ClipConditions, ClipConditionsBatch
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.conditions.origins import nearest, origins, sample
from ctrlgenaug.conditions.trajectories import link
from ctrlgenaug.phantom.movement import shifted


def test_a_constant_movement_adds_up_frame_by_frame():
    motion = torch.zeros(2, 3, 2, 64, 32)
    motion[0, :, 0], motion[0, :, 1] = 5, -2  # to the right and up
    found = origins(motion)
    assert found.shape == (2, 4, 2, 16, 8) and found.dtype == torch.float32
    for frame in range(4):
        assert torch.allclose(found[0, frame, 0], torch.tensor(-5.0 * frame))
        assert torch.allclose(found[0, frame, 1], torch.tensor(2.0 * frame))
    assert not found[1].any()


def test_what_moved_is_followed_not_the_place_it_passed():
    """A block of 8 x 8 pixels goes 8 to the right, then 8 down; all else stands still."""
    motion = torch.zeros(1, 2, 2, 64, 64)
    motion[0, 0, 0, 16:24, 24:32] = 8  # where it is in frame 1
    motion[0, 1, 1, 24:32, 24:32] = 8  # and in frame 2
    found = origins(motion)[0]
    assert found[1, :, 4:6, 6:8].flatten(1).T.unique(dim=0).tolist() == [[-8, 0]]
    assert found[2, :, 6:8, 6:8].flatten(1).T.unique(dim=0).tolist() == [[-8, -8]]
    assert not found[1, :, :3].any() and not found[2, :, 9:].any()


@pytest.mark.parametrize("pixels", (4, 8, -12))
def test_maps_are_shifted_by_pixels_whatever_their_size(pixels):
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    shift = torch.zeros(2, 2, 16, 16)
    shift[1, 0] = pixels
    found = sample(picture, shift)
    cells = pixels // 4
    expected = picture[1].roll(-cells, -1)
    inside = slice(max(0, -cells), 16 - max(0, cells))
    assert torch.allclose(found[0], picture[0], atol=1e-6)
    assert torch.allclose(found[1][..., inside], expected[..., inside], atol=1e-6)
    edge = picture[1, :, :, -1:] if cells > 0 else picture[1, :, :, :1]
    outside = found[1][..., 16 - cells :] if cells > 0 else found[1][..., :-cells]
    assert torch.allclose(outside, edge.expand_as(outside), atol=1e-6)
    coarse = torch.rand(1, 1, 4, 4)  # a place of 16 pixels: a quarter of the way per cell
    half = sample(coarse, torch.full((1, 2, 16, 16), 8.0))
    assert torch.allclose(half[0, 0, 0, 0], coarse[0, 0, :2, :2].mean(), atol=1e-6)
    halved = sample(picture.bfloat16(), shift)
    assert halved.dtype == torch.bfloat16
    assert torch.equal(halved[1][..., inside], picture[1].bfloat16().roll(-cells, -1)[..., inside])


def test_fields_of_a_drifting_clip_lead_back_to_its_first_frame():
    rng = np.random.default_rng(3)
    smooth = torch.nn.functional.interpolate(
        torch.tensor(rng.uniform(0, 255, (1, 1, 32, 32))), scale_factor=8, mode="bicubic"
    )
    still = np.repeat(smooth[0].clamp(0, 255).byte().numpy(), 5, 0)
    clip = shifted(still, np.arange(5)[:, None] * [3.0, -5.0])
    field = torch.from_numpy(motion_field(clip, adjacent_reference=True, fill_blocks=True))
    where = origins(field[None])[0, :, :, 8:-8, 8:-8]  # away from the border, where new things come in
    assert torch.allclose(where[4].flatten(1).median(-1).values, torch.tensor([20.0, -12.0]), atol=1)


def test_a_clip_longer_than_the_real_one_finds_the_same_places_on_its_way_back():
    rng = torch.Generator().manual_seed(1)
    motion = torch.randint(-6, 7, (4, 2, 64, 64), generator=rng).float()[..., ::4, ::4]
    motion = motion.repeat_interleave(16, -1).repeat_interleave(16, -2)  # (4, 2, 256, 256)
    short = ClipConditions(0, "", torch.rand(256, 64, 64), motion, torch.as_tensor(link(motion.numpy(), 0)))
    long = short.of_length(11)
    own = origins(motion[None])[0]
    assert short.origins is None
    assert torch.equal(long.origins, own[[0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2]])
    batch = ClipConditionsBatch.stack([short])
    assert torch.equal(batch.within(slice(2, 5), 5).origins[0], own[2:])
    many = ClipConditionsBatch.stack([long])
    assert torch.equal(many.within(slice(3, 8), 11).origins[0], own[[3, 4, 3, 2, 1]])
    assert not long.without(["motion_field"]).origins.any() and not many.unconditional().origins.any()
    assert torch.equal(many.without(["image_prior"]).origins, many.origins)


def test_noise_goes_by_whole_places_and_stays_noise():
    maps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    shift = torch.zeros(2, 3, 2, 16, 16)  # 64 pixels: a place of the maps is 8
    shift[1, 1, 0], shift[1, 2, 1] = -8, 13  # one place from the left; 1.6, so two, from below
    found, inside = nearest(maps, shift)
    assert found.shape == (2, 4, 3, 8, 8) and inside.shape == (2, 1, 3, 8, 8)
    assert torch.equal(found[0], maps[0][:, None].expand(-1, 3, -1, -1)) and inside[0].all()
    assert torch.equal(found[1, :, 1, :, 1:], maps[1, :, :, :-1]) and not inside[1, 0, 1, :, 0].any()
    assert torch.equal(found[1, :, 2, :-2], maps[1, :, 2:]) and not inside[1, 0, 2, -2:].any()
    assert inside[1, 0, 1, :, 1:].all() and inside[1, 0, 2, :-2].all()


def test_common_noise_of_a_clip_goes_with_what_moves():
    """c of the noise is one picture that moves; where something comes into view it is each frame's own."""
    shape, generator = (1, 4, 3, 8, 8), lambda: [torch.Generator().manual_seed(5)]
    shift = torch.zeros(1, 3, 2, 16, 16)
    shift[0, 1:, 0] = -8
    own, still = initial_noise(shape, generator()), initial_noise(shape, generator(), 0.5)
    moved = initial_noise(shape, generator(), 0.5, origins=shift)
    common = (still - 0.5**0.5 * own) / 0.5**0.5
    assert torch.equal(moved[:, :, 0], still[:, :, 0])
    expected = 0.5**0.5 * (common[:, :, 1, :, :-1] + own[:, :, 1, :, 1:])
    assert torch.allclose(moved[:, :, 1, :, 1:], expected, atol=1e-5)
    assert torch.equal(moved[:, :, 1:, :, 0], own[:, :, 1:, :, 0])
    assert torch.equal(initial_noise(shape, generator(), 0.0, origins=shift), own)
