"""generate.py as a user runs it, on a tiny random model."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ctrlgenaug import datasets
from ctrlgenaug.plain_data import write_json
from ctrlgenaug.preprocessing import ledger

FEW = ("--num_inference_steps", 1, "--device_id_list", "cpu", "--predifined_sampled_num", 2)
FOUR = (*FEW, "--class_label", "CT-0", "CT-234")
NAMES = {f"study_000{i}_s01_{cls}_{seed}.mp4" for i, cls in ((1, "CT-0"), (3, "CT-234")) for seed in (66, 67)}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


@pytest.fixture(scope="module")
def published(world):
    """The folders that the published commands name: the 2-D model's, and the sequence model's as the zoo has it."""
    image_model, sequence_model = world / "pretrained_2d_model", world / "pretrained_3d_model"
    image_model.mkdir()
    for part in ("text_encoder", "tokenizer", "scheduler"):
        (image_model / part).symlink_to(world / "model" / part)
    (image_model / "vae-pretrained").symlink_to(world / "model" / "MosMed-vae-pretrained")
    (image_model / "unet").symlink_to(world / "unet")
    (sequence_model / "checkpoint").mkdir(parents=True)
    (sequence_model / "checkpoint" / "unet3d").symlink_to(world / "model" / "unet3d")
    return sequence_model


@pytest.fixture(scope="module")
def whole(world, published, repository):
    """The folder of an undisturbed run by the published command line, as sh passes it without quotes."""
    line = " ".join(
        [
            f'"{sys.executable}" "$0"',
            "--load_2d_pretrained_model_name pretrained_2d_model",
            "--load_3d_trained_model_name pretrained_3d_model",
            '--user_defined_conditions ["image_condition", "motion_condition"]',
            "--predifined_sampled_num 2 --class_label [CT-0, CT-234]",
            "--batch_size 4 --num_workers 2 --device_id_list [-1,-1]",
            "--num_inference_steps 1",
        ]
    )
    result = subprocess.run(
        ["sh", "-c", line, str(repository / "generate.py")],
        cwd=world,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "4 clips made, 0 were there already" in result.stdout
    assert "next: python VAE-Seq.py --vae_path pretrained_2d_model " in result.stdout
    return published / "cond_im_synthesis_mp4"


def test_the_published_call(whole):
    assert set(contents(whole)) == NAMES
    assert {path.name for path in whole.iterdir()} - NAMES == {
        "manifest.jsonl",
        "settings.json",
        "contact_sheet_CT-0.png",
        "contact_sheet_CT-234.png",
    }
    rows = [json.loads(line) for line in (whole / "manifest.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows} == NAMES
    assert (
        rows[0]["conditions"] == ["image_condition", "motion_condition"]
        and len(rows[0]["model"]["unet"]) == 16
    )


def test_batch_workers_and_a_failing_neighbour_change_no_byte(whole, world, call_script, tmp_path):
    shutil.copytree(world / "MosMedData", tmp_path / "MosMedData")
    (tmp_path / "MosMedData" / "MosMed_data_emb" / "study_0002_slice01.npy").unlink()
    more = ("--batch_size", 1, "--num_workers", 2, "--output_dir", tmp_path / "out")
    model = ("--sequence_model_path", world / "model")
    result = call_script("generate.py", *model, *FEW, *more, cwd=tmp_path, code=1)
    assert contents(tmp_path / "out") == contents(whole)  # CT-1's only clip has no prior
    assert "skipped study_0002_s01_CT-1_66.mp4" in result.stderr
    assert "study_0002_slice01.npy" in result.stderr and "2 failed" in result.stdout


@pytest.mark.slow
def test_shards_equal_the_whole(whole, world, repository, tmp_path):
    command = [
        sys.executable,
        str(repository / "generate.py"),
        "--pretrained_model_path",
        "model",
        *map(str, FOUR),
    ]
    shards = [
        subprocess.Popen(
            [*command, "--output_dir", str(tmp_path / "out"), "--shard", f"{i}/3"],
            cwd=world,
            stderr=subprocess.DEVNULL,
        )
        for i in (1, 2, 3)
    ]
    assert [shard.wait(600) for shard in shards] == [0, 0, 0]
    assert contents(tmp_path / "out") == contents(whole)
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows} == NAMES


@pytest.mark.slow
def test_two_machines_of_a_cluster_equal_the_whole(whole, world, on_two_nodes, tmp_path):
    result = on_two_nodes(
        ["generate.py", "--pretrained_model_path", "model", *FOUR, "--output_dir", tmp_path / "out"],
        cwd=world,
    )
    assert "4 clips made, 0 were there already" in result.stdout
    assert contents(tmp_path / "out") == contents(whole)
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows} == NAMES and all(row["host_bytes"] > 1e8 for row in rows)


def test_started_again(whole, world, call_script, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    lost = out / "study_0003_s01_CT-234_67.mp4"
    lost.unlink()
    more = ("--output_dir", out)
    result = call_script("generate.py", "--sequence_model_path", "model", *FOUR, *more, cwd=world)
    assert "1 clips made, 3 were there already" in result.stdout
    assert contents(out) == contents(whole)
    other = ("--guidance_scale", 3)
    result = call_script(
        "generate.py", "--sequence_model_path", "model", *FOUR, *more, *other, cwd=world, code=2
    )
    assert "guidance_scale: 7.5 there, 3.0 now" in result.stderr


def test_changed_frames_and_other_priors_are_noticed(world, published, call_script, tmp_path):
    shutil.copytree(world / "MosMedData", tmp_path / "MosMedData")
    spec = datasets.get("MosMed")
    priors = tmp_path / "MosMedData" / spec.priors_dir
    write_json(priors / "weights.json", {"fingerprint": "one encoder", "dtype": "float32"})

    def run(frame, code=0):
        """The four clips, after the first frame of one patient's clip was noted to be ``frame``."""
        case = spec.first_frame("study_0001_s01")
        ledger.record(priors, {"case": case, "made_from": frame, "files": {}})
        flags = ("--sequence_model_path", world / "model", "--output_dir", "out", *FOUR)
        return call_script("generate.py", *flags, cwd=tmp_path, code=code)

    assert "4 clips made, 0 were there already" in run("a frame").stdout
    assert "0 clips made, 4 were there already" in run("a frame").stdout
    again = run("another frame")
    assert "note: 2 clips were made from other versions of their conditions" in again.stderr + again.stdout
    assert "2 clips made, 2 were there already" in again.stdout
    write_json(priors / "weights.json", {"fingerprint": "another encoder", "dtype": "float32"})
    refused = run("another frame", code=2)
    assert "image_prior.fingerprint: one encoder there, another encoder now" in refused.stderr


