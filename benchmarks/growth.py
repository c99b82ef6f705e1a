"""How the cost of a synthesis folder grows with its clips: resuming, folding journals, listing, contact sheets.

Clips are empty files and the synthesiser is none: what is measured is everything around them. Processor seconds of one
process; a column that grows ten times from row to row is linear.

    python benchmarks/growth.py --most 1000000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from augment.generation.fill_folder import draw_contact_sheets
from augment.generation.plan import make_plan
from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug import datasets
from ctrlgenaug.datasets import Clip
from ctrlgenaug.video import write_mp4

SETTINGS = {"conditions": ["image_condition"], "guidance_scale": 7.5, "split": "train"}
REAL_CLIPS = 3000


def seconds(what: Callable[[], object]) -> float:
    before = time.process_time()
    what()
    return time.process_time() - before


def measure(count: int, root: Path) -> list[float]:
    """Processor seconds: plan, a run that makes every clip, a run that finds them made, listing, contact sheets."""
    import numpy as np

    spec = datasets.get("MosMed")
    clips = [
        Clip(f"study_{n:05d}_s01", f"study_{n:05d}_s01.avi", spec.classes[n % 3]) for n in range(REAL_CLIPS)
    ]
    folder, plan = SynthesisFolder(root / str(count)), []
    write_mp4(root / "clip.mp4", np.zeros((8, 256, 256), np.uint8))
    clip = (root / "clip.mp4").read_bytes()

    def make_the_plan() -> None:
        plan.extend(make_plan(clips, spec.classes, dict.fromkeys(spec.classes, count // 3)))

    def make_all() -> None:
        with folder.filled_by((1, 1), SETTINGS) as part:
            for number, sample in enumerate(part.missing(plan)):
                # one in a hundred can be read, so that contact sheets have something to show
                (folder.path / sample.file_name).write_bytes(clip if number % 100 == 0 else b"x")
                part.add(sample, "cpu", 1.0)

    def resume() -> None:
        with folder.filled_by((1, 1), SETTINGS) as part:
            assert not part.remove_outdated(plan) and not part.missing(plan)

    return [
        seconds(make_the_plan),
        seconds(make_all),
        seconds(resume),
        seconds(lambda: folder.clips(spec)),
        seconds(lambda: draw_contact_sheets(folder, plan)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--most", type=int, default=100_000, help="clips of the largest folder (default: %(default)s)"
    )
    options = parser.parse_args()
    print(
        "| clips | plan | files, rows and folding | resuming a finished folder | listing | contact sheets |"
    )
    print("|---|---|---|---|---|---|")
    count = 1000
    with tempfile.TemporaryDirectory() as folder:
        while count <= options.most:
            row = measure(count, Path(folder))
            print(f"| {count} | " + " | ".join(f"{value:.2f} s" for value in row) + " |", flush=True)
            count *= 10


if __name__ == "__main__":
    main()
