"""Checkpoints: whole or not there, damage found, states that load without unpickling."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ctrlgenaug.errors import UserError
from ctrlgenaug.training import checkpoints


def write(run, step, value=0.0):
    def fill(folder):
        (folder / "unet").mkdir()
        (folder / "unet" / "model.safetensors").write_bytes(bytes(range(100)))

    checkpoints.write(run / f"checkpoint-{step}", fill, {"step": step, "value": torch.tensor(value)})


def test_newest_by_number_and_pruned(tmp_path):
    for step in (5, 100, 20):
        write(tmp_path, step)
    assert [folder.name for folder in checkpoints.find(tmp_path)] == [f"checkpoint-{n}" for n in (100, 20, 5)]
    checkpoints.prune(tmp_path, 2)
    assert [folder.name for folder in checkpoints.find(tmp_path)] == ["checkpoint-100", "checkpoint-20"]


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["training_state.pt", "unet/model.safetensors", "manifest.json"])
def test_damaged_newest_is_reported_and_the_one_before_used(tmp_path, damage, name):
    write(tmp_path, 1)
    write(tmp_path, 2)
    damage(tmp_path / "checkpoint-2" / name)
    reports = []
    assert checkpoints.newest_whole(tmp_path, reports.append) == tmp_path / "checkpoint-1"
    assert len(reports) == 1 and "checkpoint-2" in reports[0]


def test_a_failed_write_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "half").write_text("x")
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        checkpoints.write(tmp_path / "checkpoint-3", fill, {})
    assert checkpoints.find(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_with_code_in_it_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    write(tmp_path, 1)
    torch.save({"step": Evil()}, tmp_path / "checkpoint-1" / checkpoints.STATE_FILE)
    with pytest.raises(UserError, match="cannot be loaded"):
        checkpoints.load_state(tmp_path / "checkpoint-1")


def test_random_streams_go_on_where_they_were(tmp_path):
    def numbers():
        return random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1), np.random.randn()

    numbers()
    states = checkpoints.random_states()
    path = tmp_path / "states.pt"
    torch.save(states, path)
    expected = numbers()
    numbers()
    checkpoints.restore_random_states(torch.load(path, weights_only=True))
    assert numbers() == expected
