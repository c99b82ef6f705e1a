"""What must hold for any weights: independence of samples, conditions, sizes; exact inflation; gradients."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from golden_vectors import SMALL_UNET, arr, difference, official_weights

from cond2img.models import UNet2DMultiConditionModel
from cond2img.models.attention import TransformerBlock
from cond2img.models.conditioning import Conditioning, Trajectories, number_points
from cond2video.models import UNet3DMultiConditionModel, attention, mark_finetuned
from cond2video.models.attention import (
    SequenceTransformerBlock,
    key_frame_attention,
    trajectory_attention,
)
from cond2video.models.unet import FINETUNED
from ctrlgenaug.conditions.clip import ClipConditionsBatch

SIDE = 16  # latents of 128-pixel pictures: four times cheaper than the real ones


@pytest.fixture(scope="module")
def unet3d():
    model = UNet3DMultiConditionModel(**SMALL_UNET)
    model.load_state_dict(official_weights("unet3d"))
    return model.eval()


@pytest.fixture(scope="module")
def unet2d():
    model = UNet2DMultiConditionModel(**SMALL_UNET)
    model.load_state_dict(official_weights("unet2d"))
    return model.eval()


def lines(batch, frames, side=SIDE, seed=0):
    """Random trajectories: each point, then random other points, half of them masked out."""
    points = frames * side * side
    number = torch.arange(points)
    itself = torch.stack([number // side**2, number // side % side, number % side], -1)  # (P, 3)
    order = torch.randint(0, points, (batch, points, frames), generator=torch.Generator().manual_seed(seed))
    order[..., 0] = number
    mask = torch.rand(order.shape, generator=torch.Generator().manual_seed(seed + 1)) > 0.5
    mask[..., 0] = True
    return itself[order].to(torch.int8 if side < 128 else torch.int64), mask


def inputs(batch=2, frames=3, side=SIDE, **changes):
    traj, mask = lines(batch, frames, side)
    made = {
        "sample": arr("x", (batch, 4, frames, side, side)),
        "timestep": torch.arange(batch) * 300 + 5,
        "encoder_hidden_states": arr("text", (batch, 7, 768)),
        "image_cond": arr("prior", (batch, 256, 16, 16)),
        "motion_cond": arr("motion", (batch, 2, frames - 1, 8 * side, 8 * side)) * 3,
        "class_labels": torch.arange(batch) % 3,
        "traj": traj,
        "traj_mask": mask,
    }
    return {**made, **changes}


def take(given, *indices):
    """Samples of a batch."""
    return {name: None if value is None else value[list(indices)] for name, value in given.items()}


@torch.no_grad()
def test_a_batch_is_its_samples_one_by_one(unet3d):
    given = inputs(batch=3)
    together = unet3d(**given).sample
    for number in range(3):
        alone = unet3d(**take(given, number)).sample
        assert difference(together[number : number + 1], alone) < 1e-5


@torch.no_grad()
def test_permuting_the_batch_permutes_the_output(unet3d):
    given = inputs(batch=3)
    straight, turned = unet3d(**given).sample, unet3d(**take(given, 2, 0, 1)).sample
    assert difference(turned, straight[[2, 0, 1]]) < 1e-5


@torch.no_grad()
def test_masked_out_trajectory_entries_have_no_influence(unet3d):
    given = inputs(batch=1)
    garbage = torch.where(given["traj_mask"][..., None], given["traj"], torch.tensor(97, dtype=torch.int8))
    assert not torch.equal(garbage, given["traj"])
    expected, got = unet3d(**given).sample, unet3d(**{**given, "traj": garbage}).sample
    assert torch.equal(got, expected)
    unmasked = unet3d(**{**given, "traj_mask": torch.ones_like(given["traj_mask"])}).sample
    assert difference(unmasked, expected) > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_any_number_of_frames_and_any_size_divisible_by_8(unet3d, frames, size):
    sample = arr("x", (1, 4, frames, *size))
    motion = torch.zeros(1, 2, frames - 1, 8 * size[0], 8 * size[1])
    text, prior, cls = arr("text", (1, 7, 768)), arr("prior", (1, 256, 16, 16)), torch.tensor([[1]])
    out = unet3d(sample, 10, text, image_cond=prior, motion_cond=motion, class_labels=cls).sample
    assert out.shape == sample.shape and out.isfinite().all()


@torch.no_grad()
def test_every_condition_has_its_own_effect(unet3d):
    given = inputs(batch=1)
    complete = unet3d(**given).sample
    changes = {
        "encoder_hidden_states": arr("other text", (1, 7, 768)),
        "image_cond": None,
        "motion_cond": None,
        "class_labels": torch.tensor([1]),
        "traj": None,
        "timestep": torch.tensor([400]),
    }
    for name, value in changes.items():
        changed = unet3d(**{**given, name: value, **({"traj_mask": None} if name == "traj" else {})}).sample
        assert difference(changed, complete) > 1e-4, name


@torch.no_grad()
def test_conditions_encoded_once_give_the_same(unet3d):
    given = inputs()
    sample, timestep = given.pop("sample"), given.pop("timestep")
    once = unet3d.encode_conditions(**given, frames=3)
    assert len(once.cache) == 10  # attentions: 3 going down, 1 in the middle, 2 at each of 3 levels going up
    expected = unet3d(sample, timestep, **given).sample
    assert torch.equal(unet3d(sample, timestep, conditions=once).sample, expected)
    half = unet3d(sample[1:], timestep[1:], conditions=once.last(1)).sample
    assert difference(half, expected[1:]) < 1e-5


@torch.no_grad()
def test_an_inflated_model_is_the_image_model():
    image = UNet2DMultiConditionModel(**SMALL_UNET).eval()
    image.load_state_dict(official_weights("unet2d"))
    sequence = UNet3DMultiConditionModel(**SMALL_UNET).eval()
    missing, unexpected = sequence.load_state_dict(image.state_dict(), strict=False)
    assert missing and not unexpected
    x, text, prior = arr("x", (2, 4, 16, 16)), arr("text", (2, 7, 768)), arr("prior", (2, 256, 16, 16))
    given = {"encoder_hidden_states": text, "image_cond": prior, "class_labels": torch.tensor([0, 2])}
    expected = image(x, 300, **given).sample
    assert torch.equal(sequence(x[:, :, None], 300, **given).sample[:, :, 0], expected)
    sequence.initialise_sequence_parts("official")
    assert difference(sequence(x[:, :, None], 300, **given).sample[:, :, 0], expected) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("init, least, most", [("identity", 0.2, 5.0), ("official", 0.0, 0.01)])
def test_a_movement_of_one_place_of_the_latents_comes_out_as_about_one(init, least, most):
    torch.manual_seed(0)
    model = UNet3DMultiConditionModel(**SMALL_UNET)
    model.initialise_sequence_parts(init)
    moved = torch.zeros(3, 2, 64, 64)
    moved[1, 0], moved[2, 1] = 8, -8
    features = model.motion_encoder(moved)[:, :, 2:-2, 2:-2]  # away from the border
    assert least <= float((features[1:] - features[:1]).std()) <= most


@torch.no_grad()
def test_frame_positions_are_sines_that_sequential_attention_adds():
    """softmax(Q K^T) V of LayerNorm(x) + waves, the waves being those of the transformer's first paper."""
    block = SequenceTransformerBlock(32, 2, 16, with_image=False).eval()
    x, numbers = arr("frames", (2 * 3, 4, 32)), torch.tensor([[0, 1, 2], [5, 4, 3]])
    given = Conditioning(frames=3, text=arr("text", (2, 7, 16)))
    before = TransformerBlock.forward(block, x, (2, 2), given)
    angles = numbers[..., None] * 10000 ** (-torch.arange(16) / 15)  # (2, 3, 16)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
    rows = block.norm_temp(before.view(2, 3, 4, 32)) + waves[:, :, None]
    rows = rows.transpose(1, 2).flatten(0, 1)
    added = block.attn_temp.attend(rows, block.attn_temp.keys_values(rows))
    expected = before + added.view(2, 4, 3, 32).transpose(1, 2).reshape(6, 4, 32)
    found = block(x, (2, 2), replace(given, frame_numbers=numbers))
    assert difference(found, expected) < 1e-5
    assert difference(block(x, (2, 2), given), expected) > 1e-3


