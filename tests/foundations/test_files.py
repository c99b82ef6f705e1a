"""Whole-or-nothing writing, named reading errors, and loaders that never run what they read."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ctrlgenaug import files, plain_data
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import beside, exclusive


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
        "import sys, time; from ctrlgenaug.folders import exclusive\n"
        "with exclusive(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another run is writing this folder"), exclusive(tmp_path):
        pass
    (tmp_path / f"{files.TEMPORARY_PREFIX}x.png").write_text("half")
    holder.kill()
    holder.wait()
    with exclusive(tmp_path):
        assert not list(tmp_path.glob(f"{files.TEMPORARY_PREFIX}*"))


def test_a_folder_beside_another_is_called_after_it(tmp_path, monkeypatch):
    """Also where that is called by a path without its name: ``._filtered`` would be a hidden folder within it."""
    (tmp_path / "clips" / "inner").mkdir(parents=True)
    assert beside(Path("a/clips"), "filtered") == Path("a/clips_filtered")
    monkeypatch.chdir(tmp_path / "clips")
    assert beside(Path("."), "filtered") == tmp_path / "clips_filtered"
    monkeypatch.chdir(tmp_path / "clips" / "inner")
    assert beside(Path(".."), "filtered") == tmp_path / "clips_filtered"


def test_jsonl_names_the_bad_line(tmp_path):
    path = tmp_path / "train_metadata.jsonl"
    path.write_text('{"file_name": "a.png", "cls": "CT-0"}\nnot json\n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        plain_data.read_jsonl(path)
    path.write_text('{"file_name": "a.png"}\n')
    with pytest.raises(UserError, match="line 1 lacks cls"):
        plain_data.read_jsonl(path, ("file_name", "cls"))


def test_npy_refuses_pickles_truncation_and_other_shapes(tmp_path):
    path = tmp_path / "a.npy"
    plain_data.save_npy(path, np.zeros((2, 3), np.float32))
    assert plain_data.load_npy(path, (None, 3)).shape == (2, 3)
    with pytest.raises(UserError, match=r"has shape \(2, 3\), expected \(any, 4\)"):
        plain_data.load_npy(path, (None, 4))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="not a readable .npy array"):
        plain_data.load_npy(path)
    np.save(path, np.array({"a": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a readable .npy array"):
        plain_data.load_npy(path)


@pytest.mark.parametrize("name", ["", "..", "../x.avi", "a/b.avi", "a\\b.avi", "a\0.avi"])
def test_names_that_leave_their_folder_are_refused(name):
    with pytest.raises(UserError, match="not a plain file name"):
        files.check_name(name)


def test_fingerprint_tells_contents_apart(tmp_path):
    a, b = tmp_path / "a.bin", tmp_path / "b.bin"
    a.write_bytes(b"1"), b.write_bytes(b"2")
    assert files.fingerprint([a]) == files.fingerprint([a]) != files.fingerprint([b])


def test_a_header_that_the_parser_stumbles_over_is_read_again(tmp_path, monkeypatch):
    """Python 3.11 counts the depth of its parser across threads, and raises SystemError for a sound file."""
    plain_data.save_npy(tmp_path / "array.npy", np.arange(3))
    real, left = np.load, [2]

    def stumbling(*arguments, **options):
        if left[0]:
            left[0] -= 1
            raise SystemError("AST constructor recursion depth mismatch")
        return real(*arguments, **options)

    monkeypatch.setattr(np, "load", stumbling)
    assert plain_data.load_npy(tmp_path / "array.npy", (3,)).tolist() == [0, 1, 2]
    left[0] = 99
    with pytest.raises(UserError, match="recursion depth mismatch"):
        plain_data.load_npy(tmp_path / "array.npy")
