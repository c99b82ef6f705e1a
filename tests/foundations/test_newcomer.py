"""A newcomer's exercises, done as CONTRIBUTING.md writes them: its code is run, the real scripts know the result."""

from __future__ import annotations

import json
import re

import pytest
from clip_home import SPEC, make_home, make_synthetic
from diffusers import AutoencoderKL

from augment.quality import clip_sets, filter_levels, metrics
from augment.report.evaluation_sections import evaluation_section
from augment.report.page import Table
from augment.report.run_folders import find
from augment.report.synthesis_sections import filter_section
from cond2img.pipelines.solvers import make_scheduler
from cond2img.sampling import SOLVERS, Sampling
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.video import read_video, write_mp4


def exercise(repository, title):
    """The code that CONTRIBUTING.md shows for "**title**"."""
    page = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^\*\*{title}\*\*.*?^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found, f"CONTRIBUTING.md has no code for {title!r}"
    return compile(found[1], "CONTRIBUTING.md", "exec")


@pytest.fixture
def registries():
    """What is registered in a test is gone after it."""
    tables = (clip_sets.FEATURES, metrics.METRICS, filter_levels.LEVELS, SOLVERS)
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = make_home(tmp_path_factory.mktemp("newcomer"), train=2, test=1, clips=1)
    made = make_synthetic(root, root / "synthetic", each=1)
    dark = sorted(made.glob("*.mp4"))[0]
    write_mp4(dark, read_video(dark) // 4)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(1, 1, **kinds, block_out_channels=(4,) * 4, norm_num_groups=2, latent_channels=4)
    vae.save_pretrained(root / "vae")
    return root


def test_add_a_metric(root, repository, registries, call_script):
    exec(exercise(repository, "A metric"), {})
    arguments = ("--real", ".", "--synthetic", "synthetic", "--metrics", "contrast", "--device", "cpu")
    result = call_script("evaluate.py", *arguments, cwd=root)
    row = json.loads((root / "evaluation.json").read_text())["metrics"]["contrast"]
    clips = [read_video(path).std() for path in (root / "synthetic").glob("*.mp4")]
    assert row["all"]["synthetic"]["mean"] == pytest.approx(sum(clips) / len(clips))
    assert row["CT-0"]["real"]["count"] == 2
    assert f"Contrast {sum(clips) / len(clips):.2f} grey values" in result.stdout
    assert "## Contrast" in (root / "evaluation.md").read_text()
    section = evaluation_section(find(SPEC, root, evaluation=root / "evaluation.json"))
    assert any(isinstance(block, Table) and block.caption == "Contrast" for block in section.blocks)


def test_add_a_filter_level(root, repository, registries, call_script):
    exec(exercise(repository, "A filter level"), {})
    arguments = (
        "--synthetic_dir",
        "synthetic",
        "--vae_path",
        "vae",
        "--levels",
        "brightness",
        "--save_base",
        "kept",
    )
    result = call_script("noisy_data_filter.py", *arguments, cwd=root)
    assert "5 of 6 clips kept in kept" in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["class", "before", "semantic", "within", "between", "brightness"] in lines
    assert [*["its", "mean", "grey", "value", "is", "below", "40"], "1", "0", "0", "1"] in lines
    record = json.loads((root / "kept" / "filter_report.json").read_text())
    dropped = [row for row in record["samples"] if row["decision"] == "dropped"]
    assert [row["reason"] for row in dropped] == ["dark"] and record["counts"]["CT-0"][
        "after_brightness"
    ] == 1
    tables = [
        b for b in filter_section(find(SPEC, root, filtered=root / "kept")).blocks if isinstance(b, Table)
    ]
    assert "brightness" in tables[0].header and tables[1].rows[0][0] == "its mean grey value is below 40"


def test_add_a_solver(repository, registries, call_script, tmp_path):
    exec(exercise(repository, "A solver"), {})
    scheduler = make_scheduler("dpmsolver++3", NoiseSchedule("v_prediction"))
    assert (scheduler.config.solver_order, scheduler.config.prediction_type) == (3, "v_prediction")
    assert Sampling(solver="dpmsolver++3", num_inference_steps=20).solver == "dpmsolver++3"
    assert "dpmsolver++3" in call_script("generate.py", "--help", cwd=tmp_path).stdout
