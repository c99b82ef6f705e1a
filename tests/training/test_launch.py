"""The *_train.sh scripts: dash, any folder, any number of processes and machines, and no process that outlives them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import exclusive
from ctrlgenaug.training import processes
from ctrlgenaug.training.cli import ROOT

HERE = Path(__file__).resolve().parent
SCRIPTS = ("vae_train.sh", "LDM_train.sh", "sequence_LDM_train.sh")
DASH = shutil.which("dash") or "sh"

specification = importlib.util.spec_from_file_location("launch", ROOT / "scripts" / "launch.py")
launch = importlib.util.module_from_spec(specification)
sys.modules["launch"] = launch  # a dataclass looks its module up
specification.loader.exec_module(launch)


# --- who runs where ----------------------------------------------------------------------------------------------


def test_without_gpus_one_process_trains(monkeypatch):
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    assert launch.make_plan({}) == launch.Plan(1)
    assert launch.make_plan({"NUM_PROCESSES": "3"}).world_size == 3
    assert launch.make_plan({"CUDA_VISIBLE_DEVICES": "5,6"}).processes == 2
    assert launch.make_plan({"CUDA_VISIBLE_DEVICES": ""}).processes == 1
    assert launch.make_plan({"CUDA_VISIBLE_DEVICES": "-1"}).processes == 1


def test_the_first_four_gpus_are_used(monkeypatch):
    listed = "".join(f"GPU {n}: NVIDIA RTX A6000 (UUID: GPU-{n})\n" for n in range(8))
    monkeypatch.setattr(launch.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(
        launch.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, listed, "")
    )
    plan = launch.make_plan({})
    assert (plan.processes, plan.devices) == (4, "0,1,2,3")


MACHINES = {"NUM_MACHINES": "2", "MACHINE_RANK": "1", "MAIN_ADDRESS": "node0", "CUDA_VISIBLE_DEVICES": "0,1"}


def test_machines_are_numbered_through():
    plan = launch.make_plan(MACHINES)
    assert (plan.machines, plan.machine, plan.address, plan.port, plan.world_size) == (
        2,
        1,
        "node0",
        29500,
        4,
    )
    found = launch.environment_of(plan, 1)
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("3", "1", "4")
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("node0", "29500")


SLURM = {
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NODELIST": "gpu[07-09,12]",
    "SLURM_JOB_ID": "123456",
    "CUDA_VISIBLE_DEVICES": "0,1",
}


def test_slurm_says_it_all():
    plan = launch.make_plan(SLURM)
    assert (plan.machines, plan.machine, plan.address, plan.world_size) == (4, 2, "gpu07", 8)
    assert plan.port == launch.make_plan({**SLURM, "SLURM_NODEID": "0"}).port > 1024


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("n[3-5]", "n3"), ("n[03,07]x,m", "n03x"), ("gpu-a-7,gpu-a-8", "gpu-a-7")],
)
def test_first_host(nodes, first):
    assert launch.first_host(nodes) == first


def test_a_slurm_job_without_srun_uses_one_node_and_says_so(capsys):
    assert launch.make_plan({"SLURM_NNODES": "2", "CUDA_VISIBLE_DEVICES": ""}).machines == 1
    assert "Write srun" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NUM_PROCESSES": "two"}, "NUM_PROCESSES=two"),
        ({"NUM_PROCESSES": "0"}, "NUM_PROCESSES=0"),
        ({"NUM_MACHINES": "2"}, "MAIN_ADDRESS"),
        ({**MACHINES, "MACHINE_RANK": "2"}, "MACHINE_RANK=2"),
        ({**MACHINES, "MAIN_PORT": "x"}, "MAIN_PORT=x"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "8"}, "ntasks-per-node=1"),
    ],
)
def test_a_senseless_environment_is_one_line(environment, message):
    with pytest.raises(launch.LaunchError, match=message):
        launch.make_plan({"CUDA_VISIBLE_DEVICES": "", **environment})


@pytest.mark.parametrize("environment", [{"RANK": "x"}, {"RANK": "-1"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_a_senseless_rank_is_one_line(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="RANK="):
        processes.rank()


# --- the shell scripts -------------------------------------------------------------------------------------------


def shell(script, *arguments, cwd, **environment):
    return subprocess.run(
        [DASH, str(script), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_dash_starts_it_from_any_folder(script, tmp_path):
    (tmp_path / "my.yaml").write_text("learning_rte: 1\n")
    result = shell(ROOT / script, "my.yaml", "seed=1", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == f"1 process: train_{script.removesuffix('_train.sh')}.py --config my.yaml\n"
    assert "my.yaml: unknown field learning_rte. Did you mean learning_rate?" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "named", [("--config", "my.yaml"), ("--config=my.yaml",), ("a.yaml", "--config", "my.yaml")]
)
def test_the_config_that_is_named_is_the_one_that_is_told(named, tmp_path):
    (tmp_path / "my.yaml").write_text("learning_rte: 1\n")
    result = shell(ROOT / "vae_train.sh", *named, "seed=1", "--dry_run", cwd=tmp_path)
    assert result.stdout == "1 process: train_vae.py --config my.yaml\n"
    assert "my.yaml: unknown field learning_rte" in result.stderr


def test_a_config_flag_without_a_name_is_told_by_the_script(tmp_path):
    result = shell(ROOT / "vae_train.sh", "--config", cwd=tmp_path)
    assert result.returncode == 2 and "argument --config: expected one argument" in result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_windows_line_ends_are_refused_by_a_clear_line(script, tmp_path):
    copy = tmp_path / script
    copy.write_bytes((ROOT / script).read_bytes().replace(b"\n", b"\r\n"))
    result = shell(copy, cwd=tmp_path)
    assert result.returncode == 2 and "line ends of Windows" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_senseless_environment_ends_the_script_with_one_line(tmp_path):
    result = shell(ROOT / "vae_train.sh", cwd=tmp_path, NUM_MACHINES="x")
    assert result.returncode == 2 and result.stderr.startswith("error: NUM_MACHINES=x")


# --- machines ----------------------------------------------------------------------------------------------------

SETTINGS = ("tracker=null", "dataloader_num_workers=0", "train_batch_size=3", "log_steps=1")
ENDLESS = ("max_train_steps=1000000", "checkpointing_steps=1000000", "validation_steps=1000000")


def machine(cwd, number, port, *overrides, **environment):
    """Starts one of two "machines": a launcher with one process, on loopback."""
    (cwd / "toy.yaml").write_text("output_dir: run\n")
    variables = {"NUM_MACHINES": "2", "MACHINE_RANK": str(number), "MAIN_ADDRESS": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/launch.py"), str(HERE / "toy.py"), "toy.yaml", *SETTINGS, *overrides],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables, "MAIN_PORT": str(port),
             **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(path, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    assert path.is_file(), process.communicate()[0][-3000:]


def test_a_machine_whose_partner_s_launcher_is_killed_saves_and_leaves(tmp_path):
    """A user's own accelerate settings, for engines that are not installed, do not break the launch either."""
    home = tmp_path / "home" / ".cache" / "huggingface" / "accelerate"
    home.mkdir(parents=True)
    (home / "default_config.yaml").write_text("distributed_type: DEEPSPEED\nnum_processes: 8\n")
    port, own = free_port(), {"HOME": str(tmp_path / "home"), "ACCELERATE_USE_FSDP": "true"}
    first, second = (machine(tmp_path, number, port, *ENDLESS, **own) for number in (0, 1))
    wait_for(tmp_path / "run" / "train_loss.txt", first)
    second.kill()
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 143, output[-3000:]
    assert "machine 1 of 2, 1 process" in output and "note: FSDP is not used" in output
    assert "stopped on request" in output
    second.communicate(timeout=300)  # its process held the pipe until it left
    assert len(list((tmp_path / "run").glob("checkpoint-*/manifest.json"))) == 1
    with exclusive(tmp_path / "run"):
        pass


