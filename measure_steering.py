"""Measures whether a trained model follows class, text, image prior and motion field; no sampling, minutes at most.

Clean latents are recovered from noise with a sample's own conditions, with another sample's and with none. A model that
follows a condition errs far less with the own one. Works on the folders that training exports and on published ones.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ctrlgenaug import datasets, steps
from ctrlgenaug.arguments import positive_int
from ctrlgenaug.files import atomic_path

EXAMPLE = "python measure_steering.py --sequence_model_path sequence_model_MosMed --data_name MosMed --out steering.csv"


def main() -> int:
    parser = steps.parser(__doc__ or "", EXAMPLE)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--sequence_model_path",
        "--load_3d_trained_model_name",
        metavar="DIR",
        help="the sequence model; without it the image model is measured",
    )
    model.add_argument(
        "--image_model_path",
        "--load_2d_pretrained_model_name",
        metavar="DIR",
        help="pretrained_2d_model_[data]: the image model, and VAE, text encoder, tokenizer and scheduler of both",
    )
    model.add_argument("--vae_path", metavar="DIR", help="another VAE")
    data = parser.add_argument_group("samples")
    datasets.add_data_options(data)
    data.add_argument(
        "--data_root", default=".", metavar="DIR", help="holds the data set's home (default: here)"
    )
    data.add_argument("--split", choices=datasets.SPLITS, default="test", help="default: %(default)s")
    data.add_argument(
        "--samples", type=positive_int, default=24, help="frames or clips measured (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=positive_int, default=4, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="cpu, cuda:0 or auto (default)")
    parser.add_argument("--out", metavar="FILE", help="also write the figures as CSV")
    options = parser.parse_args()

    spec = datasets.chosen(options)
    # torch takes seconds to import; mistakes above need not wait for it
    from augment.quality.model_steering import ModelChoice, measure_model
    from cond2img.training.steering import as_table, judge
    from ctrlgenaug.devices import pick_device
    from ctrlgenaug.number_format import text_table

    rows = measure_model(
        ModelChoice(options.sequence_model_path, options.image_model_path, options.vae_path),
        spec,
        split=options.split,
        count=options.samples,
        data_root=options.data_root,
        device=pick_device(options.device),
        batch_size=options.batch_size,
    )
    table = as_table(rows, data_name=spec.data_name, split=options.split)
    print(text_table(list(table[0]), [list(row.values()) for row in table]))
    if options.out:
        with (
            atomic_path(options.out) as temporary,
            Path(temporary).open("w", encoding="utf-8", newline="") as handle,
        ):
            writer = csv.DictWriter(handle, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    print(judge(rows))
    return 0


if __name__ == "__main__":
    steps.run(main)
