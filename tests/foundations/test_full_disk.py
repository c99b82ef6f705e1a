"""The first steps on a disk that fills up: one line, exit code 2, and the same command goes on once there is room."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = "MosMedData"
STEPS = {
    "reading": (f"{ROOT}/MosMedData/extract_all_slices.py --in_plane 64 --num_workers 1", "2m"),
    "sampling": (f"{ROOT}/MosMedData/sample_sequences.py --num_workers 2", "9m"),
    "motion": (f"{ROOT}/extract_motion_field_trajs.py --clip_data_dir MosMed_volume --num_workers 1", "24m"),
}


@pytest.mark.slow
def test_steps_on_a_disk_that_fills_up(tmp_path):
    disk = tmp_path / HOME
    disk.mkdir()
    phantom = "-m ctrlgenaug.phantom --data_name MosMed --class_counts CT-0=5,CT-1=5,CT-3=5 --in_plane 64"
    lines = [
        f"mount -t tmpfs -o size=1m tmpfs {disk} || exit 77",
        f"cd {tmp_path}",
        f"{sys.executable} {phantom} --slices 16,17 --out {HOME} > {tmp_path}/made || exit 78",
        f"cd {HOME}",
    ]
    for name, (command, size) in STEPS.items():
        report = f"{tmp_path}/{name}"
        lines += [
            f"mount -o remount,size={size} {disk}",
            f"{sys.executable} {command} > {report}.out 2> {report}.err; echo $? > {report}.code",
            f"find . -name '.unfinished-*' -o -name .lock > {report}.left",
            f"mount -o remount,size=200m {disk}",
            f"{sys.executable} {command} > {report}.again; echo $? > {report}.again.code",
        ]
    script = "\n".join(lines)
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if done.returncode == 77 or b"unshare" in done.stderr:
        pytest.skip("this machine does not let a user mount a small disk")

    def said(name):
        return (tmp_path / name).read_text()

    for name in STEPS:
        errors = [line for line in said(f"{name}.err").split("\n") if line.startswith("error: ")]
        assert said(f"{name}.code") == "2\n", (name, said(f"{name}.err"))
        assert len(errors) == 1 and ": the disk is full. Free some space" in errors[0]
        assert "Traceback" not in said(f"{name}.err") and "skipped" not in said(f"{name}.err")
        assert said(f"{name}.left") == ""
        assert said(f"{name}.again.code") == "0\n", said(f"{name}.again")
