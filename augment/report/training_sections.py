"""The three trainings: how far they came, with which settings, curves and validation pictures."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from augment.report.page import Block, Fold, Heading, Notice, Section, Table, picture
from augment.report.run_folders import STAGES, RunFolders
from augment.report.steering_section import steering_blocks
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import text_lines
from ctrlgenaug.number_format import NONE, number, scientific
from ctrlgenaug.plain_data import parse_json
from ctrlgenaug.training.records import Records, draw_curves

SCRIPTS = {"vae": "vae_train.sh", "ldm": "LDM_train.sh", "sequence_ldm": "sequence_LDM_train.sh"}
SHOWN = {
    "pretrained_model_path": "starts from",
    "num_train_epochs": "epochs",
    "max_train_steps": "steps at most",
    "train_batch_size": "batch of a process",
    "gradient_accumulation_steps": "accumulation",
    "learning_rate": "learning rate",
    "lr_scheduler": "schedule",
    "lr_warmup_steps": "warm-up steps",
    "mixed_precision": "precision",
    "perceptual_loss": "perceptual loss",
    "condition_dropping": "condition dropping",
    "caption_column": "text column",
    "ema": "moving average",
    "seed": "seed",
}
AVERAGED = 10  # rows of stats.jsonl: single ones are noisy
CLIPS_SHOWN = 3  # validation pictures of the sequence stage


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's stats.jsonl; torn lines are passed over."""
    path, rows = folder / "stats.jsonl", []
    for line in text_lines(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def config_of(folder: Path) -> dict[str, Any]:
    """A run's config.yaml; empty if there is none.

    Raises:
        UserError: it is not YAML.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        raise UserError("is not readable YAML", "Write it again", path) from None
    return found if isinstance(found, dict) else {}


def training_section(folders: RunFolders) -> Section:
    """A table of the stages, one of their settings, then curve and validation pictures of each."""
    section, progress, settings = Section("Training"), [], {}
    details: list[Block] = []
    for name, title in STAGES.items():
        folder = folders.runs / name
        rows = rows_of(folder)
        if not rows:
            details.append(Notice(f"{title}: no records in {folder}. Made by {SCRIPTS[name]}."))
            continue
        settings[title] = config_of(folder)
        tests = Records(folder, active=False).test_rows()
        losses = [row["loss"] for row in rows if "loss" in row]
        last = scientific(_mean(losses[-AVERAGED:]))
        tested = [value for row in tests for key, value in row.items() if key != "step"]
        before_after = [scientific(value) for value in (tested[:1] + tested[-1:])] or [NONE, NONE]
        progress.append(
            (title, rows[-1]["step"], number(rows[-1].get("samples"), 0),
             scientific(_mean(losses[:AVERAGED])), last, *before_after, *_cost(rows))
        )  # fmt: skip
        details.append(Heading(title))
        if len(tested) > 1 and not tested[-1] < tested[0]:
            details.append(
                Notice(f"{title}: the loss on test samples did not fall ({' to '.join(before_after)}).")
            )
        details += _pictures(name, title, folder, [*rows, *tests])
        details += steering_blocks(folder, title)
        details.append(Fold(f"{title}: the whole config", yaml.safe_dump(settings[title], sort_keys=False)))
        section.facts.append((f"{title}: steps, last loss", f"{rows[-1]['step']}, {last}"))
    if progress:
        heads = ("stage", "steps", "samples", "first loss", "last loss", "first test loss", "last test loss",
                 "samples/s", "peak memory, GB")  # fmt: skip
        caption = (
            f"First and last loss: means of {AVERAGED} records; test losses: one each. Speed: the median."
        )
        section.blocks.append(Table(heads, progress, numeric=range(1, len(heads)), caption=caption))
        section.blocks.append(_settings(settings))
    section.blocks += details
    return section


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None


def _cost(rows: list[dict[str, Any]]) -> tuple[str, str]:
    """Samples a second (the median) and peak memory in GB."""
    speed = [row["samples_per_s"] for row in rows if "samples_per_s" in row]
    memory = [row["peak_memory_gb"] for row in rows if "peak_memory_gb" in row]
    return number(median(speed) if speed else None, 1), number(max(memory, default=None), 1)


def _settings(settings: dict[str, dict[str, Any]]) -> Table:
    """Settings as rows, stages as columns."""
    rows = [
        (title, *(_cell(config.get(key)) for config in settings.values()))
        for key, title in SHOWN.items()
        if any(config.get(key) is not None for config in settings.values())
    ]
    return Table(("setting", *settings), rows, caption="Settings", long=range(1, len(settings) + 1))


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return NONE if value is None else str(value)


def _by_step(paths: Iterable[Path]) -> list[Path]:
    """``iter_N`` files or folders in the order of N."""
    numbered = [(int(match[1]), path) for path in paths if (match := re.fullmatch(r"iter_(\d+)", path.stem))]
    return [path for _, path in sorted(numbered)]


def _pictures(name: str, title: str, folder: Path, rows: list[dict[str, Any]]) -> list[Block]:
    curve = folder / "loss_curve.png"
    if curve.is_file():
        blocks: list[Block] = [picture(curve, f"{title}: curves")]
    else:  # a run that was not finished has drawn none yet
        with tempfile.TemporaryDirectory() as temporary:
            blocks = [picture(draw_curves(rows, Path(temporary) / "curve.png"), f"{title}: curves so far")]
    shown = _by_step((folder / "inter_test_results").glob("iter_*"))
    if not shown:
        return [*blocks, Notice(f"{title}: no validation pictures in {folder / 'inter_test_results'}.")]
    step = shown[-1].stem.removeprefix("iter_")
    if name == "sequence_ldm":
        strips = sorted(shown[-1].glob("*.png"))[:CLIPS_SHOWN]
        what = "real clip above synthetic ones"
        return blocks + [picture(path, f"Step {step}, {path.stem}: {what}") for path in strips]
    what = {"vae": "originals above reconstructions", "ldm": "real frames, priors, samples"}[name]
    return [*blocks, picture(shown[-1], f"Step {step}: {what}")]
