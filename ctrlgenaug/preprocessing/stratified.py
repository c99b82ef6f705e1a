"""A random split into train and test with the classes equally frequent in both, as scikit-learn draws it.

scikit-learn's `train_test_split` made the published splits. Its import alone takes longer than to read a small data
set, and its draws need only NumPy's `RandomState`, whose stream NumPy keeps for good.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctrlgenaug.errors import UserError


def stratified_split(
    labels: Sequence[str], test_size: float, random_state: int, path: str | Path
) -> tuple[list[int], list[int]]:
    """Indices of the train and the test part, equal in members and order to scikit-learn's with the same seed.

    Args:
        labels: the class of each.
        test_size: the test part's share, between 0 and 1; the part is rounded up.
        random_state: the seed.
        path: the table to name in an error.

    Raises:
        UserError: too few of a class, or too few altogether.
    """
    classes, members = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    counts = np.bincount(members, minlength=len(classes))
    tests = math.ceil(test_size * len(members))
    trains = len(members) - tests
    if not len(members) or counts.min() < 2 or min(trains, tests) < len(classes):
        held = ", ".join(f"{label} {count}" for label, count in sorted(Counter(labels).items()))
        raise UserError(
            f"cannot be split into train and test; it holds {held or 'nothing'}",
            "Add cases: at least two of each class, and one of each in either part",
            path,
        )
    rng = np.random.RandomState(random_state)
    of_train = _shares(counts, trains, rng)
    of_test = _shares(counts - of_train, tests, rng)
    train: list[int] = []
    test: list[int] = []
    for cls, count in enumerate(counts):
        shuffled = np.flatnonzero(members == cls)[rng.permutation(count)]
        train.extend(shuffled[: of_train[cls]])
        test.extend(shuffled[of_train[cls] : of_train[cls] + of_test[cls]])
    return rng.permutation(train).tolist(), rng.permutation(test).tolist()


def _shares(counts: np.ndarray, total: int, rng: np.random.RandomState) -> np.ndarray:
    """How many of each class to take: ``total`` in proportion to ``counts``, rounded down, then the largest remainders
    one more each; equal remainders are drawn from."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    missing = int(total - shares.sum())
    remainders = exact - shares
    for remainder in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        taken = rng.choice(equal, size=min(len(equal), missing), replace=False)
        shares[taken] += 1
        missing -= len(taken)
    return shares.astype(int)
