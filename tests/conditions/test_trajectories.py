"""Linking: the official result bit for bit, a plain reading of the method as oracle, files of both kinds."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlgenaug.conditions.trajectories import (
    clip_seed,
    coordinates,
    expand,
    link,
    load_trajectories,
    save_official,
    save_tracks,
    still,
    track,
)
from ctrlgenaug.errors import UserError

GOLDEN = Path(__file__).parent.parent / "golden" / "A_io.npz"


def plain_link(field, seed):
    """docs/method.md section 4, read word by word: dictionaries and loops."""
    moves, contenders = {}, {}
    for t in range(len(field)):
        for row in range(32):
            for col in range(32):
                dx, dy = (round(float(field[t, c, row * 8, col * 8]) / 256 * 32) for c in (0, 1))
                if 0 <= row + dy < 32 and 0 <= col + dx < 32:
                    contenders.setdefault((t + 1, row + dy, col + dx), []).append((t, row, col))
    draw = random.Random(seed)
    for target, sources in contenders.items():  # in the order of first contenders
        keeper = sources[draw.randint(0, len(sources) - 1)] if len(sources) > 1 else sources[0]
        moves[keeper] = target
    came_from = {target: source for source, target in moves.items()}
    points, mask = [], []
    for t in range(len(field) + 1):
        for row in range(32):
            for col in range(32):
                before, after = [], []
                at = (t, row, col)
                while at in came_from:
                    at = came_from[at]
                    before.insert(0, at)
                at = (t, row, col)
                while at in moves:
                    at = moves[at]
                    after.append(at)
                line = [(t, row, col), *before, *after]
                padding = len(field) + 1 - len(line)
                points.append(line + [(0, 0, 0)] * padding)
                mask.append([True] * len(line) + [False] * padding)
    return np.array(points), np.array(mask)


def random_field(seed, num_frames, spread, density=1.0):
    """Vectors at the cells' corners, many of them exactly half a cell."""
    rng = np.random.default_rng(seed)
    field = np.zeros((num_frames - 1, 2, 256, 256), np.float32)
    steps = (
        np.round(rng.normal(0, spread, (num_frames - 1, 2, 32, 32)) * 2) * 4
    )  # whole multiples of 4 pixels
    field[:, :, ::8, ::8] = steps * (rng.random(steps.shape) < density)
    return field


@pytest.mark.parametrize("sample", [0, 1])
def test_the_official_trajectories_come_out_bit_for_bit(sample):
    golden = np.load(GOLDEN)
    points, mask = coordinates(link(golden["motion"][sample], seed=sample))
    assert (points == golden["traj"][sample]).all() and (mask == golden["traj_mask"][sample]).all()
    assert points.dtype == np.int16 and mask.dtype == bool
    others = coordinates(link(golden["motion"][sample], seed=sample + 7))[0]
    assert (others != points).any(), "the draw has no effect, so this test would not see a wrong one"


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_frames=st.integers(1, 9),
    spread=st.sampled_from([0.0, 0.3, 1.0, 4.0, 30.0]),
    density=st.sampled_from([0.05, 0.5, 1.0]),
)
def test_equal_to_a_plain_reading_of_the_method(seed, num_frames, spread, density):
    field = random_field(seed, num_frames, spread, density)
    points, mask = coordinates(link(field, seed))
    plain_points, plain_mask = plain_link(field, seed)
    assert (mask == plain_mask).all() and (points == plain_points).all()


def test_more_than_32_frames_need_wider_numbers_and_get_them():
    field = random_field(0, 40, 1.0)
    tracks = track(field, 3)
    assert tracks.dtype == np.int32
    points, mask = coordinates(expand(tracks))
    plain_points, plain_mask = plain_link(field, 3)
    assert (mask == plain_mask).all() and (points == plain_points).all()


def test_everything_leaves_the_grid():
    points, mask = coordinates(link(np.full((3, 2, 256, 256), 1e9, np.float32), 0))
    assert mask.sum() == len(mask) == 4 * 1024  # each point alone
    assert (points[:, 1:] == 0).all()


def test_all_points_into_one_cell_leave_one_survivor():
    row, col = np.indices((256, 256))
    field = np.stack([128 - col, 128 - row])[None].astype(np.float32)
    _, mask = coordinates(link(field, 5))
    assert mask[:, 1].sum() == 2  # the drawn point and the cell it went to


def test_nothing_moves():
    assert (still(5) == link(np.zeros((4, 2, 256, 256), np.float32), 0)).all()
    assert still(1).tolist() == np.arange(1024)[:, None].tolist()


def test_other_image_sizes_and_bad_fields():
    wide = np.zeros((1, 2, 128, 512), np.float32)
    wide[0, 0], wide[0, 1] = 16, 4  # one cell to the right, one cell down
    points, _ = coordinates(link(wide, 0))
    assert points[0, 1].tolist() == [1, 1, 1] and points[32 * 30 + 30, 1].tolist() == [1, 31, 31]
    with pytest.raises(ValueError, match="multiples of 32"):
        link(np.zeros((1, 2, 100, 256)), 0)
    with pytest.raises(ValueError, match="not finite"):
        link(np.full((1, 2, 256, 256), np.nan), 0)


def test_a_clips_seed_depends_on_its_name_and_the_base_seed_alone():
    assert clip_seed(0, "study_0001_s01") == clip_seed(0, "study_0001_s01") == 1607466710
    assert len({clip_seed(base, name) for base in (0, 1) for name in ("a", "b", "Ü 1")}) == 6