def test_dry_run_prints_names_and_nothing_else(world, run_script, call_script):
    result = run_script("generate.py", "--dry_run", *FOUR, cwd=world)
    assert set(result.stdout.splitlines()) == NAMES and len(result.stdout.splitlines()) == 4
    assert result.stderr == ""
    shard = call_script("generate.py", "--dry_run", *FOUR, "--shard", "2/4", cwd=world)
    assert shard.stdout.splitlines() == result.stdout.splitlines()[1::4]
    slurm = {"ID": "7", "MIN": "6", "MAX": "9", "COUNT": "4"}
    environment = {f"SLURM_ARRAY_TASK_{key}": value for key, value in slurm.items()}
    array = call_script("generate.py", "--dry_run", *FOUR, "--shard", "slurm", cwd=world, env=environment)
    assert array.stdout == shard.stdout
    launched = {"RANK": "1", "WORLD_SIZE": "4"}
    assert call_script("generate.py", "--dry_run", *FOUR, cwd=world, env=launched).stdout == shard.stdout
    spelled = call_script("generate.py", "--dry_run", "--predefined_sampled_num", "[2,0,2]", cwd=world)
    assert set(spelled.stdout.splitlines()) == NAMES
    numbers = (
        "--class_label",
        "CT-234",
        "CT-0",
        "--predefined_sampled_num",
        "2",
        "0",
    )  # in the order of the classes
    ordered = call_script("generate.py", "--dry_run", *numbers, cwd=world)
    assert {line.rsplit("_", 2)[1] for line in ordered.stdout.splitlines()} == {"CT-234"}


