"""Folders of others and file systems that refuse: nothing is lost, nothing foreign is touched, one line says why."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ctrlgenaug import files, folders, plain_data, steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import claim_folder, exclusive, is_held

# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path):
        plain_data.write_json(tmp_path / "a.json", 1)
    assert "knows no locks" in capsys.readouterr().err
    assert plain_data.read_json(tmp_path / "a.json") == 1 and not is_held(tmp_path)


def test_only_a_running_run_is_another_run(tmp_path):
    with exclusive(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(UserError, match="another run is writing"), exclusive(tmp_path):
            pass
        assert is_held(tmp_path)  # the refused one took nothing away
    assert not is_held(tmp_path) and os.listdir(tmp_path) == ["elsewhere"]


def test_the_lock_goes_with_a_run_that_fails(tmp_path):
    with pytest.raises(UserError, match="mine"), exclusive(tmp_path):
        raise UserError("mine")
    assert os.listdir(tmp_path) == ["elsewhere"]


def test_many_runs_in_turn_never_share_the_folder(tmp_path):
    """The lock file goes with its run; a run that opened it before must not hold a file that is nobody's."""
    code = """
        import sys, os
        from ctrlgenaug.errors import UserError
        from ctrlgenaug.folders import exclusive
        took = 0
        while took < 60:
            try:
                with exclusive(sys.argv[1]):
                    handle = os.open(sys.argv[1] + "/inside", os.O_CREAT | os.O_EXCL)
                    os.close(handle)
                    os.unlink(sys.argv[1] + "/inside")
                    took += 1
            except UserError:
                pass
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [run.communicate(timeout=120)[1] for run in runs] == [b""] * 3
    assert [run.returncode for run in runs] == [0, 0, 0] and os.listdir(tmp_path) == ["elsewhere"]


# --- links and special files in the folder ------------------------------------------------------------------------


def _link_to_file(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "precious.txt")


def _link_to_folder(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def _dangling_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "not there")


def _pipe(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, elsewhere: Path) -> None:
    path.mkdir()


SQUATTERS = [_link_to_file, _link_to_folder, _dangling_link, _pipe, _folder]


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "precious.txt").write_text("precious")
    (folder / f"{files.TEMPORARY_PREFIX}not ours").write_text("precious")
    return folder


@pytest.fixture(autouse=True)
def nothing_elsewhere_was_touched(elsewhere):
    yield
    assert sorted(path.name for path in elsewhere.iterdir()) == [".unfinished-not ours", "precious.txt"]
    assert {path.read_text() for path in elsewhere.iterdir()} == {"precious"}


@pytest.mark.parametrize("squat", SQUATTERS)
def test_what_sits_in_the_place_of_the_lock(tmp_path, elsewhere, squat):
    squat(tmp_path / "out", elsewhere) if squat is _folder else (tmp_path / "out").mkdir()
    squat(tmp_path / "out" / ".lock", elsewhere)
    with pytest.raises(UserError, match=r"\.lock: is "), exclusive(tmp_path / "out"):
        pass


@pytest.mark.parametrize("squat", SQUATTERS)
def test_what_sits_in_the_place_of_a_journal(tmp_path, elsewhere, squat):
    squat(tmp_path / "journal.jsonl", elsewhere)
    with pytest.raises(UserError, match="this run would write there"):
        files.append_line(tmp_path / "journal.jsonl", "a row")


@pytest.mark.parametrize("squat", [_link_to_folder, _folder])
def test_a_folder_in_the_place_of_an_output_is_left(tmp_path, elsewhere, squat):
    squat(tmp_path / "metadata.jsonl", elsewhere)
    with pytest.raises(UserError, match="and this run would write there"):
        files.write_text(tmp_path / "metadata.jsonl", "x")
    assert (tmp_path / "metadata.jsonl").is_dir() and len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("squat", [_link_to_file, _dangling_link, _pipe])
def test_another_output_is_replaced_and_never_written_through(tmp_path, elsewhere, squat):
    squat(tmp_path / "metadata.jsonl", elsewhere)
    files.write_text(tmp_path / "metadata.jsonl", "x")
    assert not (tmp_path / "metadata.jsonl").is_symlink() and (tmp_path / "metadata.jsonl").read_text() == "x"


def test_leftovers_that_are_links_go_without_what_they_point_to(tmp_path, elsewhere):
    for number, squat in enumerate(SQUATTERS):
        squat(tmp_path / f"{files.TEMPORARY_PREFIX}{number}", elsewhere)
    assert folders.remove_leftovers(tmp_path) == len(SQUATTERS)
    assert os.listdir(tmp_path) == ["elsewhere"]


@pytest.mark.parametrize("squat", [_dangling_link, _pipe, _folder, _link_to_folder])
@pytest.mark.parametrize(
    "read",
    [plain_data.read_json, plain_data.read_jsonl, plain_data.load_npy, files.read_text, files.check_file],
)
def test_readers_name_what_is_no_file_and_never_wait(tmp_path, elsewhere, squat, read):
    squat(tmp_path / "input", elsewhere)
    with pytest.raises(UserError, match="does not exist|is a folder|is no regular file"):
        read(tmp_path / "input")


def test_data_kept_elsewhere_and_linked_in_is_read(tmp_path, elsewhere):
    _link_to_file(tmp_path / "input", elsewhere)
    assert files.read_text(tmp_path / "input") == "precious"


@pytest.mark.parametrize("name", [b"caf\xe9.json", b"\xff\xfe", b"a\xc3"])
def test_names_that_are_no_utf8_are_spelled_out(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"{}")
    with pytest.raises(UserError, match="not UTF-8") as caught:
        plain_data.read_json(path)
    str(caught.value).encode("ascii")


# --- file systems that refuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EROFS])
def test_a_refused_fsync_is_passed_over(tmp_path, monkeypatch, number):
    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    files.write_text(tmp_path / "a.txt", "x")
    files.append_line(tmp_path / "a.txt", "y", durable=True)
    assert (tmp_path / "a.txt").read_text() == "xy\n"


def test_a_failed_fsync_is_not(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        files.write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == ["elsewhere"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOSYS])
def test_a_refused_rename_is_one_line(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match=r"a.txt: cannot be given its name.*another disk"):
        files.write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == ["elsewhere"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: No space left on device"),
        ValueError("I/O error: No space left on device (os error 28)"),
        UserError("cannot be encoded (x264: No space left on device)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_has_one_name(tmp_path, capsys, error):
    def main():
        with files.atomic_path(tmp_path / "clip.mp4") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(SystemExit) as end:
        steps.run(main)
    line = capsys.readouterr().err
    assert end.value.code == 2 and line.count("\n") == 1
    assert line.startswith(f"error: {tmp_path}/clip.mp4: the disk is full. Free some space")
    assert os.listdir(tmp_path) == ["elsewhere"]


WRITERS = """
    import errno, os, shutil, sys, traceback
    from pathlib import Path
    import numpy as np, torch
    from safetensors.torch import save_file
    from matplotlib.figure import Figure
    from ctrlgenaug import files, plain_data, video
    from ctrlgenaug.contact_sheet import save_picture
    from ctrlgenaug.training import checkpoints

    disk, noise = Path(sys.argv[1]), np.random.default_rng(0)
    figure = Figure(figsize=(30, 30)); figure.subplots().imshow(noise.random((2000, 2000)))
    big = torch.rand(1 << 20)
    frames = noise.integers(0, 256, (40, 256, 256), dtype=np.uint8)

    def through(path, write):
        with files.atomic_path(path) as temporary:
            write(temporary)

    def mapped():
        np.lib.format.open_memmap(disk / "m.npy", mode="w+", dtype=np.float32, shape=(1 << 20,)).flush()
        files.allocate(disk / "m.npy")

    def journal():
        while True:
            files.append_line(disk / "journal.jsonl", "x" * 100_000)

    writers = {
        "text": lambda: files.write_text(disk / "a.txt", "x" * (4 << 20)),
        "npy": lambda: plain_data.save_npy(disk / "a.npy", frames.repeat(2, 0)),
        "avi": lambda: video.write_avi(disk / "a.avi", frames.repeat(2, 0)),
        "mp4": lambda: video.write_mp4(disk / "a.mp4", frames.repeat(2, 0), lossless=True),
        "png": lambda: save_picture(disk / "a.png", noise.integers(0, 256, (2048, 2048, 3), dtype=np.uint8)),
        "figure": lambda: through(disk / "a.png", lambda file: figure.savefig(file, dpi=100)),
        "torch": lambda: through(disk / "a.pth", lambda file: torch.save(big, file)),
        "safetensors": lambda: through(disk / "a.safetensors", lambda file: save_file({"a": big}, file)),
        "checkpoint": lambda: checkpoints.write(disk / "checkpoint-1", lambda folder: None, {"a": big}),
        "mapped": mapped,
        "journal": journal,
    }
    for name, write in writers.items():
        for path in disk.iterdir():
            files.remove(path)
        try:
            write()
            print(name, "did not fail")
        except OSError as error:
            good = error.errno == errno.ENOSPC and str(error.filename).startswith(str(disk))
            print(name, "full" if good else repr(error))
        except Exception as error:
            print(name, repr(error))
        left = [path.name for path in disk.iterdir() if path.name != "journal.jsonl"]
        if left:
            print(name, "left", left)
