"""Progress in a log file: a line now and then, whole, and never the same state twice."""

import sys
import time

from ctrlgenaug import progress
from ctrlgenaug.progress import say


def test_a_log_gets_whole_lines_at_one_pace(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_IN_A_LOG", 0.2)
    with progress.progress(total=8, description="reading", unit="clip") as bar:
        for number in range(8):
            time.sleep(0.06)
            bar.update()
            bar.set_postfix(loss=1)
            if number == 3:
                say("skipped a")
    lines = capsys.readouterr().err.split("\n")
    assert lines.pop() == "" and not any("\r" in line for line in lines)
    assert lines.count("skipped a") == 1 and len(set(lines)) == len(lines)
    shown = [line for line in lines if line.startswith("reading: ")]
    assert 3 <= len(shown) <= 5 and "0/8" in shown[0] and "8/8" in shown[-1]


def test_a_short_run_needs_two_lines(capsys):
    assert list(progress.progress(range(1000), description="fast", unit="row")) == list(range(1000))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_terminal_gets_a_bar_that_moves(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.progress(total=1, description="x", unit="clip") as bar:
        assert type(bar) is progress.tqdm and bar.mininterval == progress.SECONDS_ON_A_TERMINAL
