"""Each level and reason of the filter against examples worked out by hand."""

import time

import numpy as np
import pytest

from augment.generation.plan import Sample
from augment.quality import noise_filter
from augment.quality.filter_report import counts
from augment.quality.noise_filter import Verdict


def group(clip, losses=(), scores=(), cls="CT-0"):
    number = max(len(losses), len(scores))
    return [
        Verdict(
            Sample(clip, cls, 66 + i),
            loss=losses[i] if losses else None,
            vae_seq=scores[i] if scores else None,
        )
        for i in range(number)
    ]


def reasons(verdicts):
    return [verdict.reason for verdict in verdicts]


def test_cross_entropy_by_hand():
    logits = np.array([[0, 0, 0], [np.log(2), 0, 0], [1000, 0, 0]], dtype=np.float32)
    assert noise_filter.cross_entropy(logits, [1, 0, 1]) == pytest.approx(
        [np.log(3), np.log(2), 1000], rel=1e-6
    )


def test_semantic_keeps_up_to_alpha_times_the_groups_own_mean():
    a = group("a", losses=[0.1, 0.2, 0.6])  # mean 0.3
    b = group("b", losses=[3.0, 1.0])  # mean 2.0: a's losses do not matter here
    assert noise_filter.semantic_level([*a, *b]) == []
    assert reasons(a) == [None, None, "semantic"] and reasons(b) == ["semantic", None]
    assert [v.group_mean for v in a] == pytest.approx([0.3] * 3)
    strict = group("a", losses=[0.1, 0.2, 0.6])
    noise_filter.semantic_level(strict, alpha=0.5)  # 0.15
    assert reasons(strict) == [None, "semantic", "semantic"]
    lax = group("a", losses=[0.1, 0.2, 0.6])
    noise_filter.semantic_level(lax, alpha=2.0)  # 0.6: at the bound is kept
    assert reasons(lax) == [None, None, None]


@pytest.mark.parametrize("number", [2, 3, 7, 10, 49])
def test_equal_losses_all_pass(number):
    same = group("a", losses=[0.1] * number)
    noise_filter.semantic_level(same)
    assert reasons(same) == [None] * number


def test_semantic_with_one_sample_or_a_broken_loss():
    one = group("a", losses=[5.0])
    assert "single sample" in noise_filter.semantic_level(one, alpha=0.5)[0]
    assert reasons(one) == [None]
    broken = group("b", losses=[float("nan"), 1.0, 1.0])
    noise_filter.semantic_level(broken)
    assert reasons(broken) == ["semantic", None, None]


def test_within_cuts_at_the_midpoints_of_the_outer_centroids():
    tight = [10.0, 12.0, 40.0, 42.0, 60.0, 62.0, 90.0, 92.0]
    thresholds = noise_filter.sequence_thresholds(tight)
    assert thresholds.centroids == pytest.approx((11, 41, 61, 91))
    assert (thresholds.low, thresholds.high) == pytest.approx((26, 76))
    verdicts = group("a", scores=tight)
    found, warnings = noise_filter.within_level(verdicts)
    assert found == {"all": thresholds} and not warnings
    assert reasons(verdicts) == ["sequential_low"] * 2 + [None] * 4 + ["sequential_high"] * 2


def test_within_uses_every_score_but_decides_only_about_the_living():
    verdicts = group("a", scores=[10.0, 12.0, 40.0, 42.0, 60.0, 62.0, 90.0, 92.0])
    for verdict in verdicts[2:4]:
        verdict.reason = "semantic"
    thresholds = noise_filter.within_level(verdicts)[0]["all"]
    assert thresholds.centroids == pytest.approx((11, 41, 61, 91))
    assert reasons(verdicts)[2:4] == ["semantic", "semantic"]


