"""Tasks on a Ray cluster: the same files, and errors in one line before work starts."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ctrlgenaug import cluster, cluster_address
from ctrlgenaug.errors import UserError

pytest.importorskip("ray")
HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("nonsense", "'nonsense' is no address"),
        ("ray://head", "is no address"),
        ("http://127.0.0.1:1", "is no address"),
        ("127.0.0.1:99999", "is no address"),
        ("127.0.0.1:\uff11", "is no address"),
        (f"{'a' * 70}:6379", "there can be no machine of that name"),
    ],
)
def test_a_cluster_that_does_not_answer(address, message):
    with pytest.raises(UserError, match=message):
        cluster.connect(address)


def test_a_port_where_something_else_than_ray_answers(monkeypatch):
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        stranger = threading.Thread(target=lambda: server.accept()[0].close())
        stranger.start()
        with pytest.raises(UserError, match=f"no Ray cluster answers at {address}"):
            cluster.connect(address)
        stranger.join()
        monkeypatch.setattr(cluster_address, "SECONDS_TO_ANSWER", 0.1)
        with pytest.raises(UserError, match=r"no Ray cluster answers at .* \(timed out\)"):
            cluster.connect(address)  # it takes the call and says nothing


def test_the_cluster_of_auto_has_ended(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(UserError, match="no Ray cluster answers at 127.0.0.1:1"):
        cluster.connect("auto")


def test_the_head_machine_is_lost():
    code = (
        "import threading; from ctrlgenaug import cluster; cluster.SECONDS_BETWEEN_CALLS = 0.01; "
        "cluster.SECONDS_TO_COME_BACK = 0; cluster._watch_head(('127.0.0.1', 1), threading.Event())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: the head machine of the cluster does not answer any more" in done.stderr


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


def test_no_processor(monkeypatch):
    monkeypatch.setattr(FakeRay, "cluster_resources", staticmethod(lambda: {"memory": 1.0}))
    with pytest.raises(UserError, match="the cluster has no processor"):
        cluster.RayExecutor(FakeRay, print, {}, ["cpu"], print)


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
