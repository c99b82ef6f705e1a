"""From conditions to frames: what a sample depends on, and what it does not."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from augment.generation.generate_folder import Request, _with_text
from augment.generation.plan import Sample
from augment.generation.synthesiser import SequenceSynthesiser
from cond2img.guidance import Guidance
from cond2img.sampling import Sampling
from cond2video.model_folder import trained_with_text
from ctrlgenaug import datasets
from ctrlgenaug.conditions.trajectories import save_tracks, track
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json, save_npy, write_json

SAMPLE = Sample("study_0001_s01", "CT-0", 66, text="The nodule is solid.")
BOTH = ("image_condition", "motion_condition")


def synthesiser(world, conditions=BOTH, **settings):
    num_frames = settings.pop("num_frames", None)
    # without guidance: half the time
    sampling = Sampling(**{"num_inference_steps": 1, "guidance": Guidance(1.0), **settings})
    places = str(world / "model"), "MosMed", str(world / "MosMedData")
    return SequenceSynthesiser("cpu", *places, conditions, sampling=sampling, num_frames=num_frames)


def frames(model, *samples):
    return list(model.synthesise(samples, [model.load(sample) for sample in samples]))


def test_every_part_of_a_name_and_every_condition_matters(world):
    model = synthesiser(world)
    base = frames(model, SAMPLE)[0]
    assert base.shape == (8, 256, 256) and base.dtype == np.uint8
    others = [
        Sample("study_0002_s01", "CT-0", 66),
        Sample(SAMPLE.clip, "CT-1", 66),
        Sample(SAMPLE.clip, "CT-0", 67),
    ]
    for other in frames(model, *others):
        assert not np.array_equal(other, base)
    for conditions in (BOTH[:1], BOTH[1:], (), (*BOTH, "text_condition")):
        model.conditions = conditions
        assert not np.array_equal(frames(model, SAMPLE)[0], base)


def test_neighbours_order_and_threads_do_not_matter(world):
    model = synthesiser(world)
    torch.set_num_threads(1)
    other = Sample("study_0002_s01", "CT-1", 3407)
    alone = frames(model, SAMPLE)[0]
    assert np.array_equal(frames(model, other, SAMPLE)[1], alone)
    assert np.array_equal(frames(synthesiser(world), SAMPLE)[0], alone)


def test_noise_shared_by_a_seed_or_each_samples_own(world):
    """Without conditions only the noise tells two clips of a class apart."""
    pair = SAMPLE, Sample("study_0002_s01", SAMPLE.cls, SAMPLE.seed)
    shared, own = (frames(synthesiser(world, (), noise=noise), *pair) for noise in ("shared", "own"))
    assert np.array_equal(*shared) and not np.array_equal(*own)


def test_left_out_conditions_are_what_training_dropped(world):
    conditions = synthesiser(world, ()).load(SAMPLE)
    assert not conditions.prior.any() and not conditions.motion.any() and conditions.text == ""
    assert (conditions.trajectories >= 0).all()  # every point has a trajectory through all frames ...
    cells = conditions.trajectories % 1024
    assert (cells == cells[:, :1]).all()  # ... which stays in its place


def test_longer_and_shorter_clips(world):
    spec = datasets.get("MosMed")
    for number, length in ((71, 11), (72, 5)):
        field = np.zeros((length - 1, 2, 256, 256), np.float32)
        save_npy(spec.motion_path(world / "MosMedData", f"study_00{number}_s01"), field)
        save_tracks(spec.trajectory_path(world / "MosMedData", f"study_00{number}_s01"), track(field, 0))
    long, short = Sample("study_0071_s01", "CT-0", 66), Sample("study_0072_s01", "CT-0", 66)
    made = frames(synthesiser(world, BOTH[1:]), long, SAMPLE, short)
    assert [len(clip) for clip in made] == [11, 8, 5]
    assert len(frames(synthesiser(world, (), num_frames=6), SAMPLE)[0]) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "dpmsolver++"},
        {"solver": "unipc"},
        {"dtype": "bfloat16"},
        {"guidance": Guidance(7.5)},
        {"guidance": Guidance(7.5, class_contrast=2)},
        {"guidance": Guidance(7.5, class_contrast=2, contrast_with="nearest")},
        {"timestep_spacing": "trailing", "solver": "unipc"},
        {"cache_interval": 2, "num_inference_steps": 3},
    ],
)
def test_other_settings(world, settings):
    clip = frames(synthesiser(world, **settings), SAMPLE)[0]
    assert clip.shape == (8, 256, 256) and clip.std() > 1


@pytest.mark.slow
def test_compiled_the_model_is_one_graph_and_says_the_same(world):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    latents, clips = [], []
    for compiled in (False, True):
        # without guidance, which would multiply the rounding
        model = synthesiser(world, compiled=compiled, num_inference_steps=2)
        decode = model.pipeline.decode
        model.pipeline.decode = lambda z, decode=decode: latents.append(z) or decode(z)
        clips.append(frames(model, SAMPLE)[0].astype(int))
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert (latents[0] - latents[1]).abs().max() < 1e-4
    assert np.abs(clips[0] - clips[1]).max() <= 1


def test_guidance_within_an_interval_of_noise_levels(world):
    whole, same, part = (
        frames(synthesiser(world, guidance=Guidance(7.5, interval)), SAMPLE)[0]
        for interval in (None, (0, 999), (600, 999))
    )
    assert np.array_equal(whole, same) and not np.array_equal(whole, part)


def test_the_published_batch_norm(world):
    """It shows only where the running statistics are not the pair's own; and not at all without a prior."""
    model = synthesiser(world, guidance=Guidance(7.5))
    bn = model.pipeline.unet.image_proj.bn
    bn.running_mean += 0.05
    running = frames(model, SAMPLE)[0]
    model.sampling = replace(model.sampling, batch_norm="published")
    published, before = frames(model, SAMPLE)[0], bn.running_mean.clone()
    assert not np.array_equal(running, published)
    other = Sample("study_0002_s01", "CT-1", 66)
    together = synthesised_together(model, other, SAMPLE)
    assert np.abs(together[1].astype(int) - published).max() <= 1 and torch.equal(bn.running_mean, before)