def test_within_without_enough_values_or_without_a_score():
    few = group("a", scores=[50.0, 60.0, 70.0, 70.0])
    thresholds, warnings = noise_filter.within_level(few)
    assert thresholds == {"all": None} and "fewer than 4" in warnings[0] and reasons(few) == [None] * 4
    missing = group("a", scores=[50.0, None, 60.0])
    _, warnings = noise_filter.within_level(missing)
    assert reasons(missing) == [None, "no_score", None] and "1 samples have no VAE-Seq" in warnings[1]


def latents(*angles):
    """One 2-dimensional latent a frame, at an angle in degrees."""
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], 1).reshape(len(angles), 2, 1, 1)


def between(verdicts, angles, threshold):
    by_name = {v.sample.file_name: latents(*a) for v, a in zip(verdicts, angles, strict=True)}
    noise_filter.between_level(verdicts, lambda part: [by_name[v.sample.file_name] for v in part], threshold)


def test_between_compares_frames_with_what_is_kept_in_order():
    verdicts = group("a", losses=[0.0] * 4)
    # frame angles: 1 differs by (0, 60) degrees: mean cosine 0.75; 2 equals 1; 3 is 90 degrees from all
    between(verdicts, [(0, 0), (0, 60), (0, 60), (90, 150)], 0.8)
    assert reasons(verdicts) == [None, None, "similar", None]
    assert [v.similarity for v in verdicts] == pytest.approx([None, 0.75, 1.0, 0.0], abs=1e-6)
    assert verdicts[2].nearest == verdicts[1].sample.file_name


def test_between_ignores_dropped_ones_other_groups_and_keeps_the_first():
    a, b = group("a", losses=[0.0] * 3), group("b", losses=[0.0] * 2)
    a[0].reason = "semantic"
    # a: 0 is dropped already, so 1 is kept although equal to it; 2 equals 1. b equals a, but is another clip
    between([*a, *b], [(0, 0), (0, 0), (0, 0), (0, 0), (180, 180)], 0.98)
    assert reasons(a) == ["semantic", None, "similar"] and reasons(b) == [None, None]
    assert b[1].similarity == pytest.approx(-1)


def test_between_is_not_transitive():
    chain = group("a", losses=[0.0] * 3)
    between(chain, [(0, 0), (20, 20), (40, 40)], np.cos(np.radians(25)))
    assert reasons(chain) == [None, "similar", None]  # 2 resembles only 1, which is not kept


def test_between_at_the_threshold_and_with_other_lengths():
    pair = group("a", losses=[0.0] * 2)
    between(pair, [(10, 33), (10, 33)], 1.0)
    assert reasons(pair) == [None, "similar"]
    lengths = group("a", losses=[0.0] * 2)
    between(lengths, [(0, 0), (0, 0, 0)], 0.5)
    assert reasons(lengths) == [None, None] and lengths[1].similarity is None


def test_counts_by_class_and_level():
    a = group("a", losses=[0.0] * 6)
    for verdict, reason in zip(
        a, ["semantic", "sequential_low", "no_score", "similar", "unreadable", None], strict=True
    ):
        verdict.reason = reason
    b = group("b", losses=[0.0], cls="CT-1")
    b[0].reason = "semantic"
    table = counts([*a, *b])
    levels = ("before", "after_semantic", "after_within", "after_between")
    assert [table["CT-0"][key] for key in levels] == [6, 4, 2, 1]
    assert [table["CT-1"][key] for key in levels] == [1, 0, 0, 0]
    assert table["CT-0"]["dropped_no_score"] == 1


def test_ten_thousand_scores():
    noise = np.random.default_rng(0)
    verdicts = [
        Verdict(
            Sample(f"clip{i // 10}", "CT-0", i),
            loss=float(noise.random()),
            vae_seq=float(noise.normal(80, 8)),
        )
        for i in range(10_000)
    ]
    began = time.process_time()
    noise_filter.semantic_level(verdicts)
    thresholds = noise_filter.within_level(verdicts)[0]["all"]
    vectors = {v.sample.file_name: noise.standard_normal((8, 4, 2, 2)) for v in verdicts if v.kept}
    noise_filter.between_level(verdicts, lambda part: [vectors[v.sample.file_name] for v in part])
    print(f"10,000 samples: {time.process_time() - began:.1f} s")
    kept = [v for v in verdicts if v.kept]
    assert 1000 < len(kept) < 6000
    assert all(thresholds.low <= v.vae_seq <= thresholds.high and v.loss <= v.group_mean for v in kept)


