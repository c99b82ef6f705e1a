"""Puts a run's newest checkpoint where the next step expects it, without training on."""

from __future__ import annotations

from ctrlgenaug import steps
from ctrlgenaug.training.export import export_run
from ctrlgenaug.training.official_export import write_officially


def main() -> int:
    parser = steps.parser(
        "Exports the newest whole checkpoint of a training run to the folder that the next step expects.",
        "python export_model.py --run runs/MosMed/ldm --out pretrained_2d_model_MosMed",
    )
    parser.add_argument("--run", required=True, help="the run folder (output_dir of the training)")
    parser.add_argument("--out", help="where to (default: the run's export_dir)")
    parser.add_argument(
        "--checkpoint", help="a checkpoint's name instead of the newest, e.g. checkpoint-1000"
    )
    parser.add_argument(
        "--no_ema", action="store_true", help="the trained weights even where an average was kept"
    )
    parser.add_argument(
        "--official_format",
        action="store_true",
        help="as the published code loads it: .bin weights, its config fields (this project loads it, too)",
    )
    arguments = parser.parse_args()
    made = export_run(arguments.run, arguments.out, arguments.checkpoint, use_average=not arguments.no_ema)
    if arguments.official_format:
        write_officially(made)
    print(f"exported to {made}. Next: the training or generation step that takes this folder")
    return 0


if __name__ == "__main__":
    steps.run(main)
