"""Frechet distances against closed forms and SciPy's matrix root; floors; feature networks by local file."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from augment.quality import networks
from augment.quality.frechet import compare, frechet_distance
from ctrlgenaug.errors import UserError


def by_matrix_root(one, other):
    s1, s2 = np.cov(one.T), np.cov(other.T)
    shift = one.mean(0) - other.mean(0)
    return shift @ shift + np.trace(s1) + np.trace(s2) - 2 * np.trace(sqrtm(s1 @ s2)).real


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_matrix_root(seed):
    draw = np.random.default_rng(seed)
    one = draw.normal(size=(200, 6)) @ draw.normal(size=(6, 6))
    other = draw.normal(size=(150, 6)) @ draw.normal(size=(6, 6)) + 1
    assert frechet_distance(one, other) == pytest.approx(by_matrix_root(one, other), rel=1e-8)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-8)


def test_closed_forms():
    line = np.array([[-1.0], [1.0]]) * np.sqrt(0.5)  # mean 0, variance 1
    assert frechet_distance(line, line + 3) == pytest.approx(9)
    assert frechet_distance(line, 4 * line) == pytest.approx((4 - 1) ** 2)
    # commuting covariances diag(a), diag(b): sum of (sqrt(a) - sqrt(b))^2
    axes = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(2.5)  # covariance is the identity
    scales = np.array([1.0, 2.0, 5.0])
    np.testing.assert_allclose(np.cov(axes.T), np.eye(3), atol=1e-12)
    assert frechet_distance(axes, axes * scales) == pytest.approx(((scales - 1) ** 2).sum())


def test_a_set_with_itself_is_zero_and_noise_adds():
    real = np.random.default_rng(0).normal(size=(40, 200))  # fewer samples than features
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(1).normal(size=real.shape)
    values = [frechet_distance(real, real + size * noise) for size in (0, 0.3, 1, 3)]
    assert values == sorted(values) and values[-1] > 10 * max(values[1], 1)


def test_large_sets_equal_small_ones_in_arithmetic():
    draw = np.random.default_rng(5)
    one, other = draw.normal(size=(500, 4)), draw.normal(size=(3, 4))
    assert frechet_distance(one, other) == pytest.approx(by_matrix_root(one, other), rel=1e-6, abs=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(one[:1], other)


def test_the_floor_is_what_real_clips_score():
    draw = np.random.default_rng(2)
    patients = [f"p{index // 4}" for index in range(80)]
    real = draw.normal(size=(80, 3))
    alike, unlike = draw.normal(size=(90, 3)), draw.normal(size=(90, 3)) + 2
    good, bad = (compare(real, patients, synthetic, draws=20) for synthetic in (alike, unlike))
    assert good.floor == bad.floor and good.floor.size == 40 and good.floor.draws == 20
    assert abs(good.matched.mean - good.floor.mean) < 3 * (good.floor.deviation + good.matched.deviation)
    assert bad.matched.mean > 10 * bad.floor.mean
    assert good == compare(real, patients, alike, draws=20)
    assert good.value == frechet_distance(real, alike) and (good.real, good.synthetic) == (80, 90)
    assert compare(real[:1], patients[:1], alike) is None
    few = compare(real[:8], patients[:8], alike)
    assert few.floor is None and few.matched is None


def test_halves_are_of_patients_and_mix_the_classes():
    # a patient's clips are all alike and classes lie far apart: halves by clip, or by unmixed classes, would show
    patients = np.repeat(np.arange(12), 5)
    strata = (np.arange(12) >= 8).astype(int)[patients]
    offsets = np.random.default_rng(0).normal(size=12)
    real = np.stack([100.0 * strata, offsets[patients]], 1)
    result = compare(real, patients, real, draws=30, strata=strata)
    assert result.floor.size == 30
    assert result.floor.mean < 5  # the class axis is the same in both halves
    assert compare(real, patients, real, draws=30).floor.mean > 5
    assert result.floor.mean > 1e-3  # no patient in both halves


def network(tmp_path, name="net.pt"):
    class Net(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
        ) -> torch.Tensor:
            x = x.float()
            if x.dim() == 5:
                return torch.stack(
                    [x.mean((1, 2, 3, 4)), x[:, 0, -1].mean((1, 2)), x[:, 2, 1].mean((1, 2))], 1
                )
            return torch.stack([x.mean((1, 2, 3)), x[:, 2].amax((1, 2))], 1)

    torch.jit.script(Net()).save(str(tmp_path / name))
    return tmp_path / name


def test_networks_get_grey_frames_in_three_channels_at_full_range(tmp_path):
    path = network(tmp_path)
    clips = [np.arange(8, dtype=np.uint8)[:, None, None] * np.full((1, 4, 4), 30, np.uint8) for _ in range(3)]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    video = networks.i3d(path, digest, "cpu")
    assert digest[:12] in video.label
    np.testing.assert_allclose(
        video.extract(clips), [[105, 210, 0]] * 3
    )  # last of 16 is frame 7, second is frame 0
    frames = networks.inception(path, None, "cpu").extract(clips)
    assert frames.shape == (3, 8, 2)
    np.testing.assert_allclose(frames[0, :, 1], 30 * np.arange(8))


def test_frames_are_repeated_evenly():
    frames = np.arange(8, dtype=np.uint8)[:, None, None]
    assert networks.repeat_to(frames, 16).ravel().tolist() == [i // 2 for i in range(16)]
    assert networks.repeat_to(frames[:5], 16).ravel().tolist() == [
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
        2,
        3,
        3,
        3,
        4,
        4,
        4,
    ]
    assert networks.repeat_to(np.repeat(frames, 4, 0), 16).ravel().tolist() == [i // 2 for i in range(16)]


def test_files_that_are_not_the_network(tmp_path):
    path = network(tmp_path)
    with pytest.raises(UserError, match="has SHA-256"):
        networks.i3d(path, "0" * 64, "cpu")
    with pytest.raises(UserError, match="does not exist"):
        networks.i3d(tmp_path / "none.pt", None, "cpu")
    path.write_bytes(b"no network")
    with pytest.raises(UserError, match="not a TorchScript file"):
        networks.inception(path, None, "cpu")
