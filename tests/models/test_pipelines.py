"""Both pipelines: noise, guidance, text, solvers, outputs, saving."""

import json

import numpy as np
import pytest
import torch
from golden_vectors import SMALL_UNET, SMALL_VAE, arr, difference, official_weights
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cond2img.guidance import Guidance, nearest
from cond2img.latent_codec import to_uint8
from cond2img.models import AutoencoderKL, UNet2DMultiConditionModel
from cond2img.models.unet import UNetOutput
from cond2img.pipelines import GenImagePipeline, make_scheduler
from cond2img.pipelines.caching import fresh_steps
from cond2img.pipelines.windows import blend, context_windows
from cond2img.sampling import SOLVERS
from cond2video.models import UNet3DMultiConditionModel
from cond2video.pipelines import GenVideoPipeline
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.errors import UserError
from ctrlgenaug.noise_schedule import NoiseSchedule

EMPTY = arr("empty", (1, 7, 768))
COMMON = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(**SMALL_VAE).eval()


@pytest.fixture
def video(vae):
    unet = UNet3DMultiConditionModel(**SMALL_UNET).eval()
    unet.load_state_dict(official_weights("unet3d"))
    pipeline = GenVideoPipeline(vae, unet, make_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def image(vae):
    unet = UNet2DMultiConditionModel(**SMALL_UNET).eval()
    unet.load_state_dict(official_weights("unet2d"))
    pipeline = GenImagePipeline(vae, unet, make_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def text(tmp_path):
    """A tiny CLIP: a text encoder of random weights, a tokenizer of single letters."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt"), model_max_length=77
    )
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=768,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=len(vocabulary) - 2,
        eos_token_id=len(vocabulary) - 1,
        pad_token_id=len(vocabulary) - 1,
    )
    return {"text_encoder": CLIPTextModel(config).eval(), "tokenizer": tokenizer}


def embeds(**changes):
    return {**COMMON, "prompt_embeds": EMPTY, "negative_prompt_embeds": EMPTY, **changes}


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def conditions(batch=2, frames=3):
    return {
        "image_cond": arr("prior", (batch, 256, 16, 16)),
        "motion_cond": arr("motion", (batch, 2, frames - 1, 64, 64)),
        "num_frames": frames,
    }


def test_a_batch_is_its_samples_one_by_one(video):
    given = conditions()
    together = video([0, 2], **given, **embeds(generator=seeds(5, 6))).frames
    for number, (label, seed) in enumerate([(0, 5), (2, 6)]):
        one = {k: v[number : number + 1] if torch.is_tensor(v) else v for k, v in given.items()}
        alone = video([label], **one, **embeds(generator=seeds(seed))).frames
        assert difference(together[number : number + 1], alone) < 1e-5


def test_noise_is_a_samples_own(image):
    noise = [image._initial_latents((len(s), 4, 8, 8), seeds(*s), None) for s in ([3, 4, 5], [4])]
    assert torch.equal(noise[0][1:2], noise[1])
    in_order = image._initial_latents(
        (2, 4, 8, 8), seeds(3)[0], None
    )  # one generator for all: drawn in order
    assert torch.equal(in_order[0], noise[0][0]) and not torch.equal(in_order[1], noise[0][1])


def test_correlated_noise_is_standard_normal_and_the_samples_own(video):
    shape, c = (2, 4, 6, 32, 32), 0.7
    noise = video._initial_latents(shape, seeds(3, 4), None, c)
    assert abs(float(noise.std()) - 1) < 0.02
    for sample in noise:
        found = torch.corrcoef(sample.transpose(0, 1).flatten(1))  # of the six frames
        assert (found[~torch.eye(6, dtype=torch.bool)] - c).abs().max() < 0.05
    assert torch.equal(video._initial_latents((1, *shape[1:]), seeds(4), None, c)[0], noise[1])
    alike = video._initial_latents(shape, seeds(3, 4), None, 1.0)
    assert torch.equal(alike[:, :, 0], alike[:, :, 5]) and not torch.equal(alike[0], alike[1])
    given = arr("noise", shape)
    assert torch.equal(video._initial_latents(shape, None, given, c), given)


def test_the_same_seed_gives_the_same_images(image):
    prior = arr("prior", (1, 256, 16, 16))
    one, same, other = (
        image(1, image_cond=prior, **embeds(generator=seeds(seed))).images for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_guidance_is_its_formula(image):
    """One step of DDIM by hand, with both branches computed separately."""
    prior, noise = arr("prior", (1, 256, 16, 16)), arr("noise", (1, 4, 8, 8))
    given = embeds(latents=noise, num_inference_steps=1, guidance_scale=3.0)
    got = image([1], image_cond=prior, **given).images
    timestep = image.scheduler.timesteps[0]
    with torch.no_grad():
        branch = [
            image.unet(noise, timestep, EMPTY, image_cond=p, class_labels=torch.tensor([1])).sample
            for p in (torch.zeros_like(prior), prior)
        ]
    alpha = image.scheduler.alphas_cumprod[timestep]
    predicted = branch[0] + 3 * (branch[1] - branch[0])
    clean = (noise - (1 - alpha).sqrt() * predicted) / alpha.sqrt()
    final = image.scheduler.final_alpha_cumprod
    expected = final.sqrt() * clean + (1 - final).sqrt() * predicted
    assert difference(got, expected) < 1e-5


@pytest.mark.parametrize("contrast_with", ["mean", "nearest"])
def test_class_contrast_is_its_formula(image, contrast_with):
    """One step away from the other classes, or the nearest, on top of guidance; each branch computed separately."""
    prior, noise = arr("prior", (1, 256, 16, 16)), arr("noise", (1, 4, 8, 8))
    seen = []
    image.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    given = embeds(latents=noise, num_inference_steps=1, guidance_scale=3.0, class_contrast=2.0)
    got = image([1], image_cond=prior, contrast_with=contrast_with, **given).images
    assert seen == [4]  # unconditional, two other classes, conditional
    timestep = image.scheduler.timesteps[0]

    def predicted(class_id, shown):
        labels = torch.tensor([class_id])
        with torch.no_grad():
            return image.unet(noise, timestep, EMPTY, image_cond=shown, class_labels=labels).sample

    own, without = predicted(1, prior), predicted(1, torch.zeros_like(prior))
    others = [predicted(0, prior), predicted(2, prior)]
    distances = [(other - own).square().sum() for other in others]
    other = sum(others) / 2 if contrast_with == "mean" else others[0 if distances[0] < distances[1] else 1]
    combined = without + 3 * (own - without) + 2 * (own - other)
    expected = image.scheduler.step(combined, timestep, noise).prev_sample
    assert difference(got, expected) < 1e-5


def test_the_nearest_class_is_each_samples_own():
    own = torch.zeros(3, 4, 2, 8, 8)
    near, far = torch.full_like(own, 0.1), torch.full_like(own, -0.3)
    others = [torch.stack([near[0], far[1], far[2]]), torch.stack([far[0], near[1], far[2]]), far.clone()]
    others[2][2] = near[2]
    assert torch.equal(nearest(own, others), near)
    assert torch.equal(nearest(own, others[:1]), others[0])


@pytest.mark.parametrize("contrast_with", ["mean", "nearest"])
def test_class_contrast_alone_and_in_an_interval(image, contrast_with):
    batches = []
    image.unet.register_forward_pre_hook(lambda module, args: batches.append(args[0].shape[0]))
    given = {"guidance_scale": 1.0, "guidance_interval": (200, 999), "class_contrast": 2.0}
    given["contrast_with"] = contrast_with
    prior = arr("prior", (2, 256, 16, 16))
    both = image([0, 2], image_cond=prior, **embeds(generator=seeds(5, 6), **given)).images
    assert batches == [6, 2]  # timesteps 501 and 1: three classes of two samples, then the samples' own alone
    alone = image([2], image_cond=prior[1:], **embeds(generator=seeds(6), **given)).images
    assert difference(both[1:], alone) < 1e-5  # each sample against the classes that are others to it
    plain = image(
        [2],
        image_cond=prior[1:],
        **embeds(generator=seeds(6), **{**given, "class_contrast": 0.0, "contrast_with": "mean"}),
    ).images
    assert difference(alone, plain) > 1e-4


def test_class_contrast_needs_classes(vae):
    unet = UNet2DMultiConditionModel(**{**SMALL_UNET, "num_class_embeds": None}).eval()
    pipeline = GenImagePipeline(vae, unet, make_scheduler())
    with pytest.raises(UserError, match="class contrast needs other classes, the model has none"):
        pipeline([0], **embeds(generator=seeds(0), class_contrast=2.0))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"scale": number} for number in (float("nan"), float("inf"), -1)),
        *({"class_contrast": number} for number in (float("nan"), -2)),
        {"class_contrast": 1, "contrast_with": "furthest"},
        {"contrast_with": "nearest"},  # of weight 0
        *({"interval": interval} for interval in ((800, 200), (-1, 5), (1000, 1500))),
    ],
)
def test_guidance_that_is_none(wrong):
    with pytest.raises(UserError):
        Guidance(**wrong)


def test_without_guidance_only_one_branch_runs(image):
    batches = []
    image.unet.register_forward_pre_hook(lambda module, args: batches.append(args[0].shape[0]))
    prior = arr("prior", (1, 256, 16, 16))
    image([1], image_cond=prior, **embeds(guidance_scale=1.0, generator=seeds(0)))
    assert batches == [1, 1]
    image([1], image_cond=prior, **embeds(guidance_scale=2.0, generator=seeds(0)))
    assert batches[2:] == [2, 2]


def test_guidance_interval(image):
    """Outside the interval the conditional branch runs alone; inside it nothing changes."""
    batches = []
    image.unet.register_forward_pre_hook(lambda module, args: batches.append(args[0].shape[0]))
    prior = arr("prior", (1, 256, 16, 16))

    def run(interval, scale=4.0):
        given = embeds(guidance_scale=scale, generator=seeds(0), guidance_interval=interval)
        return image([1], image_cond=prior, **given).images

    everywhere = run(None)  # timesteps 501 and 1
    assert torch.equal(run((0, 999)), everywhere) and batches == [2, 2, 2, 2]
    assert not torch.equal(run((200, 999)), everywhere) and batches[4:] == [2, 1]
    assert difference(run((600, 999)), run(None, scale=1.0)) < 1e-5 and batches[6:] == [1, 1, 1, 1]


def test_text_reaches_the_model(vae, image, video, text):
    with pytest.raises(ValueError, match="no text encoder"):
        image([0], **COMMON)
    for pipeline in (
        GenImagePipeline(vae, image.unet, make_scheduler(), **text),
        GenVideoPipeline(vae, video.unet, make_scheduler(), **text),
    ):
        pipeline.set_progress_bar_config(disable=True)
        extra = {"num_frames": 2} if isinstance(pipeline, GenVideoPipeline) else {}

        def run(prompt, pipeline=pipeline, extra=extra):
            return pipeline([0], prompt=prompt, generator=seeds(0), **extra, **COMMON)[0]

        assert torch.equal(run(None), run("")) and torch.equal(run(""), run([""]))
        assert difference(run("solid nodule"), run("")) > 1e-4
        two = pipeline([0, 0], prompt=["", "solid nodule"], generator=seeds(0, 0), **extra, **COMMON)[0]
        assert difference(two[1:], run("solid nodule")) < 1e-5


class TwoPoints(torch.nn.Module):
    """Predicts the noise exactly, for data that lie near -0.8 and 0.8: the equation has one solution."""

    def forward(self, x, timestep, conditions, deep):
        alpha = make_scheduler().alphas_cumprod[int(timestep)]
        mean, variance = alpha.sqrt() * 0.8, alpha * 0.04 + 1 - alpha
        score = -(x - mean * torch.tanh(x * mean / variance)) / variance
        return UNetOutput(sample=-(1 - alpha).sqrt() * score)


@pytest.mark.parametrize(("solver", "steps"), [("ddim", 100), ("dpmsolver++", 50), ("unipc", 50)])
def test_solvers_solve_the_same_equation(image, monkeypatch, solver, steps):
    monkeypatch.setattr(image.unet, "forward", TwoPoints().forward)
    given = embeds(latents=arr("noise", (1, 4, 64, 64)), guidance_scale=1.0, height=512, width=512)
    reference = image([1], **{**given, "num_inference_steps": 200}).images
    image.scheduler = make_scheduler(solver)
    assert difference(image([1], **{**given, "num_inference_steps": steps}).images, reference) < 0.06
    assert reference.abs().mean().item() == pytest.approx(0.8, abs=0.02)


def test_kept_deep_features(image):
    """Between two whole steps only the outermost layer runs; an interval of 1 changes nothing."""
    deepest = []
    image.unet.mid_block.register_forward_pre_hook(lambda module, args: deepest.append(len(args[0])))
    prior = arr("prior", (1, 256, 16, 16))

    def run(interval, **more):
        deepest.clear()
        noise = ClipConditionsBatch(torch.tensor([1]), ("",), torch.as_tensor(prior))
        given = {"prompt_embeds": EMPTY, "negative_prompt_embeds": EMPTY, "num_inference_steps": 5}
        return image.sample(noise, (1, 64, 64), **given, generator=seeds(0), output_type="latent",
                            cache_interval=interval, **more)  # fmt: skip

    whole = run(1)
    assert deepest == [2] * 5
    kept = run(2)
    assert deepest == [2] * 3 and 1e-4 < difference(kept, whole) < difference(run(5), whole)
    # timesteps 801, 601, 401, 201, 1: guidance ends after the second, and begins again never
    within = run(5, guidance=Guidance(4.0, (500, 999)))
    assert deepest == [2] and torch.isfinite(within).all()
    run(
        5, guidance=Guidance(4.0, (300, 700))
    )  # the first step has no other branch whose features could be kept
    assert deepest == [1, 2]


def test_a_fresh_step_is_an_uncached_one(image):
    """Step by step: as long as everything was computed, latents are those without caching, bit for bit."""
    prior = arr("prior", (1, 256, 16, 16))

    def latents(**caching):
        seen = []
        image.sample(
            ClipConditionsBatch(torch.tensor([1]), ("",), torch.as_tensor(prior)), (1, 64, 64),
            prompt_embeds=EMPTY, negative_prompt_embeds=EMPTY, num_inference_steps=6, generator=seeds(0),
            output_type="latent", callback=lambda _, step, t, now: seen.append(now["latents"].clone()), **caching,
        )  # fmt: skip
        return seen

    off = latents()
    assert all(torch.equal(*pair) for pair in zip(off, latents(cache_interval=1), strict=True))
    even = [torch.equal(*pair) for pair in zip(off, latents(cache_interval=2), strict=True)]
    assert even == [True] + [False] * 5
    # the three fresh steps lie closest together at the start: 0, 1 and 2
    early = [
        torch.equal(*pair) for pair in zip(off, latents(cache_interval=2, cache_center=0.0), strict=True)
    ]
    assert early == [True] * 3 + [False] * 3


@pytest.mark.parametrize("center", [None, 0, 0.3, 0.5, 1])
@pytest.mark.parametrize(("steps", "interval"), [(50, 5), (20, 3), (7, 2), (5, 5), (3, 9), (200, 4), (12, 1)])
def test_fresh_steps_are_as_many_wherever_they_lie(steps, interval, center):
    chosen = sorted(fresh_steps(steps, interval, center))
    assert chosen[0] == 0 and chosen[-1] < steps and len(chosen) == -(-steps // interval)


def test_fresh_steps_lie_closest_around_the_center():
    chosen = np.array(sorted(fresh_steps(200, 5, 0.3)))
    gaps = np.diff(chosen)
    middle = int(np.abs(chosen - 60).argmin())
    assert (
        gaps[middle] <= 2 and (np.diff(gaps[middle + 2 :]) >= -1).all() and gaps[-1] >= 3 * gaps[middle + 1]
    )
    assert (np.diff(gaps[: middle - 1]) <= 1).all() and gaps[0] >= 7
    assert sorted(fresh_steps(200, 5)) == list(range(0, 200, 5))


def test_windows_of_a_long_clip():
    def bounds(*given):
        return [(window.start, window.stop) for window in context_windows(*given)]

    assert bounds(32, 8) == [(start, start + 8) for start in range(0, 25, 4)]
    assert bounds(11, 8, 4) == [(0, 8), (3, 11)]  # the last one ends with the clip
    assert bounds(16, 8, 8) == [(0, 8), (8, 16)]
    assert bounds(8, 8) == bounds(8, None) == bounds(8, 20) == [(0, 8)]


def test_windows_are_blended_by_pyramids():
    windows = context_windows(6, 4, 2)
    parts = [torch.full((1, 4, 1, 1, 1), float(number)) for number in (1, 4)]
    # weights 1 2 2 1 and, two frames later, again: frames 2 and 3 are of both
    expected = [1, 1, (2 * 1 + 1 * 4) / 3, (1 * 1 + 2 * 4) / 3, 4, 4]
    assert blend(parts, windows).flatten().tolist() == pytest.approx(expected)
    same = torch.randn(2, 6, 4, 3, 3)
    assert torch.allclose(blend([same[:, window] for window in windows], windows), same, atol=1e-6)
    assert blend([same], windows[:1]) is same


def test_a_long_clip_step_by_hand(video):
    """Each window is what the model says of it alone; the step follows their weighted mean."""
    given, noise = conditions(batch=1, frames=5), arr("noise", (1, 4, 5, 8, 8))
    batch = ClipConditionsBatch(
        torch.tensor([1]), ("",), torch.as_tensor(given["image_cond"]),
        torch.as_tensor(given["motion_cond"]).transpose(1, 2),
    )  # fmt: skip
    shared = {
        "prompt_embeds": EMPTY,
        "guidance": Guidance(1.0),
        "num_inference_steps": 1,
        "output_type": "latent",
    }
    long = video.sample(
        batch, (5, 64, 64), latents=noise, context_length=3, context_stride=2, **shared
    )  # (1, 4, 5, 8, 8)
    with torch.no_grad():
        said = [
            video.unet(
                noise[:, :, start : start + 3], 1, EMPTY, given["image_cond"],
                given["motion_cond"][:, :, start : start + 2], torch.tensor([1]),
            ).sample
            for start in (0, 2)
        ]  # fmt: skip
    whole = torch.cat(
        [said[0][:, :, :2], (said[0][:, :, 2:] + said[1][:, :, :1]) / 2, said[1][:, :, 1:]], dim=2
    )
    scheduler = make_scheduler()
    scheduler.set_timesteps(1)
    expected = scheduler.step(whole, scheduler.timesteps[0], noise).prev_sample
    assert int(scheduler.timesteps[0]) == 1 and difference(long, expected) < 1e-5
    assert difference(video.sample(batch, (5, 64, 64), latents=noise, **shared), expected) > 1e-4
    # no longer than a window: the clip as a whole, bit for bit
    short, same = (
        video.sample(batch, (5, 64, 64), latents=noise, context_length=length, **shared)
        for length in (None, 5)
    )
    assert torch.equal(short, same)


def test_spacings_and_schedules_without_signal_at_the_end():
    velocity = NoiseSchedule("v_prediction", rescale_betas_zero_snr=True)
    for solver in SOLVERS:
        for schedule, spacing, first in ((None, None, 951), (None, "trailing", 999), (velocity, None, 999)):
            scheduler = make_scheduler(solver, schedule, spacing)
            scheduler.set_timesteps(20)
            assert int(scheduler.timesteps[0]) == first or (solver, first) != ("ddim", 951)
            assert scheduler.config.prediction_type == (schedule or NoiseSchedule()).prediction_type
        with pytest.raises(UserError, match="leave the start out"):
            make_scheduler(solver, velocity, "leading")
    with pytest.raises(UserError, match="no timestep spacing"):
        make_scheduler("ddim", None, "karras")


def test_unknown_solver():
    with pytest.raises(UserError, match="dpmsolver"):
        make_scheduler("euler-maruyama")


def test_the_methods_scheduler():
    scheduler = make_scheduler()
    scheduler.set_timesteps(200)
    assert scheduler.timesteps.tolist() == list(range(996, 0, -5))
    config = scheduler.config
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    assert not config.set_alpha_to_one and not config.clip_sample and config.steps_offset == 1


def test_outputs(video, image):
    given = {"num_frames": 2, "generator": seeds(0)}

    def run(kind):
        given["generator"] = seeds(0, 1)
        return video([0, 1], **given, **embeds(output_type=kind)).frames

    array, tensor, pictures, latents = (run(kind) for kind in ("np", "pt", "pil", "latent"))
    assert (
        array.shape == (2, 2, 64, 64) and array.dtype == np.float32 and 0 <= array.min() <= array.max() <= 1
    )
    assert tensor.shape == (2, 1, 2, 64, 64) and latents.shape == (2, 4, 2, 8, 8)
    assert np.array_equal(tensor[:, 0].numpy(), array)
    assert isinstance(pictures[1][0], Image.Image)
    assert np.array_equal(np.asarray(pictures[1][0]), to_uint8(array)[1, 0])
    # decoding: latents / 0.18215, then [-1, 1] -> [0, 1]
    with torch.no_grad():
        decoded = video.vae.decode(latents[1, :, 0][None] / 0.18215).sample / 2 + 0.5
    assert np.allclose(decoded.clamp(0, 1)[0, 0].numpy(), array[1, 0], atol=1e-5)
    assert image(0, **embeds(output_type="np", generator=seeds(0))).images.shape == (1, 64, 64)
    assert image(0, **embeds(output_type="pil", generator=seeds(0)), return_dict=False)[0][0].size == (64, 64)


def test_pixels_are_truncated():
    assert to_uint8(np.array([0.0, 0.999, 1.0, 1.5, -1.0, 0.5])).tolist() == [0, 254, 255, 255, 0, 127]


def test_callback_sees_and_changes_latents(image):
    seen = []

    def callback(pipeline, step, timestep, values):
        seen.append((step, timestep))
        return {"latents": torch.zeros_like(values["latents"])} if step == 1 else None

    out = image([0], **embeds(generator=seeds(0), callback_on_step_end=callback)).images
    assert seen == [(0, 501), (1, 1)] and not out.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_labels": [3]}, "classes 0 to 2"),
        ({"class_labels": [-1]}, "classes 0 to 2"),
        ({"output_type": "gif"}, "output_type"),
        ({"generator": seeds(1, 2)}, "2 generators for 1 samples"),
        ({"latents": torch.zeros(1, 4, 9, 9)}, "latents have shape"),
        ({"prompt": "both"}, "not both"),
        ({"prompt_embeds": torch.zeros(3, 7, 768)}, "prompt_embeds has shape"),
        ({"height": 72}, "divisible by 8"),
    ],
)
def test_wrong_arguments_are_named(image, changes, message):
    with pytest.raises(ValueError, match=message):
        image(**{"class_labels": [0], **embeds(), **changes})


def test_low_precision(video):
    given = conditions(batch=1, frames=2)
    expected = video([1], **given, **embeds(generator=seeds(0))).frames
    video.unet.to(torch.bfloat16)
    low = video([1], **given, **embeds(generator=seeds(0))).frames
    assert low.dtype == torch.float32 and difference(low, expected) < 0.1


@pytest.mark.parametrize("kind", ["image", "video"])
def test_saving_and_loading(kind, request, tmp_path, text):
    pipeline = request.getfixturevalue(kind)
    whole = type(pipeline)(pipeline.vae, pipeline.unet, pipeline.scheduler, **text)
    whole.save_pretrained(tmp_path / "model")
    again = type(pipeline).from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    whole.set_progress_bar_config(disable=True)
    extra = {"num_frames": 2} if kind == "video" else {}
    results = [p([0], prompt="a", generator=seeds(0), **extra, **COMMON)[0] for p in (whole, again)]
    assert torch.equal(*results)
