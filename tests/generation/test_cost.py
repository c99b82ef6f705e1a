"""The cost of many clips from the rows of a few."""

import subprocess
import sys

import pytest

from augment.generation.cost import estimate
from augment.generation.plan import Sample
from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug.errors import UserError
from ctrlgenaug.processes import peak_memory


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
    assert "17.4 hours (13.9 to 69.4)" in cost.lines()[0] and "not known" in cost.lines()[-1]


def test_memory_is_the_largest_that_a_worker_held(tmp_path):
    folder = SynthesisFolder(tmp_path)
    assert "not measured" in estimate(make(tmp_path, [1.0]), 10, 2).lines()[2]
    with folder.filled_by((1, 1), {"conditions": []}) as part:
        for seed, (host, gpu) in enumerate([(2_000_000_000, 9_000_000_000), (3_000_000_000, 8_000_000_000)]):
            sample = Sample("study_0009_s01", "CT-0", seed)
            (tmp_path / sample.file_name).write_bytes(b"x")
            part.add(sample, "cuda:0", 1.0, host, gpu)
    told = estimate(tmp_path, 10, 2).lines()[2]
    assert told == "memory: a worker held up to 3.00 GB and 9.00 GB of its GPU; 2 on one machine 6.0 GB"


def test_a_worker_tells_what_it_held(tmp_path):
    """A process that fills 200 MB holds that much more than one that does not, whatever its parent holds."""
    tell = "from ctrlgenaug.processes import peak_memory; print(peak_memory())"
    ballast = bytearray(400_000_000)
    ballast[::4096] = bytes(1) * len(ballast[::4096])
    small, large = (
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for code in (tell, f"x = b'1' * 200_000_000; {tell}")
    )
    assert 5e6 < small < 2e8 and 1.9e8 < large - small < 2.1e8
    assert peak_memory() > 4e8


def test_nothing_measured(tmp_path):
    with pytest.raises(UserError, match="no clip whose time was taken"):
        estimate(tmp_path, 10, 1)
