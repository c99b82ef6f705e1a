"""Fills a folder with the stand-in synthesiser: the run that tests kill. ``fill.py OUT MARKS COUNT PAUSE [i/n]``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from stand_in import StandIn  # noqa: E402

from augment.generation.fill_folder import Work, fill_folder  # noqa: E402
from augment.generation.plan import Sample, take_shard  # noqa: E402
from augment.generation.synthesis_folder import SynthesisFolder  # noqa: E402


def samples(count):
    return [Sample(f"study_{i:04d}_s01", "CT-0", 66) for i in range(count)]


if __name__ == "__main__":
    out, marks, count, pause = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    shard = tuple(map(int, sys.argv[5].split("/"))) if len(sys.argv) > 5 else (1, 1)
    work = Work(
        StandIn,
        {"marks": marks, "pause": pause},
        ["cpu", "cpu"],
        batch_size=3,
        shard=shard,
        settings={"conditions": ["image_condition"]},
    )
    outcome = fill_folder(take_shard(samples(count), *shard), SynthesisFolder(out), work)
    sys.exit(outcome.exit_code())
