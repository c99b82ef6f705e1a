"""Every classifier is built, learns a step, is saved, loaded and asked; checkpoints of other programs; unsafe files."""

from __future__ import annotations

import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from augment import classifiers
from augment.classifiers import zoo
from augment.classifiers.clips import Augmentation, fit_length, resize
from augment.classifiers.weights import read_weights
from ctrlgenaug.errors import UserError

CLASSES = ["CT-0", "CT-1", "CT-234"]


def clips(number=3, size=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, 8, size, size), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return classifiers.build("tiny", 3, 32).eval()


def test_there_are_eleven():
    assert len(set(classifiers.NAMES)) == 11
    assert {"i3d", "slowfast", "r2plus1d", "tpn", "csn", "swin", "timesformer", "uniformerv2"} <= set(
        classifiers.NAMES
    )


@pytest.mark.parametrize("name", [*classifiers.NAMES, "tiny"])
def test_builds_learns_saves_loads_and_scores(name, tmp_path):
    torch.manual_seed(1)
    size = max(32, zoo.recipe(name, 32, 8).multiple_of)
    model = classifiers.build(name, 3, size)
    # one channel, everywhere the clip enters
    assert all(
        layer.in_channels != 3 for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)
    )
    first = next(
        model.recogniser.backbone.parameters()
    )  # clips enter here, and nothing is copied for nothing
    before = first.detach().clone()
    inputs = torch.from_numpy(np.stack([classifiers.standardise(clip) for clip in clips(2, size)]))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    heads = model.train().logits_for_training(inputs)
    assert len(heads) == (2 if name == "tpn" else 1)
    assert all(logits.shape == (2, 3) for _, logits in heads)
    sum(w * nn.functional.cross_entropy(logits, torch.tensor([0, 2])) for w, logits in heads).backward()
    assert all(head.grad.any() for head in model.recogniser.cls_head.parameters())
    optimizer.step()
    assert not torch.equal(first, before)
    optimizer.zero_grad()

    path = tmp_path / "classifier.pth"
    classifiers.save(path, model, name, CLASSES, "MosMed", {"seed": 1})
    expected = classifiers.score(model, clips(2, size))
    del model, optimizer, heads, first
    loaded, info = classifiers.load(path)
    assert info["name"] == name and info["classes"] == CLASSES and info["data_name"] == "MosMed"
    assert info["input_size"] == size and info["settings"] == {"seed": 1}
    scores = classifiers.score(loaded, clips(2, size), batch_size=2)
    assert scores.shape == (2, 3)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    assert classifiers.score(loaded, clips(2, size), features=True).ndim == 2


def test_scores_do_not_depend_on_the_batch(tiny):
    one, many = (classifiers.score(tiny, clips(5), batch_size=size) for size in (1, 4))
    np.testing.assert_allclose(one, many, atol=1e-5)
    assert classifiers.score(tiny, []).shape == (0, 0)


def test_the_standardisation_is_each_frames_own():
    frames = clips(1, 20)[0]
    frames[3] = 0  # a black frame, as at the end of a short case
    result = classifiers.standardise(frames)
    assert result.shape == (1, 8, 20, 20) and result.dtype == np.float32
    for index, frame in enumerate(frames.astype(np.float64)):
        expected = (frame - frame.mean()) / frame.std() if frame.std() else np.zeros_like(frame)
        np.testing.assert_allclose(result[0, index], expected, atol=1e-4)