@pytest.mark.slow  # the test above kills a launcher too
def test_a_killed_launcher_s_training_leaves_and_frees_the_folder(tmp_path):
    (tmp_path / "toy.yaml").write_text("output_dir: run\n")
    launcher = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/launch.py"), str(HERE / "toy.py"), "toy.yaml", *SETTINGS, *ENDLESS],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "NUM_PROCESSES": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    wait_for(tmp_path / "run" / "train_loss.txt", launcher)
    launcher.send_signal(signal.SIGKILL)
    output, _ = launcher.communicate(timeout=300)  # ends when the last process has closed the pipe
    assert "the launcher is gone" in output and "stopped on request" in output
    with exclusive(tmp_path / "run"):
        pass


def test_sigterm_to_the_script_saves_and_leaves(tmp_path):
    """One process: the script becomes the training, so that no signal can miss it."""
    script = tmp_path / "toy_train.sh"
    text = (ROOT / "vae_train.sh").read_text()
    text = text.replace('"$ROOT/scripts/launch.py" train_vae.py', f'"{ROOT}/scripts/launch.py" {HERE}/toy.py')
    script.write_text(text.replace("configs/compress_ratio_8_vae_config/MosMed-vae.yaml", "toy.yaml"))
    (tmp_path / "toy.yaml").write_text("output_dir: run\n")
    process = subprocess.Popen(
        [DASH, str(script), *SETTINGS, *ENDLESS],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(tmp_path / "run" / "train_loss.txt", process)
    process.terminate()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 143, output[-3000:]
    assert "stopped on request" in (tmp_path / "run" / "log.txt").read_text()
    assert len(list((tmp_path / "run").glob("checkpoint-*/manifest.json"))) == 1
