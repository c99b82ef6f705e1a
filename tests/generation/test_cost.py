"""The cost of many clips from the rows of a few."""

import pytest

from augment.generation.cost import estimate
from augment.generation.plan import Sample
from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug.errors import UserError


def make(path, seconds):
    folder = SynthesisFolder(path)
    with folder.filled_by((1, 1), {"conditions": []}) as part:
        for number, took in enumerate(seconds):
            sample = Sample(f"study_{number:04d}_s01", "CT-0", 66)
            (path / sample.file_name).write_bytes(b"x" * 10_000)
            part.add(sample, "cuda:0", took)
    return path


def test_hours_and_gigabytes(tmp_path):
    cost = estimate(make(tmp_path / "out", [8.0, 9.0, 10.0, 11.0, 40.0]), clips=100_000, workers=16)
    assert cost.seconds_a_clip == 10 and cost.measured == 5 and cost.devices == ("cuda:0",)
    assert cost.hours == pytest.approx(6250 * 10 / 3600) and cost.worker_hours == pytest.approx(1e6 / 3600)
    assert 1.0 < cost.gigabytes < 1.05  # MP4 files and their rows
    assert "17.4 hours (13.9 to 69.4)" in cost.lines()[0] and "not known" in cost.lines()[2]


def test_nothing_measured(tmp_path):
    with pytest.raises(UserError, match="no clip whose time was taken"):
        estimate(tmp_path, 10, 1)
