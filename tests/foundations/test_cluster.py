"""Tasks on a Ray cluster: the same files, and errors in one line before work starts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ctrlgenaug import cluster
from ctrlgenaug.errors import UserError

pytest.importorskip("ray")
HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("nonsense", "'nonsense' is no address"),
        ("ray://head", "is no address"),
    ],
)
def test_a_cluster_that_does_not_answer(address, message):
    with pytest.raises(UserError, match=message):
        cluster.connect(address)


class FakeRay:
    """What the check of GPUs asks for."""

    @staticmethod
    def cluster_resources():
        return {"CPU": 4.0, "GPU": 1.0}


def test_fewer_gpus_than_asked_for():
    with pytest.raises(UserError, match="the cluster has 1 GPUs, 2 are asked for"):
        cluster.RayExecutor(FakeRay, print, {}, ["cuda:0", "cuda:1"], print)


def test_what_a_machine_says_of_itself(tmp_path):
    told = cluster._describe_node([str(tmp_path), str(tmp_path / "none")])
    assert told["missing"] == [str(tmp_path / "none")] and len(told["code"]) == 16


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="needs a network namespace")
def test_two_nodes_of_which_one_is_taken_away(tmp_path):
    command = f'ip link set lo up && exec "{sys.executable}" "{HERE / "two_nodes.py"}" "{tmp_path}"'
    result = subprocess.run(
        ["unshare", "--net", "sh", "-c", command], capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert (tmp_path / "taken").exists()
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.bin")}
    assert made == {f"case{i:02d}.bin": f"case{i:02d}".encode() * 100 for i in range(24)}
    assert "24 {'kills': 'its worker died" in result.stdout