# --- files -------------------------------------------------------------------------------------------------------


def test_the_file_is_small_plain_and_gives_back_the_same(tmp_path):
    field = random_field(1, 8, 1.0)
    path = tmp_path / "clip.npy"
    save_tracks(path, track(field, 9))
    assert path.stat().st_size < 20_000
    np.load(path, allow_pickle=False)
    got, expected = load_trajectories(path, 8), link(field, 9)
    assert (got == expected).all() and got.dtype == expected.dtype == np.int32


def test_the_official_format_goes_out_and_comes_back(tmp_path):
    field = random_field(2, 8, 1.0)
    path = tmp_path / "clip.npy"
    save_official(path, track(field, 9))
    held = np.load(path, allow_pickle=True).item()
    assert held["traj32"].unsqueeze(0).shape == (1, 8192, 16, 3) and held["traj32"].dtype == torch.int64
    assert torch.stack([held["mask32"]]).shape == (1, 8192, 16) and held["mask32"].dtype == torch.bool
    held = {name: tensor.numpy() for name, tensor in held.items()}
    points, mask = coordinates(link(field, 9))
    assert (held["traj32"][:, 0] == points[:, 0]).all() and (held["traj32"][:, 9:] == points[:, 1:]).all()
    assert held["mask32"][:, 1:9].sum(1).reshape(8, 32, 32)[3, 0].tolist() == [3, *[5] * 30, 3]
    middle = 5 * 1024 + 7 * 32 + 9
    around = [(5, 7 + dy, 9 + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    assert held["traj32"][middle, 1:9].tolist() == [list(point) for point in around]
    got, expected = load_trajectories(path, 8), link(field, 9)
    assert (got == expected).all() and got.dtype == expected.dtype


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_official_files_as_bare_pickles_and_of_few_columns(tmp_path, protocol):
    """Where no trajectory is long the official code writes fewer columns; further resolutions are ignored."""
    points, mask = coordinates(link(random_field(3, 8, 30.0), 1))
    longest = mask.sum(1).max()
    assert longest < 8
    neighbours = np.zeros((8192, 8, 3), int)
    value = {
        "traj32": np.concatenate([points[:, :1], neighbours, points[:, 1:longest]], 1).astype(np.int64),
        "mask32": np.concatenate([mask[:, :1], neighbours[..., 0] > 0, mask[:, 1:longest]], 1),
        "traj16": np.zeros((2048, 16, 3), np.int64),
    }
    path = tmp_path / "clip.npy"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    for got, expected in zip(coordinates(load_trajectories(path, 8)), (points, mask), strict=True):
        assert (got == expected).all()


class Malicious:
    def __reduce__(self):
        return print, ("run by the unpickler",)


def _official(**changes):
    points, mask = coordinates(link(np.zeros((7, 2, 256, 256), np.float32), 0))
    wide = np.insert(points.astype(np.int64), [1] * 8, 0, axis=1)
    return {"traj32": wide, "mask32": np.insert(mask, [1] * 8, False, axis=1)} | changes


def _tracks(change):
    tracks = track(np.zeros((7, 2, 256, 256), np.float32), 0)
    tracks[change] = tracks[0, 0, 5]
    return tracks


BAD_FILES = {
    "missing": (None, "does not exist"),
    "empty": (b"", "is empty"),
    "noise": (b"\x00\x01\x02" * 99, "not a readable .npy"),
    "malicious pickle": (pickle.dumps({"traj32": Malicious()}), "not allowed"),
    "truncated pickle": (pickle.dumps(_official())[:5000], "cannot be loaded safely"),
    "no traj32": (pickle.dumps({"a": 1}), "holds no traj32"),
    "not arrays": (pickle.dumps(_official(mask32=[1])), "not an array"),
    "other frame count": (pickle.dumps({k: v[:4096] for k, v in _official().items()}), "traj32 is"),
    "mask of another shape": (pickle.dumps(_official(mask32=np.ones((8192, 5), bool))), "traj32 is"),
    "floats": (pickle.dumps(_official(traj32=_official()["traj32"] * 1.0)), "float64"),
    "outside the grid": (pickle.dumps(_official(traj32=_official()["traj32"] + 32)), "outside the grid"),
    "plain floats": (np.zeros((8, 32, 32)), "not integers"),
    "other length": (np.zeros((7, 32, 32), np.int16), "of a clip of 7 frames, expected 8"),
    "other grid": (np.zeros((8, 16, 16), np.int16), "has shape"),
    "two points in a frame": (_tracks((1, 0, 6)), "two points"),
    "a gap": (_tracks((2, 0, 7)), "does not hold trajectories"),
    "numbers out of range": (np.full((8, 32, 32), 9999, np.int16), "numbered by its first point"),
    "negative numbers": (np.full((8, 32, 32), -1, np.int16), "numbered by its first point"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named(tmp_path, kind, capsys):
    content, expected = BAD_FILES[kind]
    path = tmp_path / "clip.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UserError, match=expected) as caught:
        load_trajectories(path, 8)
    assert str(path) in str(caught.value) and "run by the unpickler" not in capsys.readouterr().out


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "clip.npy"
    save_tracks(path, track(random_field(0, 8, 1.0), 0))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match="not a readable .npy"):
        load_trajectories(path, 8)
