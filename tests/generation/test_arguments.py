"""Every spelling of a list that a shell makes, through a real shell."""

import subprocess
import sys

import pytest

from augment.generation import arguments
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError

BOTH = ("image_condition", "motion_condition")


@pytest.mark.parametrize(
    "spelling",
    [
        '["image_condition", "motion_condition"]',
        '["image_condition","motion_condition"]',
        """'["image_condition", "motion_condition"]'""",
        '''"['image_condition', 'motion_condition']"''',
        "image_condition,motion_condition",
        "image_condition motion_condition",
        "motion_condition, image_condition",
        "[image_condition motion_condition]",
        "image motion",
    ],
)
def test_conditions_as_a_shell_passes_them(spelling, tmp_path):
    # an empty folder: in bash, [...] without quotes is a pattern for one-letter file names
    show = "import sys; print(*sys.argv[1:], sep='\\n')"
    result = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {spelling}', sys.executable, show],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert arguments.parse_conditions(result.stdout.splitlines()) == BOTH


def test_conditions_alone_none_and_unknown():
    assert arguments.parse_conditions(["[motion_condition]"]) == ("motion_condition",)
    assert arguments.parse_conditions(["[]"]) == ()
    assert arguments.parse_conditions(["class_condition"]) == ()
    with pytest.raises(UserError, match="motoin.*not a condition"):
        arguments.parse_conditions(["motoin_condition"])


@pytest.mark.parametrize(
    ("tokens", "devices"),
    [
        (["[0,1,2]"], ["cuda:0", "cuda:1", "cuda:2"]),
        (["[0,", "1]"], ["cuda:0", "cuda:1"]),
        (["0", "0"], ["cuda:0", "cuda:0"]),
        (["cuda:3"], ["cuda:3"]),
        (["cpu,cpu"], ["cpu", "cpu"]),
        (["-1"], ["cpu"]),
    ],
)
def test_devices(tokens, devices):
    assert arguments.parse_devices(tokens) == devices


@pytest.mark.parametrize("tokens", [["[]"], ["gpu"], ["cuda:x"], ["0.5"]])
def test_devices_refused(tokens):
    with pytest.raises(UserError):
        arguments.parse_devices(tokens)


def test_classes_and_numbers():
    spec = datasets.get("MosMed")
    assert arguments.parse_classes([], spec) == list(spec.classes)
    assert arguments.parse_classes(["all"], spec) == list(spec.classes)
    assert arguments.parse_classes(['["CT-234","CT-0"]'], spec) == ["CT-0", "CT-234"]
    assert arguments.named_classes(["CT-234,", "CT-0", "CT-234"], spec) == ["CT-234", "CT-0"]
    with pytest.raises(UserError, match="CT-2"):
        arguments.parse_classes(["CT-2"], spec)
    assert arguments.parse_numbers(["7"], ["a", "b"]) == {"a": 7, "b": 7}
    assert arguments.parse_numbers(["[7,", "8]"], ["a", "b"]) == {"a": 7, "b": 8}
    assert arguments.parse_numbers([], ["a", "b"]) == {"a": None, "b": None}
    for wrong in (["-1"], ["x"], ["1", "2", "3"], ["1.5"]):
        with pytest.raises(UserError):
            arguments.parse_numbers(wrong, ["a", "b"])


def test_shards():
    assert arguments.parse_shard("2/3", {}) == (2, 3)
    assert arguments.parse_shard(None, {}) == (1, 1)
    assert arguments.parse_shard(None, {"RANK": "3", "WORLD_SIZE": "4"}) == (4, 4)
    array = {"ID": "6", "MIN": "2", "MAX": "8", "COUNT": "4"}  # --array=2-8:2
    assert arguments.parse_shard("slurm", {f"SLURM_ARRAY_TASK_{k}": v for k, v in array.items()}) == (3, 4)
    for wrong in ("0/3", "4/3", "x", "1-3", "slurm", "slurm/4", "1/0"):
        with pytest.raises(UserError):
            arguments.parse_shard(wrong, {})


def array_task(ids, task):
    """The environment of ``task`` in the job array ``ids``."""
    values = {"ID": task, "MIN": min(ids), "MAX": max(ids), "COUNT": len(ids)}
    return {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in values.items()}


@pytest.mark.parametrize("ids", [range(1, 17), range(8), (2, 4, 6, 8), (1, 4, 7)])
def test_every_share_of_an_evenly_spaced_job_array_is_taken_once(ids):
    shares = [arguments.parse_shard("slurm", array_task(ids, task)) for task in ids]
    assert shares == [(place, len(ids)) for place in range(1, len(ids) + 1)]


@pytest.mark.parametrize("ids", [(1, 2, 5), (1, 2, 4, 5), (0, 1, 3), (3, 7, 8)])
def test_a_job_array_off_the_grid_fails_visibly_and_takes_no_share_twice(ids):
    shares = []
    for task in ids:
        try:
            shares.append(arguments.parse_shard("slurm", array_task(ids, task)))
        except UserError as error:
            assert "not evenly spaced" in str(error) and "--array=1-N" in str(error)
    assert len(shares) < len(ids) and len(set(shares)) == len(shares)


def test_one_resubmitted_task_is_never_the_whole_plan():
    with pytest.raises(UserError, match=r"--shard slurm/N .*--shard 3/N"):
        arguments.parse_shard("slurm", array_task([3], 3))
    assert arguments.parse_shard("slurm/16", array_task([3], 3)) == (3, 16)
    assert arguments.parse_shard("slurm/16", array_task([1, 2, 5], 5)) == (5, 16)
    for wrong in ("slurm/2", "slurm/", "slurm4"):
        with pytest.raises(UserError):
            arguments.parse_shard(wrong, array_task([3], 3))


def test_processes_of_one_machine_share_its_devices():
    devices = ["cuda:0", "cuda:1", "cuda:2"]
    assert arguments.share_devices(devices, {}) == devices
    shares = [
        arguments.share_devices(devices, {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"})
        for rank in (0, 1)
    ]
    assert shares == [["cuda:0", "cuda:2"], ["cuda:1"]]
    assert arguments.share_devices(["cpu"], {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}) == ["cpu"]
