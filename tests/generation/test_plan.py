"""The plan against the method's rules, read plainly; names in and out."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.generation import plan
from ctrlgenaug import datasets
from ctrlgenaug.datasets import Clip
from ctrlgenaug.errors import UserError


def clips_of(cls, number):
    return [Clip(f"study_{i:04d}_s01", f"study_{i:04d}_s01.avi", cls) for i in range(1, number + 1)]


def plain_reading(names, cls, n):
    """Section 7 word by word, as lines of file names."""
    m = len(names)
    q, r = n // m, n % m
    rng = random.Random(3407)
    out = []
    if q > 0:
        seeds = rng.sample(range(66, 66 + q), q)
        for name in names:
            for seed in seeds:
                out.append(f"{name}_{cls}_{seed}.mp4")
        if r > 0:
            for name in rng.sample(names, r):
                out.append(f"{name}_{cls}_3407.mp4")
    else:
        for name in rng.sample(names, r):
            out.append(f"{name}_{cls}_66.mp4")
    return out


@settings(max_examples=200, deadline=None)
@given(m=st.integers(1, 40), n=st.integers(0, 200))
def test_plan_is_the_methods(m, n):
    clips = clips_of("CT-0", m)
    planned = [sample.file_name for sample in plan.plan_class(clips, n)]
    assert planned == plain_reading([clip.name for clip in clips], "CT-0", n)
    assert len(set(planned)) == n


def test_plan_pinned():
    names = [sample.file_name for sample in plan.plan_class(clips_of("CT-234", 3), 17)]
    every_clip = [f"study_000{i}_s01_CT-234_{seed}.mp4" for i in (1, 2, 3) for seed in (66, 69, 70, 67, 68)]
    assert names == [*every_clip, "study_0002_s01_CT-234_3407.mp4", "study_0003_s01_CT-234_3407.mp4"]


@settings(deadline=None)
@given(m=st.integers(1, 20), q=st.integers(1, 6), more=st.integers(0, 60))
def test_a_folder_can_be_extended(m, q, more):
    clips = clips_of("CT-0", m)
    assert set(plan.plan_class(clips, q * m)) <= set(plan.plan_class(clips, q * m + more))


def test_noise_is_the_seeds_or_the_samples_own():
    first, second = (plan.Sample(f"study_000{i}_s01", "CT-0", 66) for i in (1, 2))
    assert first.noise_seed("shared") == second.noise_seed("shared") == 66
    # pinned: another value would make other clips under the same names
    assert first.noise_seed("own") == int(hashlib.sha256(b"study_0001_s01_CT-0_66.mp4").hexdigest()[:14], 16)
    assert first.noise_seed("own") != second.noise_seed("own")


def test_a_seed_that_meets_the_noise_seeds_never_names_a_file_twice():
    names = [sample.file_name for sample in plan.plan_class(clips_of("CT-0", 2), 2 * 3400 + 1)]
    assert len(names) == len(set(names))


def test_classes_follow_one_another_and_default_to_the_real_count():
    clips = clips_of("CT-1", 3) + [Clip("other_s01", "other_s01.avi", "CT-0")]
    planned = plan.make_plan(clips, ["CT-0", "CT-1"], {"CT-0": None, "CT-1": 4})
    assert [sample.cls for sample in planned] == ["CT-0"] + ["CT-1"] * 4
    assert planned[0].file_name == "other_s01_CT-0_66.mp4"


def test_a_class_without_clips():
    with pytest.raises(UserError, match="class CT-1: .*without a clip"):
        plan.make_plan(clips_of("CT-0", 2), ["CT-1"], {"CT-1": 3})
    assert plan.make_plan(clips_of("CT-0", 2), ["CT-1"], {"CT-1": None}) == []


@settings(deadline=None)
@given(n=st.integers(0, 60), count=st.integers(1, 9))
def test_shards_partition_the_plan(n, count):
    planned = plan.plan_class(clips_of("CT-0", 7), n)
    shards = [plan.take_shard(planned, index, count) for index in range(1, count + 1)]
    assert sorted(sum(shards, []), key=planned.index) == planned
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("data_name", datasets.data_names())
def test_every_data_sets_names_come_back(data_name):
    spec = datasets.get(data_name)
    for cls in spec.classes:
        sample = plan.Sample(spec.clip_name("study_0001_frame01", 3), cls, 3407)
        assert plan.parse_file_name(sample.file_name, spec) == sample


@pytest.mark.parametrize(
    "name", ["x.mp4", "a_b.mp4", "a_CT-0_x.mp4", "_CT-0_66.mp4", "a_CT-0_²3.mp4", "a_CT-9_66.mp4"]
)
def test_foreign_names_are_refused(name):
    with pytest.raises(UserError):
        plan.parse_file_name(name, datasets.get("MosMed"))


def test_folder_names():
    both = ("motion_condition", "image_condition")
    assert plan.folder_name(both) == "cond_im_synthesis_mp4"
    assert plan.folder_name(("image_condition",)) == "cond_i_synthesis_mp4"
    assert plan.folder_name(()) == "cond_c_synthesis_mp4"
    assert plan.folder_name((*both, "text_condition"), "test") == "cond_imt_synthesis_mp4_test"
