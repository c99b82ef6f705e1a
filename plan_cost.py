"""Says what a large synthesis will cost, in hours, disk and memory, from a few clips made beforehand."""

from __future__ import annotations

from augment.generation.cost import estimate
from ctrlgenaug import steps
from ctrlgenaug.arguments import positive_int

EXAMPLE = """python generate.py ... --predifined_sampled_num 4        # a few clips, with the settings you want
  python plan_cost.py --clips 100000 --gpus 16 --measured sequence_model_MosMed/cond_im_synthesis_mp4"""


def main() -> int:
    parser = steps.parser(__doc__, EXAMPLE)
    parser.add_argument("--clips", type=positive_int, required=True, help="how many are wanted")
    parser.add_argument(
        "--gpus", "--workers", dest="workers", type=positive_int, default=1, help="side by side (default: 1)"
    )
    parser.add_argument("--measured", required=True, metavar="FOLDER", help="a folder that generate.py made")
    options = parser.parse_args()
    print(*estimate(options.measured, options.clips, options.workers).lines(), sep="\n")
    return 0


if __name__ == "__main__":
    steps.run(main)
