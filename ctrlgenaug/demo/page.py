"""The demo's closing page: pictures of every stage, the figures, and what each step made and took.

``python -m ctrlgenaug.demo.page --run demo_run`` writes ``index.html`` and ``overview.png`` into the run's folder.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug import datasets, steps
from ctrlgenaug.files import atomic_path, read_json
from ctrlgenaug.report import Section, Table, write_page
from ctrlgenaug.video import read_video

SPEC = datasets.MOSMED
SYNTHETIC = "sequence_model_MosMed/cond_im_synthesis_mp4"
FILTERED = "MosMed_synthetic_filtered"
STAGES = {"vae": "VAE", "ldm": "LDM", "sequence_ldm": "sequence LDM"}


def draw_overview(run: Path, target: Path, shown: int = 8) -> None:
    """Draws, for every class, a real clip above a synthetic one of its class; ``shown`` frames each.

    The real clip is one that the synthetic clip was *not* conditioned on, so that likeness is the model's doing.
    """
    from matplotlib.figure import Figure

    home = SPEC.home_in(run)
    clips = SPEC.clips(home)
    found = [
        *sorted((run / FILTERED).glob("*.mp4")),
        *sorted((run / SYNTHETIC).glob("*.mp4")),
    ]  # kept ones first
    rows: list[tuple[str, np.ndarray]] = []
    for cls in SPEC.classes:
        made = [path for path in found if path.stem.rsplit("_", 2)[1] == cls]
        source = made[0].stem.rsplit("_", 2)[0] if made else ""
        real = next((clip for clip in clips if clip.cls == cls and clip.name != source), None)
        if real:
            rows.append((f"{cls}\nreal", read_video(home / SPEC.clips_dir / real.file_name)))
        if made:
            rows.append((f"{cls}\nsynthetic", read_video(made[0])))
    figure = Figure(figsize=(1.2 * shown + 1, 1.2 * len(rows)), dpi=110, layout="constrained")
    grid = figure.subplots(len(rows), shown, squeeze=False)
    for axes_row, (title, frames) in zip(grid, rows, strict=True):
        for axes, index in zip(
            axes_row, np.linspace(0, len(frames) - 1, shown).round().astype(int), strict=True
        ):
            axes.imshow(frames[index], cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(title, fontsize=9, rotation=0, ha="right", va="center")
    with atomic_path(target) as temporary:
        figure.savefig(temporary)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _last_loss(path: Path) -> str:
    """The loss a stage ended with: the mean of its last rows, because single ones are noisy."""
    rows = [json.loads(line) for line in path.read_text().splitlines()[-10:]] if path.is_file() else []
    return f"{np.mean([row['loss'] for row in rows]):.4g}" if rows else "none"


def class_control_line(control: dict[str, Any]) -> str:
    """How often a classifier that saw only real clips finds the requested class in synthetic ones, in a sentence."""
    if not control:
        return "Class control was not measured."
    return (
        f"A classifier trained only on real clips finds the requested class in {100 * control['accuracy']:.0f} % of "
        f"{control['count']} synthetic clips (chance: {100 / len(SPEC.classes):.0f} %)."
    )


def _accuracy(figures: dict[str, Any]) -> str:
    return f"{100 * figures['accuracy']:.0f} % of {figures['count']}" if figures else "not measured"


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else folder / pattern


def sections(run: Path) -> list[Section]:
    """The page's parts, from what the steps left in ``run``."""
    home, synthetic, filtered = SPEC.home_in(run), run / SYNTHETIC, run / FILTERED
    control = (
        _optional(run / "runs/class_control.json").get("metrics", {}).get("class_control", {}).get("all", {})
    )
    real = _optional(run / "runs/classifier/metrics.json").get("test", {}).get("clip", {})
    scores = _optional(synthetic / "VAE_Seq_train_results.json")
    with (run / "steps.tsv").open(encoding="utf-8") as handle:
        taken = [(*row, "", "")[:4] for row in csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)]
    figures = [
        ("class control: accuracy on synthetic clips", _accuracy(control)),
        ("the same classifier on real test clips", _accuracy(real)),
        (
            "VAE-Seq of the synthetic clips, mean %",
            f"{np.mean(list(scores.values())):.2f}" if scores else "none",
        ),
        ("synthetic clips: made, kept", f"{len(scores)}, {len(list(filtered.glob('**/*.mp4')))}"),
        *(
            (f"{title}: last loss", _last_loss(run / "runs" / name / "stats.jsonl"))
            for name, title in STAGES.items()
        ),
    ]
    curves = [(run / "runs" / name / "loss_curve.png", f"{title}: loss") for name, title in STAGES.items()]
    return [
        Section(
            "Real and synthetic clips",
            "Each pair: a real phantom patient, and a clip made for the same class from another patient's conditions.",
            key=class_control_line(control),
            pictures=[(run / "overview.png", "Real clips above synthetic ones, a pair a class")],
        ),
        Section("Figures", table=Table(("figure", "value"), figures, numeric=(1,))),
        Section(
            "Reconstruction",
            "Test frames above their reconstructions by the VAE.",
            pictures=[
                (
                    _newest(run / "runs/vae/inter_test_results", "iter_*.png"),
                    "VAE: originals, reconstructions",
                )
            ],
        ),
        Section(
            "Motion field",
            "What the video encoder saw move between neighbouring frames of a clip.",
            pictures=[(_newest(home, f"{SPEC.motion_dir}_pictures/*.png"), "Motion vectors of one clip")],
        ),
        Section("Training", pictures=curves),
        Section(
            "Noise filter",
            "Clips whose VAE-Seq lies outside the two thresholds are dropped.",
            pictures=[
                (filtered / "inner-video-kmeans-threshold.png", "4-means over the VAE-Seq values"),
                (filtered / "filter_examples.png", "Kept and dropped clips, with the reason"),
            ],
        ),
        Section(
            "All synthetic clips",
            pictures=[(path, path.stem) for path in sorted(synthetic.glob("contact_sheet_*.png"))],
        ),
        Section(
            "Steps",
            "Every step is a command that can be run alone.",
            table=Table(("step", "seconds", "what it made", "command"), taken, numeric=(1,)),
        ),
    ]


def main() -> int:
    """Draws the overview and writes the page."""
    parser = steps.parser(__doc__.splitlines()[0], "python -m ctrlgenaug.demo.page --run demo_run")
    parser.add_argument("--run", default=".", help="the demo's folder (default: .)")
    parser.add_argument("--seconds", type=float, help="what the whole demo took")
    options = parser.parse_args()
    run = Path(options.run)
    draw_overview(run, run / "overview.png")
    parts = sections(run)
    took = f" It took {options.seconds / 60:.1f} minutes." if options.seconds else ""
    lead = (
        "The whole method on generated patients: small models, random stand-ins for the published weights."
        f"{took} The figures say that the chain works, not how good the method is on real data."
    )
    write_page(run / "index.html", "Ctrl-GenAug demo", lead, parts)
    print(parts[0].key)
    print(f"page: {(run / 'index.html').resolve()}.{took}")
    return 0


if __name__ == "__main__":
    steps.run(main)