def synthesised_together(model, *samples):
    """Frames of a batch, as a GPU makes them, on the CPU."""
    conditions = [model.load(sample) for sample in samples]
    seeds = [sample.noise_seed(model.sampling.noise) for sample in samples]
    return list(model.draw(conditions, seeds))


@pytest.mark.parametrize(
    ("part", "message"),
    [("unet", "UNet's weights are not finite"), ("vae", "VAE's weights are not finite")],
)
def test_frames_that_are_not_finite_are_reported_with_their_cause(world, part, message):
    model = synthesiser(world)
    list(getattr(model.pipeline, part).parameters())[-1].data.fill_(float("nan"))
    (made,) = frames(model, SAMPLE)
    assert isinstance(made, UserError) and message in str(made)


def test_an_overflow_is_reported_by_its_precision(world):
    model = synthesiser(world)
    model.pipeline.vae.decoder.conv_out.bias.data += float("inf")
    (made,) = frames(model, SAMPLE)
    assert isinstance(made, UserError)  # one infinite bias would clip to white frames
    model = synthesiser(world, guidance=Guidance(1e39))
    (made,) = frames(model, SAMPLE)
    assert "UNet's latents are not finite (in float32). Lower --guidance_scale" in str(made)


def test_a_device_that_is_not_there(world):
    with pytest.raises(UserError, match="device cuda:99 does not exist here"):
        SequenceSynthesiser("cuda:99", str(world / "model"), "MosMed", ".", ())


