"""The tiny data set, weights and trained stages that these tests share."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with MosMedData/ and weights/stable-diffusion, to copy or to read, not to change."""
    import tiny

    root = tmp_path_factory.mktemp("world")
    tiny.make_weights(root / "weights" / "stable-diffusion")
    return tiny.make_data(root)


@pytest.fixture
def handlers():
    """Puts back the signal handlers that a run in this process sets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
