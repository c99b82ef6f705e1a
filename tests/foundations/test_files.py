"""Whole-or-nothing writing, named reading errors, and loaders that never run what they read."""

import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from ctrlgenaug import files
from ctrlgenaug.errors import UserError


def test_atomic_path_leaves_nothing_of_a_failed_write(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_atomic_path_accepts_the_longest_legal_name(tmp_path):
    name = "n" * 251 + ".txt"
    files.write_text(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


def test_second_writer_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from ctrlgenaug.files import exclusive\n"
        "with exclusive(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another run is writing this folder"), files.exclusive(tmp_path):
        pass
    (tmp_path / f"{files.TEMPORARY_PREFIX}x.png").write_text("half")
    holder.kill()
    holder.wait()
    with files.exclusive(tmp_path):
        assert not list(tmp_path.glob(f"{files.TEMPORARY_PREFIX}*"))


def test_jsonl_names_the_bad_line(tmp_path):
    path = tmp_path / "train_metadata.jsonl"
    path.write_text('{"file_name": "a.png", "cls": "CT-0"}\nnot json\n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        files.read_jsonl(path)
    path.write_text('{"file_name": "a.png"}\n')
    with pytest.raises(UserError, match="line 1 lacks cls"):
        files.read_jsonl(path, ("file_name", "cls"))


def test_npy_refuses_pickles_truncation_and_other_shapes(tmp_path):
    path = tmp_path / "a.npy"
    files.save_npy(path, np.zeros((2, 3), np.float32))
    assert files.load_npy(path, (None, 3)).shape == (2, 3)
    with pytest.raises(UserError, match=r"has shape \(2, 3\), expected \(any, 4\)"):
        files.load_npy(path, (None, 4))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="not a readable .npy array"):
        files.load_npy(path)
    np.save(path, np.array({"a": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a readable .npy array"):
        files.load_npy(path)


class _Attack:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_restricted_pickle_loads_arrays_and_refuses_code(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    value = {
        "traj32": np.arange(12, dtype=np.int64).reshape(3, 4),
        "mask32": np.ones(3, bool),
        "n": np.int64(3),
    }
    path = tmp_path / "official.npy"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    loaded = files.load_restricted_pickle(path)
    assert (loaded["traj32"] == value["traj32"]).all() and loaded["n"] == 3

    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=True)  # the other spelling in the wild: a dict inside a .npy
    path.write_bytes(buffer.getvalue())
    assert (files.load_restricted_pickle(path)["mask32"] == value["mask32"]).all()

    path.write_bytes(pickle.dumps({"traj32": _Attack()}, protocol=protocol))
    with pytest.raises(UserError, match="not allowed"):
        files.load_restricted_pickle(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["", "..", "../x.avi", "a/b.avi", "a\\b.avi", "a\0.avi"])
def test_names_that_leave_their_folder_are_refused(name):
    with pytest.raises(UserError, match="not a plain file name"):
        files.check_name(name)


def test_fingerprint_tells_contents_apart(tmp_path):
    a, b = tmp_path / "a.bin", tmp_path / "b.bin"
    a.write_bytes(b"1"), b.write_bytes(b"2")
    assert files.fingerprint([a]) == files.fingerprint([a]) != files.fingerprint([b])
