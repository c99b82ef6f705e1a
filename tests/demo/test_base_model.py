"""The miniature base model as it is tracked: whole, small, loaded as Stable Diffusion is, following its prior."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from augment.demo import encoder
from augment.demo.base.patients import KINDS, draw_patient
from augment.demo.base.store import field_of
from augment.demo.gallery import Gallery
from augment.demo.weights import BASE
from cond2img.data.frames import DiffusionBatch
from cond2img.guidance import Guidance
from cond2img.latent_codec import LatentCodec, to_pixels
from cond2img.models import UNet2DMultiConditionModel, load_vae
from cond2img.models.text import load_text
from cond2img.training.diffusion import DiffusionStep
from cond2video.config import FINETUNED
from cond2video.models import UNet3DMultiConditionModel
from cond2video.models.checkpoints import load_sequence_parts
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import check_sums
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.phantom.movement import shifted

INSERT = {"condition_insert_block": [False, True, True]}


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(BASE, tmp_path / "base")
    return tmp_path / "base"


def image_unet(folder, **options):
    return UNet2DMultiConditionModel.from_pretrained_2d(
        folder, subfolder="unet", num_class_embeds=3, **INSERT, **options
    )


def test_it_is_whole_and_at_most_12_mb():
    check_sums(BASE)
    assert sum(path.stat().st_size for path in BASE.rglob("*") if path.is_file()) <= 12e6
    card = (BASE / "README.md").read_text()
    assert "Licence: MIT" in card and "nothing of it is medical" in card and "own prior" in card


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder", "sequence_parts"])
def test_a_damaged_file_is_named_where_it_is_loaded(copied, name):
    file = next((copied / name).glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1  # one bit of a weight: it would load without a word
    file.write_bytes(content)
    loaders = {
        "unet": lambda: image_unet(copied),
        "vae": lambda: load_vae(copied / "vae"),
        "text_encoder": lambda: load_text(copied),
        "sequence_parts": lambda: load_sequence_parts(
            UNet3DMultiConditionModel.from_pretrained_2d(copied, subfolder="unet"), copied / name, FINETUNED
        ),
    }
    with pytest.raises(UserError, match=rf"{name}/.*safetensors.*damaged"):
        loaders[name]()


def test_classes_start_fresh_and_the_rest_is_the_base_s():
    model = image_unet(BASE)
    assert model.class_embedding.weight.shape == (3, 128)
    assert model.class_embedding.weight.std().item() == pytest.approx(1, abs=0.2)  # as published
    assert image_unet(BASE, fresh_init="identity").class_embedding.weight.abs().max() == 0
    assert NoiseSchedule.of_folder(BASE, model.config.prediction_type) == NoiseSchedule("v_prediction")


def test_further_image_branches_start_fresh_and_without_effect():
    options = {"condition_insert_block": [True, True, True], "fresh_init": "identity"}
    model = UNet2DMultiConditionModel.from_pretrained_2d(
        BASE, subfolder="unet", num_class_embeds=3, **options
    )
    plain = image_unet(BASE, fresh_init="identity")
    noisy, text = torch.randn(1, 4, 32, 32), torch.zeros(1, 77, 64)
    prior = encoder.priors(draw_patient(7, 0).frames[:1])
    outputs = [
        unet(noisy, 800, text, image_cond=prior, class_labels=torch.tensor([1])).sample
        for unet in (model.eval(), plain.eval())
    ]
    assert torch.allclose(*outputs, atol=1e-5)


def errors(model, clips, variants):
    """Error at timestep 850 of the latents of ``clips`` (N, F, 256, 256) under each of the conditions ``variants``."""
    step = DiffusionStep(model.eval())
    step.set_schedule(NoiseSchedule("v_prediction"))
    codec = LatentCodec(load_vae(BASE / "vae").eval())
    frames = np.concatenate(clips)
    latents = codec.latents(codec.moments(to_pixels(frames)), torch.zeros(len(frames), 4, 32, 32))
    assert latents.std().item() == pytest.approx(1, abs=0.25)
    assert (codec.decode(latents)[:, 0] - torch.from_numpy(frames) / 255).abs().mean() < 0.03
    latents = latents.unflatten(0, (len(clips), -1))
    step.texts = torch.zeros(1, 77, 64)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.full((len(clips),), 850)
    noisy = step.schedule.add_noise(latents, noise, timesteps)
    signal = step.schedule.alphas_cumprod[850]
    found = []
    for conditions in variants:
        batch = DiffusionBatch(
            names=("",) * len(clips),
            conditions=conditions,
            caption=torch.zeros(len(clips), dtype=torch.long),
            timestep=timesteps,
            noise=noise,
            posterior_noise=noise,
        )
        with torch.no_grad():
            velocity = step.predict(noisy, batch)
        clean = signal.sqrt() * noisy - (1 - signal).sqrt() * velocity
        found.append(float((clean - latents).square().mean()))
    return found


def test_its_decoder_makes_whole_pictures_of_latents_that_are_not_quite_right():
    """Noise of 0.3 deviations less than doubles the error; without having learned with noise it grows 3.5 times."""
    codec = LatentCodec(load_vae(BASE / "vae").eval())
    frames = np.concatenate([draw_patient(7, number).frames[4:5] for number in range(2 * len(KINDS))])
    latents = codec.latents(codec.moments(to_pixels(frames)), torch.zeros(len(frames), 4, 32, 32))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    clean, noisy = (
        (codec.decode(latents + level * noise)[:, 0] - torch.from_numpy(frames) / 255).abs().mean()
        for level in (0, 0.3)
    )
    assert clean < 0.015 and noisy < 2 * clean


def test_it_follows_the_prior_of_patients_that_it_never_saw():
    """The own prior recovers a frame with at most 0.3 of another's error."""
    frames = np.concatenate([draw_patient(7, number).frames[4:5] for number in range(2 * len(KINDS))])
    own = ClipConditionsBatch(torch.zeros(len(frames), dtype=torch.long), (), encoder.priors(frames))
    other = replace(own, prior=own.prior.roll(len(KINDS), 0))
    found = errors(image_unet(BASE, fresh_init="identity"), frames[:, None], (own, other))
    assert found[0] <= 0.3 * found[1]


