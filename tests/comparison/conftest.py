"""The classifiers' small home folders serve here too."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "classifiers"))

from clip_home import make_home, make_synthetic


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """6 train and 3 test patients a class, 2 clips each; a synthetic clip for each train clip. Not to be changed."""
    root = make_home(tmp_path_factory.mktemp("clips"), train=6, test=3)
    make_synthetic(root, root / "synthetic", each=1)
    return root