def test_damaged_conditions_are_named(world):
    with pytest.raises(UserError, match=r"study_0099_s01\.npy: does not exist"):
        synthesiser(world).load(Sample("study_0099_s01", "CT-0", 66))
    path = datasets.get("MosMed").prior_path(world / "MosMedData", "study_0098_slice01")
    save_npy(path, np.zeros((3, 3), np.float32))
    with pytest.raises(UserError, match=r"has shape \(3, 3\), expected \(256, 64, 64\)"):
        synthesiser(world, BOTH[:1]).load(Sample("study_0098_s01", "CT-0", 66))


def test_a_model_of_other_classes_is_refused(world):
    with pytest.raises(UserError, match="is a model of 3 classes, ACDC has 5"):
        SequenceSynthesiser("cpu", str(world / "model"), "ACDC", ".", (), vae_path=str(world / "model"))


def test_a_prior_that_follows_wants_fields_that_say_where_things_go(world, tmp_path):
    """Fields made otherwise are refused before work; of fields that nobody noted anything about all is believed."""
    model = shutil.copytree(world / "model", tmp_path / "model")
    path = next(model.rglob("unet3d/config.json"))
    write_json(path, read_json(path) | {"prior_follows_motion": True})
    home = tmp_path / "MosMedData"
    for part in (world / "MosMedData").iterdir():
        home.mkdir(exist_ok=True)
        (home / part.name).symlink_to(part)
    noted = home / "MosMed_motion_field"
    noted.unlink()
    shutil.copytree(world / "MosMedData/MosMed_motion_field", noted)

    def load(conditions=BOTH):
        return SequenceSynthesiser("cpu", str(model), "MosMed", str(home), conditions)

    both = {"adjacent_reference": True, "fill_blocks": True}
    cases = [(None, False), ({}, False), (both, False), ({"adjacent_reference": True}, "fill_blocks")]
    cases += [(both | {name: False}, name) for name in both]
    for says, refused in cases:
        (noted / "settings.json").unlink(missing_ok=True)
        if says is not None:
            write_json(noted / "settings.json", says)
        assert load(BOTH[:1]).pipeline.unet.config.prior_follows_motion  # no motion field is asked for
        if refused:
            with pytest.raises(
                UserError, match=f"MosMed_motion_field.*was made without --{refused}, .*--fill_blocks"
            ):
                load()
        else:
            load()
    plain = SequenceSynthesiser("cpu", str(world / "model"), "MosMed", str(home), BOTH)
    assert not plain.pipeline.unet.config.prior_follows_motion


def test_texts_where_the_model_was_trained_with_them(tmp_path):
    tusc = datasets.get("TUSC")
    assert not trained_with_text(tmp_path)
    assert _with_text(Request(str(tmp_path), text="auto"), tusc) == BOTH
    assert _with_text(Request(str(tmp_path), text="metadata"), tusc) == (*BOTH, "text_condition")
    (tmp_path / "training_config.yaml").write_text("caption_column: null\n")
    assert _with_text(Request(str(tmp_path), text="auto"), tusc) == BOTH
    (tmp_path / "training_config.yaml").write_text("caption_column: text\n")
    assert _with_text(Request(str(tmp_path), text="auto"), tusc) == (*BOTH, "text_condition")
    assert _with_text(Request(str(tmp_path), text="none"), tusc) == BOTH
    assert _with_text(Request(str(tmp_path), text="auto"), datasets.get("MosMed")) == BOTH
    with pytest.raises(UserError, match="has no texts"):
        _with_text(Request(str(tmp_path), text="metadata"), datasets.get("MosMed"))
    assert _with_text(Request(str(tmp_path), text="A solid one."), datasets.get("MosMed")) == (
        *BOTH,
        "text_condition",
    )
    with pytest.raises(UserError, match="is no prompt.*Did you mean none"):
        Request(str(tmp_path), text=" ")
    (tmp_path / "training_config.yaml").write_text("caption_column: [text\n")
    with pytest.raises(UserError, match=r"training_config\.yaml: is not YAML"):
        trained_with_text(tmp_path)