def with_official_weights(**addition):
    """The small sequence UNet; an addition has no weight more, none less."""
    model = UNet3DMultiConditionModel(**SMALL_UNET, **addition).eval()
    model.load_state_dict(official_weights("unet3d"))
    return model


def predict(model, conditions, last=2):
    """What the model makes of two clips of three frames, or of the ``last`` of them alone."""
    x, text = arr("x", (6, 4, 32, 32)), arr("text", (2, 7, 768))
    encoded = model.condition(text, conditions, frames=3).last(last)
    return model(x[-3 * last :], 300, conditions=encoded).sample


@torch.no_grad()
def test_only_a_model_with_frame_positions_looks_at_the_frames_numbers():
    plain, placed = with_official_weights(), with_official_weights(frame_positions=True)
    batch = ClipConditionsBatch(torch.tensor([0, 2]), ("", ""))
    later = replace(batch, frame_numbers=torch.tensor([[0, 1, 2], [4, 5, 6]]))

    assert torch.equal(predict(plain, batch), predict(plain, later))
    first, second = predict(placed, batch), predict(placed, later)
    assert torch.equal(first[:3], second[:3])
    assert difference(first[3:], second[3:]) > 1e-4
    assert difference(first, predict(plain, batch)) > 1e-4
    assert difference(predict(placed, later, last=1), second[3:]) < 1e-5


