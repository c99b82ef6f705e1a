"""Distances against plain loops; a copied clip is found, its source named, and others are not flagged."""

from __future__ import annotations

import numpy as np
import pytest

from augment.quality.similarity import (
    cosine_distances,
    mean_pairwise,
    nearest_real,
    pixel_distances,
    thumbnail,
    twins,
)


def test_distances_are_those_of_plain_loops():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(300, 3, 2, 4)), draw.normal(size=(5, 3, 2, 4))
    pixels, cosines = pixel_distances(one, other), cosine_distances(one, other)
    assert pixels.shape == cosines.shape == (300, 5)
    for i, j in ((0, 0), (299, 4), (256, 2)):
        assert pixels[i, j] == pytest.approx(np.sqrt(((one[i] - other[j]) ** 2).mean()))
        frames = [
            (a.ravel() @ b.ravel()) / np.linalg.norm(a) / np.linalg.norm(b)
            for a, b in zip(one[i], other[j], strict=True)
        ]
        assert cosines[i, j] == pytest.approx(1 - np.mean(frames), abs=1e-5)
    assert np.allclose(np.diag(pixel_distances(other, other)), 0, atol=1e-6)
    assert np.allclose(np.diag(cosine_distances(other, other)), 0, atol=1e-6)


def test_diversity_counts_pairs_of_different_clips():
    distances = np.array([[0.0, 1, 2], [1, 0, 6], [2, 6, 0]])
    assert mean_pairwise(distances) == 3
    assert mean_pairwise(distances[:1, :1]) is None
    clips = np.repeat(np.random.default_rng(0).normal(size=(1, 8, 32, 32)), 4, 0)
    assert mean_pairwise(pixel_distances(clips, clips)) == pytest.approx(
        0, abs=1e-6
    )  # four copies: no diversity


def test_thumbnails_average_areas():
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64), dtype=np.uint8)
    expected = frames.reshape(8, 32, 2, 32, 2).mean((2, 4))
    np.testing.assert_allclose(thumbnail(frames), expected, atol=0.51)


def test_a_copy_is_flagged_and_its_source_named():
    draw = np.random.default_rng(3)
    real = draw.uniform(0, 255, (40, 8, 32, 32))
    patients = [f"p{index // 2}" for index in range(40)]
    real[1::2] = real[::2] + draw.normal(
        0, 2, real[::2].shape
    )  # a patient's clips are alike: that is no reference
    fresh = draw.uniform(0, 255, (10, 8, 32, 32))
    copies = real[[5, 12]] + draw.normal(0, 3, (2, 8, 32, 32))
    synthetic = np.concatenate([fresh, copies])
    for distances in (pixel_distances, cosine_distances):
        found = nearest_real(distances(synthetic, real), distances(real, real), patients, quantile=0.01)
        assert found.flagged.tolist()[-2:] == [True, True]
        assert found.index[-2:].tolist() == [5, 12]
        assert found.flagged[:10].sum() <= 1
        assert found.reference.min() > 3 * found.distance[-1]
    assert nearest_real(np.zeros((0, 40)), distances(real, real), patients) is None
    assert nearest_real(distances(synthetic, real), distances(real, real), ["one"] * 40) is None


def test_clips_of_two_patients_names_do_not_hide_copies():
    draw = np.random.default_rng(4)
    real = draw.uniform(0, 255, (40, 8, 32, 32))
    patients = [f"p{index}" for index in range(40)]
    real[20:] = real[:20]  # every patient is there twice
    synthetic = np.concatenate(
        [draw.uniform(0, 255, (5, 8, 32, 32)), real[[3]] + draw.normal(0, 3, (1, 8, 32, 32))]
    )
    drawn = real + draw.normal(
        0, 1, real.shape
    )  # as latents are drawn: one and the same clip has two of them
    same = twins(pixel_distances(real, real), patients)
    assert same.sum() == 40
    for distances, clips in ((pixel_distances, real), (cosine_distances, real), (cosine_distances, drawn)):
        across, among = distances(synthetic, clips), distances(clips, clips)
        assert not nearest_real(
            across, among, patients
        ).flagged.any()  # they lie nearer to each other than any copy
        found = nearest_real(across, among, patients, twins=same)
        assert found.flagged[5] and found.flagged[:5].sum() <= 1 and found.twins == 40
    assert nearest_real(across[:, ::20], among[::20, ::20], ["a", "b"], twins=same[::20, ::20]) is None
    assert not twins(np.zeros((2, 2)), ["one", "one"]).any()
