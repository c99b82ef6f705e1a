"""The stratified split against scikit-learn's, whose draws the published splits are."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.stratified import stratified_split


@pytest.mark.parametrize("seed", range(60))
def test_the_split_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    names = ["CT-0", "b", "10", "9", "Ä", "a"][: rng.integers(1, 7)]
    labels = list(rng.choice(names, rng.integers(0, 150), p=rng.dirichlet(np.ones(len(names)))))
    share = float(rng.choice([0.1, 0.2, 0.3, 0.5, 0.77]))
    try:
        expected = train_test_split(range(len(labels)), test_size=share, random_state=seed, stratify=labels)
    except ValueError:
        with pytest.raises(UserError, match="table.csv: cannot be split into train and test; it holds"):
            stratified_split(labels, share, seed, "table.csv")
    else:
        assert stratified_split(labels, share, seed, "table.csv") == tuple(map(list, expected))
