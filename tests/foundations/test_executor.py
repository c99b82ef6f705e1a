"""Cases side by side: the same results as one by one, and a worker that dies costs its own case alone."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from working_cases import work

from ctrlgenaug import steps
from ctrlgenaug.errors import UserError


def run(folder, cases, **more):
    return steps.for_each_case(work, cases, [(str(folder), case) for case in cases], **more)


def test_a_dead_worker_costs_its_own_case_alone(tmp_path, capfd):
    cases = [f"case{i}" for i in range(8)]
    bad = ["kills", "raises", "refuses"]
    noted = []
    outcome = run(
        tmp_path, [*cases[:3], "kills_once", *bad, *cases[3:]], num_workers=2, on_result=noted.append
    )
    good = [*cases[:3], "kills_once", *cases[3:]]
    assert outcome.results == {case: case.upper() for case in good}
    assert list(outcome.results) == good and sorted(noted) == sorted(map(str.upper, good))
    assert set(outcome.failures) == set(bad) and outcome.exit_code() == 1
    assert outcome.failures["kills"] == "its worker died (killed by signal 9) (tried 2 times)"
    assert outcome.failures["raises"] == "ValueError: bad luck"
    assert outcome.failures["refuses"] == "refuses: is damaged. Copy it again."
    assert (tmp_path / "tries_kills").read_text() == "xx" and (tmp_path / "tries_raises").read_text() == "x"
    errors = capfd.readouterr().err
    assert "a worker on cpu died (killed by signal 9); starting another" in errors
    assert "skipped kills: its worker died" in errors


def test_one_process_or_several_write_the_same(tmp_path):
    cases = [f"case{i}" for i in range(5)]
    folders = [tmp_path / "one", tmp_path / "three"]
    for folder, workers in zip(folders, (1, 3), strict=True):
        folder.mkdir()
        assert list(run(folder, cases, num_workers=workers).results) == cases
    first, second = ({p.name: p.read_bytes() for p in folder.glob("*.bin")} for folder in folders)
    assert first == second and len(first) == 5


@pytest.mark.parametrize("num_workers", [1, 2])
def test_strict_stops_at_the_first_failure(tmp_path, num_workers):
    with pytest.raises(UserError, match="refuses: is damaged. Copy it again."):
        run(tmp_path, ["refuses", "a"], num_workers=num_workers, strict=True)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_full_disk_stops_everything(tmp_path, num_workers):
    with pytest.raises(OSError, match="space") as stopped:
        run(tmp_path, ["fills_disk", "a"], num_workers=num_workers)
    assert "the disk is full" in steps.describe(stopped.value)