def test_test_conditions_need_a_word(world, call_script):
    result = call_script("generate.py", "--dry_run", "--split", "test", cwd=world, code=2)
    assert "leak" in result.stderr and "--allow_test_conditions" in result.stderr
    result = call_script("generate.py", "--dry_run", "--split", "test", "--allow_test_conditions", cwd=world)
    assert result.stdout.splitlines()[0] == "study_0004_s01_CT-0_66.mp4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sequence_model_path", "nowhere"], "nowhere: is not a folder"),
        (["--sequence_model_path", "MosMedData"], "holds no sequence UNet"),
        (["--sequence_model_path", "image_model"], "is a UNet2DMultiConditionModel, an image model"),
        ([], "--sequence_model_path is missing"),
        (["--data_name", "MosMet"], "Did you mean MosMed?"),
        (["--data_name", "ACDC"], "Run the step that writes it first"),
        (["--class_label", "CT-2"], "'CT-2' is not a class of MosMed"),
        (["--sequence_model_path", "model", "--user_defined_conditions", "imege"], "not a condition"),
        (["--sequence_model_path", "model", "--text", "metadata"], "MosMed has no texts"),
        (["--sequence_model_path", "model", "--text", "metdata"], "Did you mean metadata?"),
        (["--shard", "3/2"], "shard 3/2 does not exist"),
    ],
)
def test_mistakes_are_one_line(world, call_script, tmp_path, arguments, message):
    image_model = world / "image_model"
    if not image_model.exists():
        (image_model / "unet").mkdir(parents=True)
        shutil.copy(world / "unet" / "config.json", image_model / "unet")
    result = call_script("generate.py", *arguments, "--output_dir", tmp_path / "out", cwd=world, code=2)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_texts_steer_a_model_that_was_trained_with_them(text_world, call_script, tmp_path):
    root, texts = text_world
    one, other = texts
    base = ("generate.py", "--data_name", "TUSC", "--sequence_model_path", "text_model")
    base += (
        "--class_label",
        "TR4",
        "--num_inference_steps",
        1,
        "--device_id_list",
        "cpu",
        "--num_workers",
        1,
    )
    call_script(*base, cwd=root)
    folder = root / "text_model" / "cond_imt_synthesis_mp4"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert {row["clip"]: row["prompt"] for row in rows} == texts

    override = ("--text", texts[one], "--output_dir", tmp_path / "out")
    call_script(*base, *override, cwd=root)
    own, given = contents(folder), contents(tmp_path / "out")
    assert given[f"{one}_TR4_66.mp4"] == own[f"{one}_TR4_66.mp4"]  # the clip's own text, given by hand
    assert given[f"{other}_TR4_66.mp4"] != own[f"{other}_TR4_66.mp4"]
    override = ("--text", texts[other], "--output_dir", tmp_path / "out")
    assert "prompt_of_all: " in call_script(*base, *override, cwd=root, code=2).stderr


@pytest.mark.slow
def test_twenty_kills_of_the_real_thing(world, repository, whole, tmp_path):
    out, draw = tmp_path / "out", random.Random(20)
    command = [sys.executable, str(repository / "generate.py"), "--sequence_model_path", "model"]
    command += [*map(str, FOUR), "--num_workers", "2", "--output_dir", str(out)]
    undisturbed, at_work = contents(whole), 0
    for round_ in range(20):
        process = subprocess.Popen(command, cwd=world, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if round_ % 2:  # at a random moment of the start
            time.sleep(draw.uniform(0.2, 8))
        else:  # or of the work, on a slow machine too
            before = len(list(out.glob("*.mp4")))
            while process.poll() is None and len(list(out.glob("*.mp4"))) == before:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        at_work += process.wait() != 0 and (out / ".parts").exists() and any(out.glob("*.mp4"))
        found = contents(out)
        assert found == {name: undisturbed[name] for name in found}  # a name stands for a whole file
        if len(found) >= len(NAMES) - 1:
            for lost in draw.sample(sorted(found), 3):
                (out / lost).unlink()
    assert at_work >= 8
    assert subprocess.run(command, cwd=world, check=False, capture_output=True).returncode == 0
    assert contents(out) == undisturbed
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
