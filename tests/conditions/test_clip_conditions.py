"""A sample's conditions: read from the data set's folders, dropped, batched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ctrlgenaug.conditions.clip import OPTIONAL, PRIOR_SHAPE, ClipConditionsBatch, ConditionReader
from ctrlgenaug.conditions.trajectories import link, save_tracks, still, there_and_back, track
from ctrlgenaug.datasets import Clip, get
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import save_npy

SPEC = get("TUSC")
CLIP = Clip("Nodule43_f16", "Nodule43_f16.avi", "TR4", "The nodule is solid.")
FRAME = Clip("Nodule43_16", "Nodule43_16.png", "TR5", "The nodule is large.")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("TUSC")
    rng = np.random.default_rng(0)
    save_npy(SPEC.prior_path(home, FRAME.name), rng.normal(size=PRIOR_SHAPE).astype(np.float16))
    field = np.zeros((4, 2, 256, 256), np.float32)
    field[:, :, ::8, ::8] = rng.integers(-2, 3, (4, 2, 32, 32)) * 8
    save_npy(SPEC.motion_path(home, CLIP.name), field)
    save_tracks(SPEC.trajectory_path(home, CLIP.name), track(field, 3))
    return home


def test_a_clip_is_read_whole(home):
    conditions = ConditionReader(SPEC, home).read(CLIP)
    field = np.load(SPEC.motion_path(home, CLIP.name))
    assert (conditions.class_id, conditions.text, conditions.num_frames) == (1, CLIP.text, 5)
    assert conditions.prior.dtype == conditions.motion.dtype == torch.float32
    assert (conditions.prior.numpy() == np.load(SPEC.prior_path(home, FRAME.name))).all()
    assert (conditions.motion.numpy() == field).all()
    assert (conditions.trajectories.numpy() == link(field, 3)).all()


def test_an_image_is_the_case_of_one_frame(home):
    conditions = ConditionReader(SPEC, home, num_frames=1).read(FRAME)
    assert conditions.num_frames == 1 and conditions.class_id == 2 and conditions.prior.any()
    assert conditions.motion is None and conditions.trajectories is None
    assert not conditions.without(OPTIONAL).prior.any() and conditions.without(OPTIONAL).motion is None


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_dropped_condition_is_nothing_and_the_rest_stays(home, name):
    reader = ConditionReader(SPEC, home, num_frames=5)
    whole = reader.read(CLIP)
    for without in (whole.without([name]), reader.read(CLIP, dropped=[name])):
        empty = {"image_prior": not without.prior.any(), "motion_field": not without.motion.any()}
        empty["text"] = without.text == ""
        assert empty == {other: other == name for other in OPTIONAL}
        assert without.motion.shape == whole.motion.shape and without.class_id == whole.class_id
        assert torch.equal(without.trajectories, whole.trajectories)
    assert whole.prior.any() and whole.text, "the sample itself was changed"


def test_what_is_not_used_needs_no_file(home, tmp_path):
    conditions = ConditionReader(SPEC, tmp_path, num_frames=6, used=()).read(CLIP)
    assert not conditions.prior.any() and not conditions.motion.any() and conditions.text == ""
    assert (conditions.trajectories.numpy() == still(6)).all()
    ConditionReader(SPEC, tmp_path, used=()).check(CLIP)
    with pytest.raises(UserError, match=r"Nodule43_16\.npy: does not exist"):
        ConditionReader(SPEC, tmp_path, used=("image_prior",)).check(CLIP)
    with pytest.raises(UserError, match=r"has shape \(4, 2, 256, 256\), expected \(7, 2"):
        ConditionReader(SPEC, home, num_frames=8).read(CLIP)
    with pytest.raises(UserError, match="'TR9' is not a class"):
        ConditionReader(SPEC, home).read(Clip(CLIP.name, CLIP.file_name, "TR9"))


def test_a_batch_and_its_unconditional_twin(home):
    reader = ConditionReader(SPEC, home)
    batch = ClipConditionsBatch.stack([reader.read(CLIP), reader.read(CLIP).of_class(2)])
    assert len(batch) == 2 and batch.class_id.tolist() == [1, 2] and batch.text == (CLIP.text,) * 2
    low = batch.to("cpu", torch.bfloat16)
    assert low.prior.dtype == low.motion.dtype == torch.bfloat16
    assert low.trajectories.dtype == torch.int32 and low.class_id.dtype == torch.int64
    twin = batch.unconditional()
    assert not twin.prior.any() and not twin.motion.any() and twin.text == ("", "")
    both = twin.followed_by(batch)
    assert len(both) == 4 and both.class_id.tolist() == [1, 2, 1, 2] and both.text[1:3] == ("", CLIP.text)
    assert torch.equal(both.trajectories[:2], both.trajectories[2:])
    assert torch.equal(both.prior[2:], batch.prior) and not both.prior[:2].any()


def test_class_and_trajectories_cannot_be_dropped(home):
    with pytest.raises(ValueError, match="'trajectories'"):
        ConditionReader(SPEC, home).read(CLIP).without(["trajectories"])


def test_a_longer_clip_goes_there_and_back(home):
    """Its frames are 0 to 4, 3 to 0, 1, ...: what any window of it says is what its real frames say."""
    short = ConditionReader(SPEC, home).read(CLIP)
    long = short.of_length(14)
    assert there_and_back(5, 14).tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3]
    assert long.num_frames == 14 and long.trajectories.shape == (14 * 1024, 14)
    assert torch.equal(long.prior, short.prior) and long.class_id == short.class_id
    assert torch.equal(long.motion[4:8], -short.motion.flip(0))
    batch = ClipConditionsBatch.stack([long])
    for start in (0, 8):  # here frames 0 to 4 run again
        window = batch.within(slice(start, start + 5), 14)
        assert torch.equal(window.motion[0], short.motion)
        assert torch.equal(window.trajectories[0], short.trajectories)
    # on the way back, from frame 4 to 0, the same points are linked, in the other order
    back = batch.within(slice(4, 9), 14).trajectories[0]

    def linked(trajectories, turned):
        frame, cell = np.divmod(trajectories.numpy(), 1024)
        frame = 4 - frame if turned else frame
        numbers = np.where(trajectories.numpy() < 0, -1, frame * 1024 + cell)
        return {row[0]: frozenset(row) - {-1} for row in map(tuple, numbers)}

    assert linked(back, turned=True) == linked(short.trajectories, turned=False)
    assert long.frame_numbers.tolist() == there_and_back(5, 14).tolist() and short.frame_numbers is None
    assert batch.within(slice(4, 9), 14).frame_numbers.tolist() == [[4, 3, 2, 1, 0]]
    assert torch.equal(short.of_length(3).motion, short.motion[:2])
    assert short.of_length(5) is short and batch.within(slice(0, 14), 14) is batch


def test_a_window_keeps_what_lies_in_it(home):
    """Links to points outside of the window are gone, those inside stay, first and in their order."""
    batch = ClipConditionsBatch.stack([ConditionReader(SPEC, home).read(CLIP)])
    window = batch.within(slice(1, 4), 5)
    assert window.motion.shape[1] == 2 and torch.equal(window.motion, batch.motion[:, 1:3])
    assert window.trajectories.shape == (1, 3 * 1024, 3) and window.prior is batch.prior
    assert window.frame_numbers.tolist() == [[1, 2, 3]]
    for point in range(0, 3 * 1024, 97):
        row = batch.trajectories[0, point + 1024].tolist()
        kept = [number - 1024 for number in row if 1024 <= number < 4 * 1024]
        assert window.trajectories[0, point].tolist() == kept + [-1] * (3 - len(kept))


def test_a_batch_without_classes_counts_its_texts_and_says_so(home):
    batch = replace(ClipConditionsBatch.stack([ConditionReader(SPEC, home).read(CLIP)] * 2), class_id=None)
    assert len(batch) == len(batch.unconditional()) == 2 and len(batch.part(slice(1))) == 1
    with pytest.raises(ValueError, match="no class"):
        _ = batch.classes