"""


def test_every_writer_on_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=2m tmpfs {disk} && exec {sys.executable} -c "$1" {disk}'
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mount,
        "sh",
        textwrap.dedent(WRITERS),
    ]
    try:
        probe = subprocess.run([*command[:5], "-c", mount.split("&&")[0]], capture_output=True, check=False)
    except FileNotFoundError:
        probe = None
    if probe is None or probe.returncode:
        pytest.skip("this machine does not let a user mount a small disk")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stdout.split("\n")[:-1]
    assert lines and all(line.endswith(" full") for line in lines), done.stdout + done.stderr
    assert len(lines) == 11


# --- claims ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_free_until_it_holds_something(tmp_path):
    claim_folder(tmp_path, {"seed": 1})
    claim_folder(tmp_path, {"seed": 2})  # the first run ended before its first file
    (tmp_path / "a.npy").touch()
    claim_folder(tmp_path, {"seed": 2})
    with pytest.raises(UserError, match=r"other settings \(seed: 2 there, 3 now; see settings.json\)"):
        claim_folder(tmp_path, {"seed": 3})
    with pytest.raises(UserError, match=r"fit.lr: None there, 1 now"):
        claim_folder(tmp_path, {"seed": 2, "fit": {"lr": 1}})
    claim_folder(tmp_path, {"seed": 2, "fit": {"lr": 1}}, before={"fit": {"lr": 1}})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match="no settings.json that says how"):
        claim_folder(tmp_path, {"seed": 2})


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\u00e9", "\r"])
def test_lines_end_at_newlines_alone(tmp_path, mark):
    from ctrlgenaug.preprocessing import ledger

    rows = [{"text": f"a{mark}b", "case": "1", "made_from": mark, "files": {}}]
    plain_data.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert plain_data.read_jsonl(tmp_path / "rows.jsonl") == rows
    ledger.record(tmp_path, rows[0])
    assert ledger.entries(tmp_path)["1"]["made_from"] == mark


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    plain_data.write_json(tmp_path / "a.json", {"score": [float("nan"), float("inf"), 1.5]})
    assert (tmp_path / "a.json").read_text() == '{\n  "score": [\n    null,\n    null,\n    1.5\n  ]\n}\n'


def test_a_terminal_of_ascii_does_not_end_a_run(tmp_path):
    code = "from ctrlgenaug import steps; steps.run(lambda: print('Δ 3 ± 1 – é'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and b"3 " in done.stdout and done.stderr == b""


def test_a_reader_that_leaves_ends_a_run_quietly(tmp_path):
    code = "from ctrlgenaug import steps; steps.run(lambda: print('x\\n' * 10**6))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run.stdout.read(10)
    run.stdout.close()
    assert run.stderr.read() == b"" and run.wait() == 141
