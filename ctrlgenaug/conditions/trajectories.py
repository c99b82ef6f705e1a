"""Trajectories: the points of a coarse grid, linked from frame to frame along the motion field (method, section 4).

A point is a cell (t, row, column) of the 32 x 32 grid of frame t. Every point belongs to exactly one trajectory, and a
trajectory has at most one point a frame, in consecutive frames. So the whole structure is one number a point: which
trajectory it is on. That is what the file holds: ``tracks``, (F, 32, 32) integers, a trajectory being numbered by its
first point (t * 1024 + row * 32 + column). Everything the model wants follows from it, see `expand`.
"""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.plain_data import load_npy, save_npy
from ctrlgenaug.restricted_pickle import load_restricted_pickle

GRID = 32  # cells, height and width: the latents' size
CELLS = GRID * GRID
OFFICIAL_NEIGHBOURS = 8  # columns 1 to 8 of an official file
REMEDY = "Delete it and run extract_motion_field_trajs.py again"


def clip_seed(base_seed: int, clip_name: str) -> int:
    """The seed of a clip's draw: CRC-32 of ``{base_seed}:{clip_name}`` in UTF-8, whatever the order of the clips."""
    return zlib.crc32(f"{base_seed}:{clip_name}".encode())


def cell_displacements(field: np.ndarray) -> np.ndarray:
    """A motion field as whole steps on the grid.

    Args:
        field: (F-1, 2, H, W) pixels, channel 0 = x; H and W multiples of 32.

    Returns:
        (F-1, 2, 32, 32) int64 cells in [-32, 32], channel 0 = columns; halves are rounded to the even neighbour.
    """
    field = np.asarray(field, dtype=np.float32)
    if field.ndim != 4 or field.shape[1] != 2 or field.shape[2] % GRID or field.shape[3] % GRID:
        raise ValueError(
            f"the field must be (F-1, 2, H, W) with H and W multiples of {GRID}, got {field.shape}"
        )
    height, width = field.shape[2:]
    nearest = field[:, :, :: height // GRID, :: width // GRID]  # nearest neighbour: the cell's top left pixel
    if not np.isfinite(nearest).all():
        raise ValueError("the field holds values that are not finite")
    pixels_a_cell = np.array([width, height], dtype=np.float32)[None, :, None, None] / GRID
    return np.rint(np.clip(nearest / pixels_a_cell, -GRID, GRID)).astype(
        np.int64
    )  # 32 cells always leave the grid


def track(field: np.ndarray, seed: int) -> np.ndarray:
    """Links the points of a clip.

    Point (t, row, col) moves to (t+1, row + dy, col + dx) if that is inside the grid. Where several points move to one
    target, one drawn at random keeps it and the others' trajectories end. A point nothing moves to starts its own.

    Args:
        field: (F-1, 2, H, W) motion field in pixels, channel 0 = x.
        seed: of the draw.

    Returns:
        ``tracks`` (F, 32, 32), int16 (int32 beyond 32 frames): the number of each point's trajectory.
    """
    steps = cell_displacements(field)
    num_frames = len(steps) + 1
    frame, row, column = np.indices((num_frames - 1, GRID, GRID), sparse=True)
    to_row, to_column = row + steps[:, 1], column + steps[:, 0]
    inside = (to_row >= 0) & (to_row < GRID) & (to_column >= 0) & (to_column < GRID)
    source = np.flatnonzero(inside)  # in the order of frames, rows, columns
    target = (((frame + 1) * GRID + to_row) * GRID + to_column)[inside]
    source, target = _settle_conflicts(source, target, seed)

    tracks = np.arange(num_frames * CELLS, dtype=np.int16 if num_frames * CELLS <= 2**15 else np.int32)
    bounds = np.searchsorted(source, np.arange(num_frames) * CELLS)
    for first, last in zip(
        bounds[:-1], bounds[1:], strict=True
    ):  # a frame at a time: each inherits from the last
        tracks[target[first:last]] = tracks[source[first:last]]
    return tracks.reshape(num_frames, GRID, GRID)


def _settle_conflicts(source: np.ndarray, target: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Keeps one source for each target; sources ascend before and after.

    The draw is the official one's: contested targets in the order of their first contender, each by one
    ``randint(0, contenders - 1)``.
    """
    order = np.argsort(target, kind="stable")  # by target, contenders in their own order
    by_target = target[order]
    starts = np.flatnonzero(np.diff(by_target, prepend=-1))
    counts = np.diff(starts, append=len(order))
    contested = np.flatnonzero(counts > 1)
    contested = contested[np.argsort(order[starts[contested]])]
    draw = random.Random(seed).randint
    winners = starts.copy()
    winners[contested] += np.array([draw(0, n - 1) for n in counts[contested].tolist()], dtype=winners.dtype)
    kept = np.sort(order[winners])
    return source[kept], target[kept]


def still(num_frames: int) -> np.ndarray:
    """`expand` of a clip in which nothing moves: each trajectory stays in its cell."""
    return expand(np.tile(np.arange(CELLS).reshape(1, GRID, GRID), (num_frames, 1, 1)))


def expand(tracks: np.ndarray) -> np.ndarray:
    """What the model needs of each point: itself, then the other points of its trajectory in time order.

    Args:
        tracks: (F, 32, 32) integers as `track` returns them.

    Returns:
        (F*1024, F) int32, numbers of points (t * 1024 + row * 32 + column); -1 where there is none. Attention gathers
        with them as they are.

    Raises:
        ValueError: the numbers are no trajectories (out of range, or two points of one trajectory in one frame).
    """
    num_frames = len(tracks)
    points = np.arange(num_frames * CELLS, dtype=np.int32)
    frame = points // CELLS
    number = tracks.reshape(-1).astype(np.int64)
    if number.min() < 0 or (number > points).any() or (number[number] != number).any():
        raise ValueError("a trajectory is not numbered by its first point")
    line = np.full(
        (num_frames * CELLS, num_frames), -1, dtype=np.int32
    )  # of each trajectory: a point a frame
    line[number, frame] = points
    length = np.bincount(number, minlength=num_frames * CELLS)
    start = frame[number]  # of each point's trajectory
    end = start + length[number] - 1
    # One point a frame and no gap: as many in lines as points, and each line ends where its length says.
    if (line >= 0).sum() != len(points) or (frame > end).any():
        raise ValueError("a trajectory has two points in one frame, or a gap")

    # Column 0 is the point; column c the trajectory's c-th point, or one further on from the point's own frame on.
    when = start[:, None] + np.arange(-1, num_frames - 1)  # (F*1024, F)
    when += when >= frame[:, None]
    when[:, 0] = frame
    inside = when <= end[:, None]
    return np.where(inside, line[number[:, None], np.where(inside, when, 0)], np.int32(-1))


def link(field: np.ndarray, seed: int) -> np.ndarray:
    """`expand` of `track`: the trajectories (F*1024, F) int32 of a motion field."""
    return expand(track(field, seed))


def there_and_back(num_frames: int, wanted: int) -> np.ndarray:
    """The frames of a clip played to its end, back to its start, and so on: ``wanted`` numbers of 0 to F - 1."""
    turn = max(num_frames - 1, 1)
    place = np.arange(wanted) % (2 * turn)
    return np.minimum(np.minimum(place, 2 * turn - place), num_frames - 1)


def replay(index: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`expand` of a clip whose frames are played in another order.

    Args:
        index: (F*1024, F) as of `expand`.
        order: (N,) numbers of frames, each a neighbour of the one before; a link holds in both directions.

    Returns:
        (N*1024, N) int32 as of `expand`.
    """
    num_points = len(index)
    numbers = np.where(index < 0, num_points, index).min(1).reshape(-1, CELLS)  # of trajectories, by frame
    tracks = np.arange(len(order) * CELLS).reshape(-1, CELLS)
    for now in range(1, len(order)):
        cell = np.full(num_points, -1)  # of each trajectory in the frame before
        cell[numbers[order[now - 1]]] = np.arange(CELLS)
        came_from = cell[numbers[order[now]]]
        goes_on = came_from >= 0
        tracks[now, goes_on] = tracks[now - 1, came_from[goes_on]]
    return expand(tracks.reshape(-1, GRID, GRID))


def coordinates(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of points as the official code spells them.

    Args:
        index: (..., L) integers as of `expand`.

    Returns:
        points (..., L, 3) int16, (t, row, column), zeros where there is none, and mask (..., L) bool.
    """
    mask = index >= 0
    number = np.where(mask, index, 0)
    points = np.stack([number // CELLS, number // GRID % GRID, number % GRID], axis=-1)
    return points.astype(np.int16), mask


# --- files -----------------------------------------------------------------------------------------------------------


def save_tracks(path: str | Path, tracks: np.ndarray) -> None:
    """Writes ``tracks`` (F, 32, 32) as a plain .npy, 2 kB a frame."""
    save_npy(path, tracks)


def save_official(path: str | Path, tracks: np.ndarray) -> None:
    """Writes the official code's file: a dict, pickled in a .npy (``np.load(path, allow_pickle=True).item()``).

    ``traj32`` (F*1024, 9+F-1, 3) int64 and ``mask32`` (F*1024, 9+F-1) bool, torch tensors both: column 0 the point, 1
    to 8 its neighbours in the same frame (3 x 3 without the middle, row by row; masked outside the grid; the model
    never uses them), then the other points of its trajectory.
    """
    import torch  # here: who extracts motion does without it

    points, mask = coordinates(expand(tracks))
    around = np.array([(0, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx])
    neighbours = points[:, :1].astype(np.int64) + around  # (F*1024, 8, 3)
    inside = ((neighbours[..., 1:] >= 0) & (neighbours[..., 1:] < GRID)).all(-1)
    neighbours[~inside] = 0
    with_neighbours = np.concatenate([points[:, :1], neighbours, points[:, 1:]], axis=1).astype(np.int64)
    value = {
        "traj32": torch.from_numpy(with_neighbours),
        "mask32": torch.from_numpy(np.concatenate([mask[:, :1], inside, mask[:, 1:]], axis=1)),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.array(value, dtype=object), allow_pickle=True)


def load_trajectories(path: str | Path, num_frames: int, *, remedy: str = REMEDY) -> np.ndarray:
    """Loads a trajectory file, ours or the official code's (through the restricted unpickler).

    Args:
        path: the file.
        num_frames: F of the clip.
        remedy: what the user should do if the file is missing or damaged.

    Returns:
        (F*1024, F) int32 as of `expand`.

    Raises:
        UserError: missing, damaged, of another number of frames, or not trajectories.
    """
    path = Path(path)
    if _is_pickle(path):
        return _from_official(load_restricted_pickle(path), num_frames, path)
    tracks = load_npy(path, (None, GRID, GRID), remedy=remedy)
    if len(tracks) != num_frames:
        raise UserError(f"is of a clip of {len(tracks)} frames, expected {num_frames}", REMEDY, path)
    try:
        if tracks.dtype.kind != "i":
            raise ValueError(f"it holds {tracks.dtype}, not integers")
        return expand(tracks)
    except ValueError as error:
        raise UserError(f"does not hold trajectories ({error})", REMEDY, path) from None


def _is_pickle(path: Path) -> bool:
    """Whether the file is a pickle, bare or in a .npy; False for all else, including a missing file."""
    try:
        with path.open("rb") as handle:
            if handle.read(6) != np.lib.format.MAGIC_PREFIX:
                handle.seek(0)
                return handle.read(1) in (
                    b"\x80",
                    b"(",
                    b"c",
                    b"}",
                )  # the first opcodes of pickled dicts and arrays
            handle.seek(0)
            np.lib.format.read_magic(handle)
            return np.lib.format.read_array_header_1_0(handle)[2].hasobject
    except Exception:  # the header is parsed as Python; `load_npy` says what is wrong with it
        return False


def _from_official(value: object, num_frames: int, path: Path) -> np.ndarray:
    """Column 0 and the columns from 9 on of an official file, padded to F columns where it holds fewer."""

    def refuse(why: str) -> UserError:
        return UserError(f"is not an official trajectory file of {num_frames} frames ({why})", REMEDY, path)

    if not isinstance(value, dict) or not {"traj32", "mask32"} <= value.keys():
        raise refuse("it holds no traj32 and mask32")
    points, mask = value["traj32"], value["mask32"]
    if not isinstance(points, np.ndarray) or not isinstance(mask, np.ndarray):
        raise refuse("traj32 or mask32 is not an array")
    rows = num_frames * CELLS
    if points.shape != (*mask.shape, 3) or mask.ndim != 2 or len(mask) != rows:
        raise refuse(f"traj32 is {points.shape}, mask32 {mask.shape}")
    if points.dtype.kind not in "iu" or mask.dtype.kind not in "biu":
        raise refuse(f"traj32 is {points.dtype}, mask32 {mask.dtype}")
    columns = [0, *range(1 + OFFICIAL_NEIGHBOURS, mask.shape[1])]
    points, mask = points[:, columns], mask[:, columns].astype(bool)
    if mask[:, num_frames:].any():
        raise refuse(f"a trajectory has more than {num_frames} points")
    points, mask = points[:, :num_frames], mask[:, :num_frames]
    limits = np.array([num_frames, GRID, GRID])
    if ((points < 0) | (points >= limits))[mask].any():
        raise refuse("points outside the grid")
    frame, row, column = points.astype(np.int32).transpose(2, 0, 1)
    index = np.where(mask, frame * CELLS + row * GRID + column, np.int32(-1))
    if (index[:, 0] != np.arange(rows)).any():
        raise refuse("points not in the order of frame, row, column")
    missing = num_frames - index.shape[1]
    return np.pad(index, ((0, 0), (0, missing)), constant_values=-1)
