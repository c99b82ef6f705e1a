"""What the miniature base model is made of: the stand-in encoder, the chosen latents, drawn patients, checksums."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from augment.demo import encoder
from augment.demo.base.drawn_data import DrawnFrames
from augment.demo.base.patients import KINDS, draw_patient
from augment.demo.base.plane_encoder import DEVIATIONS, LOG_VARIANCE, MEAN, set_plane_encoder
from augment.demo.base.projection import project
from augment.demo.base.store import Motion, drawn_patients, moving
from augment.demo.weights import small_vae
from cond2img.config import LDMConfig
from cond2img.latent_codec import to_pixels
from cond2img.models.unet import ImageProjection
from ctrlgenaug.conditions.medsam import encode
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.conditions.trajectories import track
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import check_sums, write_sums


@pytest.fixture(scope="module")
def frames():
    """One frame of a patient of each kind, (4, 256, 256)."""
    return np.stack([draw_patient(5, number).frames[3] for number in range(len(KINDS))])


# --- patients --------------------------------------------------------------------------------------------------------


def test_patients_of_all_kinds_are_drawn_alike_each_time(frames):
    for number in range(len(KINDS)):
        example = draw_patient(5, number)
        assert example.frames.shape == (8, 256, 256) and example.frames.dtype == np.uint8
        assert (example.frames[3] == frames[number]).all()
        assert bool(example.text) == (list(KINDS)[number] == "TUSC")
        assert example.frames.std() > 10
    assert (draw_patient(6, 0).frames != draw_patient(5, 0).frames).any()


def test_drawn_patients_and_their_motion_are_found_again(tmp_path):
    frames, texts = drawn_patients(tmp_path, 5, 3)
    assert (frames[1] == draw_patient(5, 1).frames).all() and texts == ["", "", ""]
    clips = moving(tmp_path, 5, frames, 6)
    assert (clips[:, 0] == frames[:, 0]).all() and (clips[:, 1:] != frames[:, 1:]).any()
    motion = Motion(tmp_path, "motion", clips)
    published = Motion(tmp_path, "published", clips, published=True)
    for index in range(3):
        clip = np.array(clips[index])
        field = motion_field(clip, adjacent_reference=True, fill_blocks=True)
        assert np.array_equal(motion.field(index), field)
        assert np.array_equal(motion.tracks[index], track(field, 0))
        assert np.array_equal(published.field(index), motion_field(clip))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    drawn_patients(tmp_path, 5, 3)
    moving(tmp_path, 5, frames, 6)
    Motion(tmp_path, "motion", clips)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


# --- the stand-in for MedSAM -----------------------------------------------------------------------------------------


def test_priors_are_what_the_encoder_makes(frames):
    made = torch.as_tensor(encode(encoder.medsam_encoder(), frames[:2])).float()
    quick = encoder.priors(frames[:2])
    assert made.shape == (2, 256, 64, 64)
    assert (made - quick).abs().mean() < 0.005  # grey levels that the preparation cuts off
    assert made.std().item() == pytest.approx(1, abs=0.05)


def test_a_frame_can_be_read_from_its_prior(frames):
    """The 16 pixels of each token come back by a linear map, whatever the token's scale."""
    prior = encoder.priors(frames[:1])[0].flatten(1)  # (256, 4096)
    found = torch.linalg.lstsq(encoder.mixing(), prior).solution  # (32, 4096), scaled token by token
    waves = encoder.position_waves().flatten(1)
    scale = (found[16:] * waves).sum(0) / waves.square().sum(0)
    pixels = torch.nn.functional.pixel_shuffle((found[:16] / scale).view(1, 16, 64, 64), 4)[0, 0]
    grey = frames[0].astype(np.float32)
    expected = 2 * (grey - grey.min()) / (grey.max() - grey.min()) - 1
    assert np.corrcoef(pixels.flatten(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("training", [True, False])
def test_the_shortcut_projects_priors_exactly_as_the_unet_does(frames, training):
    torch.manual_seed(0)
    whole = ImageProjection(256, 16).train(training)
    short = copy.deepcopy(whole)
    prior, features = encoder.priors(frames), encoder.features(frames)
    prior[1], features[1] = 0, 0  # dropped
    expected, found = whole(prior), project(short, features)
    assert torch.allclose(found, expected, atol=2e-3)
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()
    (found * direction).sum().backward()
    for (name, one), other in zip(whole.named_parameters(), short.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=2e-3 * float(one.grad.abs().max())), name
    assert torch.allclose(whole.bn.running_var, short.bn.running_var, rtol=1e-4)
    assert torch.allclose(whole.bn.running_mean, short.bn.running_mean, atol=1e-5)


# --- the chosen latents ----------------------------------------------------------------------------------------------


def test_latents_are_the_planes_of_the_blocks(frames):
    torch.manual_seed(0)
    vae = small_vae()
    set_plane_encoder(vae)
    with torch.no_grad():
        mean, logvar = vae.encode(to_pixels(frames)).latent_dist.parameters.chunk(2, dim=1)
    blocks = (frames / 127.5 - 1).reshape(-1, 32, 8, 32, 8).transpose(0, 1, 3, 2, 4)  # (4, 32, 32, 8, 8)
    across = np.arange(8) - 3.5
    down = across[:, None]
    numbers = [blocks.mean((3, 4)) - MEAN]
    numbers += [
        (blocks * w).sum((3, 4)) / (w * w * np.ones((8, 8))).sum() for w in (across, down, across * down)
    ]
    expected = np.stack([n / d for n, d in zip(numbers, DEVIATIONS, strict=True)], axis=1)
    assert np.abs(mean.numpy() - expected).max() < 0.15  # the SiLU bends a little far out
    assert np.abs(mean.numpy() - expected).mean() < 2e-3
    assert (logvar == LOG_VARIANCE).all()


# --- checksums -------------------------------------------------------------------------------------------------------


@pytest.fixture
def summed(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights").write_bytes(b"0123456789")
    (tmp_path / "README.md").write_text("what it is")
    write_sums(tmp_path)
    return tmp_path


def test_a_sound_folder_and_one_without_sums_pass(summed, tmp_path_factory):
    check_sums(summed)
    check_sums(summed / "unet")
    check_sums(tmp_path_factory.mktemp("without"))


def test_damage_is_named_from_the_folder_and_from_its_part(summed):
    (summed / "unet" / "weights").write_bytes(b"0123456780")
    for folder in (summed, summed / "unet"):
        with pytest.raises(UserError, match="weights.*damaged.*SHA256SUMS"):
            check_sums(folder)


def test_a_missing_file_is_named_and_damage_elsewhere_does_not_matter(summed):
    (summed / "README.md").unlink()
    check_sums(summed / "unet")
    with pytest.raises(UserError, match="README.md.*is missing"):
        check_sums(summed)


# --- the base's training data ----------------------------------------------------------------------------------------


def test_drawn_data_answer_what_a_run_notes_of_its_inputs(frames):
    moments = np.zeros((1, 4, 8, 32, 32), np.float32)
    data = DrawnFrames(LDMConfig(data_name="MosMed"), frames[None], ["a text"], moments)
    assert data.made_with() == {}
    assert data.own_folder() and data.content()