@torch.no_grad()
def test_a_prior_that_follows_the_motion_field_is_seen_where_it_went():
    """The output of attention to the image prior, moved by whole places; text and the frame itself stay."""
    block = TransformerBlock(32, 2, 16, with_image=True).eval()
    attention = block.multi_modal_attn
    x, size = arr("frames", (3, 8 * 8, 32)), (8, 8)
    still = Conditioning(frames=3, text=arr("text", (1, 7, 16)), image=arr("image", (1, 20, 16)))
    origins = torch.zeros(3, 2, 64, 64)
    origins[1, 0], origins[2, 1] = 32, -64  # one place is 32 pixels: one from the right, two from above
    without = attention(x, size, replace(still, image=None))
    seen = (attention(x, size, still) - without).view(3, 8, 8, 32)
    moved = (attention(x, size, replace(still, origins=origins)) - without).view(3, 8, 8, 32)
    assert difference(moved[0], seen[0]) < 1e-5
    assert difference(moved[1][:, :7], seen[1][:, 1:]) < 1e-5
    assert difference(moved[2][2:], seen[2][:6]) < 1e-5
    assert difference(moved[1], seen[1]) > 1e-2


@torch.no_grad()
def test_only_a_model_whose_prior_follows_moves_it_and_only_where_something_moves():
    plain, follows = with_official_weights(), with_official_weights(prior_follows_motion=True)
    motion = torch.zeros(2, 2, 2, 256, 256)
    motion[1, :, 0] = 16  # the second sample's view goes to the right
    batch = ClipConditionsBatch(torch.tensor([0, 2]), ("", ""), arr("prior", (2, 256, 64, 64)), motion)

    expected, found = predict(plain, batch), predict(follows, batch)
    assert difference(found[:3], expected[:3]) < 1e-4  # nothing moves there
    assert difference(found[4], expected[4]) > 1e-4
    assert difference(predict(follows, batch, last=1), found[3:]) < 1e-4
    for changed in (replace(batch, prior=None), replace(batch, motion=None)):
        assert difference(predict(follows, changed), predict(plain, changed)) == 0
    given = replace(batch, origins=torch.zeros(2, 3, 2, 64, 64))  # the places count, where both are given
    assert difference(predict(follows, given), predict(plain, given)) < 1e-4