def mixture(seed):
    """310 scores around four centres that overlap, rounded as VAE-Seq rounds them."""
    draw = np.random.default_rng(seed)
    groups = ((62, 4, 40), (74, 3, 90), (83, 2, 120), (90, 1.5, 60))
    return np.concatenate([draw.normal(*group) for group in groups]).round(2).tolist()


@pytest.mark.parametrize(
    ("seed", "low", "high"), [(0, 67.817437, 85.949109), (1, 67.733591, 86.001287), (3, 67.313880, 86.102615)]
)
def test_thresholds_are_those_of_ten_starts(seed, low, high):
    """The published filter ran with the ten starts that were scikit-learn's default; one start gives 67.71 and 85.63
    for the first of these mixtures, and other thresholds for other orders of the files."""
    found = noise_filter.sequence_thresholds(mixture(seed))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)
    shuffled = np.random.default_rng(1).permutation(mixture(seed)).tolist()
    assert noise_filter.sequence_thresholds(shuffled).low == pytest.approx(low, abs=1e-5)


def test_thresholds_of_each_class_from_its_own_scores():
    low = group("a", scores=[10.0, 12.0, 40.0, 42.0, 60.0, 62.0, 80.0, 82.0])
    high = group("b", scores=[90.0, 90.2, 93.0, 93.2, 95.0, 95.2, 97.0, 97.2], cls="CT-1")
    shared, _ = noise_filter.within_level([*low, *high])
    assert all(verdict.reason == "sequential_high" for verdict in high)  # published: the smooth class is gone
    for verdict in (*low, *high):
        verdict.reason = None
    own, warnings = noise_filter.within_level([*low, *high], per_class=True)
    assert set(shared) == {"all"} and set(own) == {"CT-0", "CT-1"} and not warnings
    assert (own["CT-0"].low, own["CT-0"].high) == pytest.approx((26, 71))
    assert (own["CT-1"].low, own["CT-1"].high) == pytest.approx((91.6, 96.1))
    assert reasons(high) == ["sequential_low"] * 2 + [None] * 4 + ["sequential_high"] * 2
    few = group("c", scores=[50.0, 51.0], cls="CT-234")
    found, warnings = noise_filter.within_level([*low, *few], per_class=True)
    assert (
        found["CT-234"] is None and "class CT-234: fewer than 4" in warnings[0] and reasons(few) == [None] * 2
    )


def test_taken_back_are_those_that_passed_most_levels_and_lost_least():
    a = group("a", losses=[0.5, 0.2, 0.1, 0.3, 0.4, 0.6])
    order = ["unreadable", "semantic", "sequential_low", "similar", "copy"]
    for verdict, reason in zip(
        a, ["semantic", "semantic", "copy", "similar", "unreadable", None], strict=True
    ):
        verdict.reason = reason
    warnings = noise_filter.readmit(a, 3, order)
    assert [v.readmitted for v in a] == [None, "semantic", None, "similar", None, None]
    assert [v.kept for v in a] == [False, True, False, True, False, True]
    assert warnings == ["class CT-0: 2 dropped samples were taken back to keep 3"]
    assert noise_filter.readmit(a, 3, order) == []
    assert "only 4 of 9" in noise_filter.readmit(a, 9, order)[1]  # never a copy, never an unreadable one
    table = counts(a)["CT-0"]
    assert table["readmitted"] == 3 and table["kept"] == 4 and table["dropped_semantic"] == 2
