"""kill -9 at random moments, shards on the same folder: in the end the files of an undisturbed run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FILL = Path(__file__).with_name("fill.py")
COUNT = 24


def start(out, marks, *, pause=0.0, shard=None):
    marks.mkdir(exist_ok=True)
    command = [
        sys.executable,
        str(FILL),
        str(out),
        str(marks),
        str(COUNT),
        str(pause),
        *([shard] if shard else []),
    ]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


def manifest_files(folder):
    return [json.loads(line)["file"] for line in (folder / "manifest.jsonl").read_text().splitlines()]


def children_of(process):
    """Process ids of the workers."""
    try:
        tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(task) for task in tasks]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def wait_for_files(folder, process, more):
    """Until ``folder`` holds ``more`` clips than now, or ``process`` has ended."""
    wanted = len(list(folder.glob("*.mp4"))) + more
    while process.poll() is None and len(list(folder.glob("*.mp4"))) < min(wanted, COUNT):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder / "out", folder / "marks").wait(300) == 0
    files = contents(folder / "out")
    assert len(files) == COUNT
    return files


def test_what_a_kill_left_half_written_beside_the_clips_is_gone_after_the_next_run(tmp_path):
    (tmp_path / "out").mkdir()
    for name in (
        ".unfinished-0123456789ab.json",
        ".unfinished-0123456789ac.jsonl",
        ".unfinished-0123456789ad.png",
    ):
        (tmp_path / "out" / name).write_text("{")
    assert start(tmp_path / "out", tmp_path / "marks").wait(300) == 0
    assert len(contents(tmp_path / "out")) == COUNT
    assert not list((tmp_path / "out").glob(".unfinished-*"))


def test_twenty_kills_and_a_restart(undisturbed, tmp_path):
    out, draw = tmp_path / "out", random.Random(20)
    seen, workers = [], []
    for round_ in range(20):
        process = start(out, tmp_path / "marks", pause=0.05)
        wait_for_files(out, process, draw.choice((0, 0, 1, 2, 4)))  # a slow machine gets somewhere too
        time.sleep(draw.uniform(0.05, 0.6))
        workers = children_of(process)
        victim = draw.choice(workers) if workers and round_ % 3 == 2 else process.pid
        os.kill(victim, signal.SIGKILL)  # the parent, or one of its two workers
        if victim != process.pid:
            time.sleep(draw.uniform(0.0, 0.3))
            workers = children_of(process)
            process.kill()
        process.wait()
        seen.append(len(contents(out)) if out.exists() else 0)
        whole = contents(out) if out.exists() else {}
        assert whole == {name: undisturbed[name] for name in whole}  # nothing half-written under a final name
        if len(whole) == COUNT:
            shutil.rmtree(out)
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))  # workers leave with their parent
    assert max(seen) > 0
    assert start(out, tmp_path / "marks").wait(300) == 0
    assert contents(out) == undisturbed
    assert sorted(manifest_files(out)) == sorted(undisturbed)
    assert {path.name for path in out.iterdir()} == {*undisturbed, "manifest.jsonl", "settings.json"}


def test_shards_side_by_side_make_the_whole(undisturbed, tmp_path):
    out = tmp_path / "out"
    shards = [start(out, tmp_path / f"marks{i}", shard=f"{i}/3") for i in (1, 2, 3)]
    assert [shard.wait(300) for shard in shards] == [0, 0, 0]
    assert contents(out) == undisturbed
    assert sorted(manifest_files(out)) == sorted(undisturbed)
    assert {path.name for path in out.iterdir()} == {*undisturbed, "manifest.jsonl", "settings.json"}


def test_the_same_shard_twice_at_once_is_refused(tmp_path):
    first = start(tmp_path / "out", tmp_path / "marks", pause=0.5)
    while not (tmp_path / "out" / "settings.json").exists():
        time.sleep(0.02)
    second = start(tmp_path / "out", tmp_path / "marks")
    assert second.wait(300) == 1  # a UserError; fill.py is no script of the project and shows the traceback
    first.kill()
    first.wait()