def test_what_gain_and_offset_change_the_classifier_does_not_see(tiny):
    frames = (clips(1, 32)[0] // 4).astype(np.uint8)
    np.testing.assert_allclose(
        classifiers.score(tiny, [frames]), classifiers.score(tiny, [frames * 2 + 9]), atol=1e-4
    )


def test_resize_and_length():
    frames = clips(1, 64)[0]
    assert resize(frames, 64) is frames
    np.testing.assert_allclose(resize(frames, 32), frames.reshape(8, 32, 2, 32, 2).mean((2, 4)), atol=0.51)
    assert resize(frames, 100).shape == (8, 100, 100)
    assert [int(f[0, 0]) for f in fit_length(np.arange(15, dtype=np.uint8)[:, None, None], 8)] == list(
        range(0, 15, 2)
    )
    assert len(fit_length(frames[:3], 8)) == 8


def test_augmentation_is_a_pure_function_and_keeps_motion():
    frames = np.repeat(clips(1, 40)[:, :1], 4, 1)[0]  # a still clip
    augmentation = Augmentation(noise=0)
    one, same, other = (augmentation(frames, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 1
    np.testing.assert_array_equal(one[0], one[3])  # a still clip stays still: all frames move together
    still = Augmentation(0, 0, 0, 0, 0)(frames, np.random.default_rng(0))
    np.testing.assert_allclose(still, frames, atol=0.01)
    mirrored = Augmentation(1, 0, 0, 0, 0)(frames, np.random.default_rng(0))
    np.testing.assert_allclose(mirrored, frames[..., ::-1], atol=0.01)


# --- other people's checkpoints --------------------------------------------------------------------------------------


def test_mmaction2_1_checkpoints_with_their_log_buffers(tiny, tmp_path):
    from mmengine.logging import HistoryBuffer

    logs = OrderedDict({"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])})
    content = {
        "meta": {"epoch": 3, "seed": np.int64(3), "dataset_meta": {}},
        "state_dict": {**tiny.weights(), "data_preprocessor.mean": torch.zeros(1)},
        "message_hub": {"log_scalars": logs, "runtime_info": OrderedDict(loss=np.float32(1))},
    }
    torch.save(content, tmp_path / "epoch_3.pth")
    with pytest.raises(UserError, match="does not say which classifier"):
        classifiers.load(tmp_path / "epoch_3.pth")
    model, info = classifiers.load(tmp_path / "epoch_3.pth", name="tiny", input_size=32)
    assert info["classes"] is None
    np.testing.assert_array_equal(classifiers.score(model, clips()), classifiers.score(tiny, clips()))


def test_mmaction2_0_checkpoints(tiny, tmp_path):
    weights = OrderedDict((f"module.{key}", value) for key, value in tiny.weights().items())
    torch.save(
        {"meta": {"mmaction_version": "0.24"}, "state_dict": weights, "optimizer": {}}, tmp_path / "old.pth"
    )
    model, _ = classifiers.load(tmp_path / "old.pth", name="tiny", input_size=32, num_classes=3)
    np.testing.assert_array_equal(classifiers.score(model, clips()), classifiers.score(tiny, clips()))


def test_a_checkpoint_that_would_run_something_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"state_dict": {"a": Harm()}}, tmp_path / "harm.pth")
    with pytest.raises(UserError, match="cannot be loaded safely"):
        read_weights(tmp_path / "harm.pth")
    assert not (tmp_path / "harm").exists()


def test_getattr_in_a_checkpoint_reaches_log_statistics_only(tmp_path):
    class Reach:
        def __reduce__(self):
            from mmengine.logging import HistoryBuffer

            return getattr, (HistoryBuffer, "__init__")

    torch.save({"state_dict": {"a": Reach()}}, tmp_path / "reach.pth", pickle_protocol=2)
    with pytest.raises(UserError, match="cannot be loaded safely"):
        read_weights(tmp_path / "reach.pth")


def test_wrong_checkpoints_say_what_is_wrong(tiny, tmp_path):
    path = tmp_path / "classifier.pth"
    classifiers.save(path, tiny, "tiny", CLASSES, "MosMed")
    with pytest.raises(UserError, match="has 3 classes, not 5"):
        classifiers.load(path, num_classes=5)
    with pytest.raises(UserError, match="is tiny, not i3d"):
        classifiers.load(path, name="i3d")
    torch.save(tiny.weights(), tmp_path / "bare.pth")
    with pytest.raises(UserError, match="does not fit the classifier"):
        classifiers.load(tmp_path / "bare.pth", name="x3d")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        classifiers.load(path)
    with pytest.raises(UserError, match="does not exist"):
        classifiers.load(tmp_path / "none.pth")


def test_unknown_names_and_sizes():
    with pytest.raises(UserError, match="Did you mean i3d"):
        classifiers.build("i3dd", 3)
    with pytest.raises(UserError, match="multiple of 16"):
        classifiers.build("timesformer", 3, 100)


# --- starting from other weights ------------------------------------------------------------------------------------


def test_colour_weights_are_summed_and_the_head_starts_fresh(tmp_path, capsys):
    torch.manual_seed(3)
    colour = classifiers.build("tiny", 400, 32)
    weights = dict(colour.weights())
    name = "backbone.conv1.conv.weight"
    weights[name] = torch.randn(8, 3, 3, 7, 7)
    torch.save({"state_dict": weights}, tmp_path / "kinetics.pth")
    model = classifiers.build("tiny", 3, 32, tmp_path / "kinetics.pth")
    torch.testing.assert_close(model.weights()[name][:, 0], weights[name].sum(1))
    torch.testing.assert_close(
        model.weights()["backbone.layer1.0.conv1.conv.weight"], weights["backbone.layer1.0.conv1.conv.weight"]
    )
    assert "2 of" in capsys.readouterr().err  # weight and bias of the head


def test_position_tables_are_resampled():
    from augment.classifiers.model import _resample_positions

    table = torch.cat([torch.full((1, 4), 9.0), torch.full((16, 4), 2.0)])
    larger = _resample_positions(table, torch.Size([1, 65, 4]))
    assert larger.shape == (1, 65, 4)
    assert torch.all(larger[0, 0] == 9) and torch.allclose(larger[0, 1:], torch.tensor(2.0))


def test_a_users_config(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(
        "model = dict(type='Recognizer3D', backbone=dict(type='ResNet3d', depth=18, pretrained='torchvision://resnet18',"
        " base_channels=4, inflate=((1,1),(1,1),(1,1),(1,1)), norm_cfg=dict(type='SyncBN')),"
        " cls_head=dict(type='I3DHead', num_classes=400, in_channels=32))\n"
    )
    model = classifiers.build(str(config), 5, 32)
    assert classifiers.score(model, clips()).shape == (3, 5)
    classifiers.save(tmp_path / "mine.pth", model, str(config), list("abcde"), "ACDC")
    loaded, _ = classifiers.load(tmp_path / "mine.pth")
    np.testing.assert_allclose(
        classifiers.score(loaded, clips()), classifiers.score(model, clips()), atol=1e-5
    )

    frames = tmp_path / "frames.py"  # a recogniser of frames: their scores are averaged
    frames.write_text(
        "model = dict(type='Recognizer2D', backbone=dict(type='ResNet', depth=18, pretrained=None),"
        " cls_head=dict(type='TSNHead', num_classes=9, in_channels=512, consensus=dict(type='AvgConsensus', dim=1)))\n"
    )
    model = classifiers.build(str(frames), 2, 32)
    assert classifiers.score(model, clips()).shape == (3, 2)
    with pytest.raises(UserError, match="not a readable config"):
        frames.write_text("model = nothing\n")
        classifiers.build(str(frames), 2)


def test_the_recipes_are_plain_data():
    for name in zoo.known():
        recipe = zoo.recipe(name, 256, 8)
        assert recipe is not None and recipe.model["backbone"].get("pretrained") is None