def naive_key_frame_attention(q, k, v):
    """The definition, frame by frame and head by head. (B, F, N, heads, D)"""
    out = torch.empty_like(q)
    for b in range(q.shape[0]):
        for frame in range(q.shape[1]):
            for head in range(q.shape[3]):
                keys = torch.cat([k[b, 0, :, head], k[b, max(frame - 1, 0), :, head]])
                values = torch.cat([v[b, 0, :, head], v[b, max(frame - 1, 0), :, head]])
                scores = q[b, frame, :, head] @ keys.T / math.sqrt(q.shape[-1])
                out[b, frame, :, head] = scores.softmax(-1) @ values
    return out


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_key_frame_attention_is_its_definition(frames):
    q, k, v = (arr(name, (2, frames, 5, 2, 4)) for name in "qkv")
    torch.testing.assert_close(key_frame_attention(q, k, v), naive_key_frame_attention(q, k, v))


def test_frame_0_sees_only_itself_in_key_frame_attention():
    q, k, v = (arr(name, (1, 4, 5, 2, 4)) for name in "qkv")
    before = key_frame_attention(q, k, v)
    k[:, 1:], v[:, 1:] = k[:, 1:] + 7, v[:, 1:] - 7
    after = key_frame_attention(q, k, v)
    assert torch.equal(before[:, :2], after[:, :2])  # frame 1 sees frame 0 twice
    assert not torch.equal(before[:, 2], after[:, 2])


def test_trajectory_attention_is_its_definition():
    batch, frames, side, heads, dim = 2, 3, 4, 2, 5
    traj, mask = lines(batch, frames, side)
    y = arr("y", (batch, frames * side * side, heads, dim))
    out = trajectory_attention(
        y, Trajectories.from_numbers(number_points(traj, mask, frames), frames, torch.float32)
    )
    for b in range(batch):
        for point in range(y.shape[1]):
            others = [
                int((t * side + r) * side + c)
                for (t, r, c), on in zip(traj[b, point], mask[b, point], strict=True)
                if on
            ]
            for head in range(heads):
                keys = y[b, others, head]
                expected = (keys @ y[b, point, head] / math.sqrt(dim)).softmax(0) @ keys
                torch.testing.assert_close(out[b, point, head], expected)


def test_trajectories_gathered_in_parts_are_the_same(monkeypatch):
    traj, mask = lines(2, 3, 4)
    y = arr("y", (2, 48, 2, 5))
    lines_of = Trajectories.from_numbers(number_points(traj, mask, 3), 3, torch.float32)
    whole = trajectory_attention(y, lines_of)
    monkeypatch.setattr(attention, "GATHERED_AT_ONCE", 500)  # some points at a time
    with torch.no_grad():
        assert torch.equal(trajectory_attention(y, lines_of), whole)


def step(model, given):
    """One training step's gradients."""
    model.train().zero_grad()
    out = model(**given).sample
    F.mse_loss(out, arr("noise", tuple(out.shape))).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_gradients_reach_exactly_the_finetuned_parameters(unet3d):
    model = copy.deepcopy(unet3d)
    names = mark_finetuned(model)
    reached = step(model, inputs(batch=1))
    listed = [n for n, _ in model.named_parameters() if any(part in n for part in FINETUNED)]
    assert sorted(reached) == sorted(names) == sorted(listed)
    # each is really used: no gradient is zero but that of the keys' bias-free projections can be small
    assert all(gradient.abs().max() > 0 for gradient in reached.values())
    assert any("attn2.to_q" in name for name in names) and not any("attn2.to_k" in name for name in names)
    assert not any(name.startswith(("conv_in", "class_embedding", "time", "image_proj")) for name in names)


def test_every_parameter_is_trained_in_the_image_stage(unet2d):
    model = copy.deepcopy(unet2d)
    given = inputs(batch=2)
    image = {n: given[n] for n in ("timestep", "encoder_hidden_states", "image_cond", "class_labels")}
    gradients = step(model, {"sample": arr("x", (2, 4, 16, 16)), **image})
    assert set(gradients) == {name for name, _ in model.named_parameters()}