def test_it_follows_the_movement_of_patients_that_it_never_saw():
    """Of a view that drifts, another's movement, or the own turned round, recovers less than the own."""
    model = UNet3DMultiConditionModel.from_pretrained_2d(BASE, subfolder="unet")
    load_sequence_parts(model, BASE / "sequence_parts", FINETUNED)
    steps = np.array(
        [[5.0, 0.0], [-4.0, 4.0], [0.0, -5.0], [4.0, 4.0]]
    )  # pixels a frame, down and to the right
    clips = np.stack(
        [shifted(draw_patient(7, n).frames, np.arange(8.0)[:, None] * step) for n, step in enumerate(steps)]
    )
    motion = torch.from_numpy(np.stack([field_of(clip) for clip in clips]))
    prior = encoder.priors(clips[:, 0])
    own = ClipConditionsBatch(None, (), prior, motion)
    turned, others = replace(own, motion=-motion), replace(own, motion=motion.roll(1, 0))
    found = errors(model, clips, (own, turned, others))
    assert found[0] <= 0.8 * found[1] and found[0] <= 0.8 * found[2], found


def test_guidance_makes_a_clip_nearer_to_its_patient():
    """Drawn with guidance, as the gallery is, an unseen patient's clip is nearer to the real one than without."""
    gallery = Gallery(6)
    example = draw_patient(7, 2)
    field, prior = field_of(example.frames), encoder.priors(example.frames[:1])
    guided = gallery.synthesise(example, field, prior, seed=0)
    plain = gallery.synthesise(example, field, prior, seed=0, guidance=Guidance(1))
    assert guided.shape == example.frames.shape and guided.dtype == np.uint8
    real = example.frames.astype(float)
    assert np.abs(guided - real).mean() < np.abs(plain - real).mean()


def test_sequence_parts_are_taken_over_whole_or_refused(copied, tmp_path):
    fresh = UNet3DMultiConditionModel.from_pretrained_2d(BASE, subfolder="unet")
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    load_sequence_parts(fresh, BASE / "sequence_parts", FINETUNED)
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, before[name])}
    assert any("attn_temp" in name for name in changed)
    assert fresh.config.frame_positions  # as the parts were trained
    assert all(any(part in name for part in FINETUNED) for name in changed)
    other = UNet3DMultiConditionModel.from_config({**fresh.config, "motion_condition": False})
    load_sequence_parts(other, BASE / "sequence_parts", FINETUNED)  # what it lacks it does not ask for
    (copied / "SHA256SUMS").unlink()
    shutil.copy(copied / "unet" / "diffusion_pytorch_model.safetensors", copied / "sequence_parts")
    with pytest.raises(UserError, match="sequence_parts.*lacks .* sequence parts"):
        load_sequence_parts(fresh, copied / "sequence_parts", FINETUNED)
