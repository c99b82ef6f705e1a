"""Scores the clips of a folder by VAE-Seq: the cosine similarity of neighbouring frames' VAE latents, in percent."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality import vae_seq
from augment.quality.latent_store import open_store
from augment.quality.latents import LatentSettings
from ctrlgenaug import model_steps, steps
from ctrlgenaug.arguments import positive_int, seed_number

EXAMPLE = """python VAE-Seq.py --vae_path sequence_model_MosMed/MosMed-vae-pretrained \\
      --synthetic_dir sequence_model_MosMed/cond_im_synthesis_mp4

Writes VAE_Seq_train_results.json (file name -> score), .csv and .png into that folder, or into --output_dir where it
may not be written. Latents are kept in .latents there, so that a second run, and the noise filter, need not compute
them again."""


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    parser.add_argument("--synthetic_dir", "--syn_data_p", required=True, help="folder of MP4 (or AVI) clips")
    parser.add_argument(
        "--vae_path",
        "--load_2d_pretrained_model_name",
        required=True,
        help="the VAE's folder, or the folder of a model that has one",
    )
    parser.add_argument(
        "--pixel_range",
        choices=("official", "model"),
        default="official",
        help="what the VAE is fed: official [0, 1], as published, or the training range [-1, 1] (default: official)",
    )
    parser.add_argument(
        "--posterior",
        choices=("sample", "mode"),
        default="sample",
        help="sampled latents, as published, or the posterior's mode (default: sample)",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=3407, help="of the sampling (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    parser.add_argument(
        "--batch_size", type=positive_int, default=4, help="clips at once on a GPU (default: %(default)s)"
    )
    model_steps.add_options(parser)
    parser.add_argument("--no_cache", action="store_true", help="keep no latents")
    parser.add_argument(
        "--output_dir", help="where scores and latents go (default: the synthetic folder, as published)"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    folder = Path(options.synthetic_dir)
    output = Path(options.output_dir or folder)
    videos, workers = vae_seq.list_videos(folder), model_steps.chosen(options)
    SynthesisFolder(folder).say_if_filled()
    store = open_store(
        options.vae_path,
        None if options.no_cache else output,
        LatentSettings(options.pixel_range, options.posterior, options.seed),
        device=workers.own_device,
        batch_size=options.batch_size,
    )
    outcome = vae_seq.score_videos(store, videos, workers)
    if outcome.results:
        vae_seq.write_results(output, outcome.results, store.made_with)
        mean = np.mean(list(outcome.results.values()))
        print(f"VAE-Seq {mean:.2f} % over {len(outcome.results)} clips ({store.computed} newly encoded)")
    print(outcome.closing_line(f"scores in {output / vae_seq.RESULTS}.json, .csv and .png"))
    scores = "" if output == folder else f" --scores_dir {output}"
    print(
        f"next: python noisy_data_filter.py --synthetic_dir {folder}{scores} --vae_path {options.vae_path} ..."
    )
    return outcome.exit_code()


if __name__ == "__main__":
    steps.run(main)
