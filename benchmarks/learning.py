"""Does every stage learn? The demo's curves in one picture, and the fall of the figures on test samples.

    bash demo.sh && python benchmarks/learning.py --run demo_run --output docs/images/learning.png

Prints a Markdown table and fails (exit code 1) where a stage did not reach its limit.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.training.records import Records


@dataclass(frozen=True)
class Check:
    """What a stage must reach on test samples.

    Attributes:
        folder: of the stage, below the run's ``runs``.
        title: of the stage.
        figure: the name of its test figure.
        limit: what it must come down to, as a share of what it was: every stage starts from a trained model.
    """

    folder: str
    title: str
    figure: str
    limit: float


CHECKS = (
    Check("vae", "VAE", "test_l1", 0.995),
    Check("ldm", "LDM", "test_loss", 0.95),
    Check("sequence_ldm", "sequence LDM", "test_loss", 0.97),
)


def main() -> int:
    """Prints the table, draws the curves, tells whether all limits were reached."""
    parser = steps.parser(__doc__.splitlines()[0], "python benchmarks/learning.py --run demo_run")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--run", default="demo_run", help="folder of the demo (default: %(default)s)")
    parser.add_argument("--output", default="learning.png", help="the picture (default: %(default)s)")
    options = parser.parse_args()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    learned = True
    print("| stage | on test samples | before | after | limit |\n|---|---|---|---|---|")
    for axes, check in zip(figure.subplots(1, len(CHECKS)), CHECKS, strict=True):
        folder = Path(options.run) / "runs" / check.folder
        if not (folder / "stats.jsonl").is_file():
            raise UserError("has no stats.jsonl", "Run demo.sh, or give its folder by --run", folder)
        records = Records(folder)
        trained = "rec" if check.folder == "vae" else "loss"  # the VAE's own loss goes below zero
        axes.plot(*zip(*((row["step"], row[trained]) for row in records.rows()), strict=True), linewidth=0.8)
        points = [(row["step"], row[check.figure]) for row in records.test_rows() if check.figure in row]
        axes.plot(*zip(*points, strict=True), "o--", label=f"{check.figure}, test samples")
        axes.set(title=f"{check.title}: {trained}", xlabel="step", yscale="log")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
        before, after = points[0][1], points[-1][1]
        learned &= after <= check.limit * before
        print(f"| {check.title} | {check.figure} | {before:.4f} | {after:.4f} | {check.limit:g} of before |")
    with atomic_path(options.output) as temporary:
        figure.savefig(temporary, dpi=90)
    print(
        f"curves: {options.output}; "
        + ("all stages learned" if learned else "a stage did not reach its limit")
    )
    return 0 if learned else 1


if __name__ == "__main__":
    steps.run(main)