def test_gradient_checkpointing_changes_nothing_but_the_memory(unet3d):
    model, given = copy.deepcopy(unet3d), inputs(batch=1, frames=2)
    plain = step(model, given)
    model.enable_gradient_checkpointing()
    calls = []
    hook = model.mid_block.resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    again = step(model, given)
    hook.remove()
    assert len(calls) == 2  # once forward, once more on the way back
    assert plain.keys() == again.keys()
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_one_graph_without_breaks():
    model = UNet3DMultiConditionModel(  # two levels instead of four: tracing takes its time
        **{**SMALL_UNET, "block_out_channels": (32, 64)},
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    ).eval()
    given = inputs(batch=1, frames=3, side=8)
    expected = model(**given).sample
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    assert difference(compiled(**given).sample, expected) < 1e-5


@torch.no_grad()
def test_bfloat16_is_close(unet3d):
    given = inputs(batch=1)
    expected = unet3d(**given).sample
    low = copy.deepcopy(unet3d).to(torch.bfloat16)
    got = low(**given).sample
    assert got.dtype == torch.bfloat16
    assert difference(got, expected) < 5e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample": arr("x", (2, 4, 3, 12, 12))}, "divisible by 8"),
        ({"encoder_hidden_states": arr("text", (2, 7, 512))}, "encoder_hidden_states"),
        ({"encoder_hidden_states": None}, "encoder_hidden_states is missing"),
        ({"image_cond": arr("prior", (2, 128, 16, 16))}, "image_cond"),
        ({"motion_cond": arr("m", (2, 2, 3, 128, 128))}, "motion fields have shape"),
        ({"motion_cond": arr("m", (2, 2, 2, 256, 256))}, "128 x 128 pixels"),
        ({"class_labels": None}, "class_labels"),
        ({"class_labels": torch.tensor([1])}, "class_labels"),
        ({"traj": torch.zeros(2, 100, 3, 3, dtype=torch.int8)}, "square grid"),
        ({"traj_mask": torch.ones(2, 100, 3, dtype=torch.bool)}, "traj_mask"),
    ],
)
def test_wrong_inputs_are_named(unet3d, changes, message):
    with pytest.raises(ValueError, match=message):
        unet3d(**inputs(**changes))


def test_an_image_model_takes_no_motion(unet2d):
    with pytest.raises(ValueError, match="no motion field"):
        unet2d(arr("x", (1, 4, 8, 8)), 1, arr("t", (1, 7, 768)), motion_cond=torch.zeros(1, 2, 0, 64, 64))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("insert_strategy", "add", "insert_strategy"),
        ("use_linear_projection", True, "use_linear_projection"),
        ("block_out_channels", (32, 64), "levels"),
        ("norm_num_groups", 48, "48 groups"),
        ("condition_insert_block", (True,), "three values"),
        ("attention_head_dim", (4, 4, 4, 4), "number of heads"),
    ],
)
def test_unknown_architectures_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        UNet3DMultiConditionModel(**{**SMALL_UNET, field: value})


def test_another_spelling_of_the_attention_mode_is_warned_of(caplog):
    model = UNet3DMultiConditionModel(**SMALL_UNET, self_attn_mode="sam-v1")
    assert "sam-v1" in caplog.text and model.config.self_attn_mode == "sam-v1"


def test_a_model_without_motion_or_image_branches():
    model = UNet3DMultiConditionModel(
        **SMALL_UNET, motion_condition=False, condition_insert_block=[False, True, False]
    )
    names = list(model.state_dict())
    assert not any("motion_encoder" in name or "insert_unit" in name for name in names)
    assert {name.split(".")[0] for name in names if "condImage" in name} == {"mid_block"}
    given = inputs(batch=1, frames=2)
    with pytest.raises(ValueError, match="without motion_condition"):
        model(**given)
    assert model(**{**given, "motion_cond": None}).sample.isfinite().all()
