"""A bad case is skipped and counted; --strict stops; a full disk always stops."""

import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ctrlgenaug import steps
from ctrlgenaug.errors import UserError

ROOT = Path(__file__).parents[2]


def _work(number):
    if number == 2:
        raise UserError("is broken", "Mend it", "case2.nii")
    if number == 9:
        raise OSError(errno.ENOSPC, "No space left on device", "out.png")
    return number * 10


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_case_is_skipped_and_counted(num_workers, capsys):
    outcome = steps.for_each_case(_work, ["a", "b", "c"], [(1,), (2,), (3,)], num_workers=num_workers)
    assert outcome.results == {"a": 10, "c": 30}
    assert outcome.failures == {"b": "case2.nii: is broken. Mend it."}
    assert outcome.exit_code() == steps.EXIT_SOME_FAILED
    assert "1 failed" in outcome.closing_line("made 2 cases")
    assert "skipped b: case2.nii: is broken. Mend it." in capsys.readouterr().err


@pytest.mark.parametrize("num_workers", [0, 2])
def test_strict_stops_at_the_first(num_workers):
    with pytest.raises(UserError, match="case2.nii: is broken"):
        steps.for_each_case(_work, ["b", "c"], [(2,), (3,)], num_workers=num_workers, strict=True)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_full_disk_stops_everything(num_workers):
    with pytest.raises(OSError, match="No space left"):
        steps.for_each_case(_work, ["a", "b"], [(9,), (1,)], num_workers=num_workers)


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        ("UserError('is broken', 'Mend it', 'a.nii')", 2, "error: a.nii: is broken. Mend it."),
        ("OSError(28, 'No space', 'out.png')", 2, "error: out.png: the disk is full."),
        ("KeyboardInterrupt()", 130, "run the same command again to continue"),
    ],
)
def test_run_turns_errors_into_one_line(raised, code, message):
    script = (
        "from ctrlgenaug import steps; from ctrlgenaug.errors import UserError\n"
        f"def main(): raise {raised}\nsteps.run(main)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == code
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(("rank", "shown"), [(None, True), ("0", True), ("1", False)])
def test_what_the_packages_log_reaches_the_user_once(rank, shown, capfd, monkeypatch):
    logger = logging.getLogger("cond2img.models.checkpoints")
    monkeypatch.setattr(logging.getLogger("cond2img"), "handlers", [])
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit):
        steps.run(lambda: logger.info("unet: 3 tensors start fresh"))
    assert ("note: unet: 3 tensors start fresh\n" in capfd.readouterr().err) == shown


@pytest.mark.parametrize(
    "script",
    [
        "MosMedData/extract_all_slices.py",
        "MRNet/extract_all_slices.py",
        "ACDC/extract_all_slices.py",
        "TUSC/extract_all_images.py",
        "TUSC/sample_videos.py",
    ],
)
def test_light_steps_start_without_heavy_libraries(script):
    heavy = {"torch", "pandas", "sklearn", "SimpleITK", "pydicom", "matplotlib"}
    code = (
        "import atexit, runpy, sys; atexit.register(lambda: print(*sys.modules)); "
        f"sys.argv = [{script!r}, '--help']; runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    imported = set(shown.splitlines()[-1].split())
    assert "numpy" in imported
    assert not imported & heavy
