"""Synthesises labelled clips with a trained sequence model: any number of GPUs and machines, restartable."""

from __future__ import annotations

import argparse
import os

from augment.generation import arguments, plan
from augment.generation.sampling_arguments import add_sampling, sampling_of
from ctrlgenaug import cluster, datasets, steps
from ctrlgenaug.arguments import positive_int, seed_number
from ctrlgenaug.errors import UserError

EXAMPLE = """python generate.py --load_2d_pretrained_model_name pretrained_2d_model_MosMed \\
      --load_3d_trained_model_name sequence_model_MosMed --data_name MosMed \\
      --user_defined_conditions '["image_condition", "motion_condition"]' --predifined_sampled_num 500 \\
      --class_label CT-234 --batch_size 4 --num_workers 3 --device_id_list '[0,1,2]'

many machines: the same command on each, with --shard 1/4, --shard 2/4, ... or --shard slurm in a job array, or under
accelerate launch --num_machines N. Any division makes the same files. Started again, it makes only what is missing."""


def add_plan(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is made")
    datasets.add_data_options(what)
    what.add_argument("--data_root", default=".", help="folder that holds the data set's home (default: .)")
    what.add_argument(
        "--split", choices=datasets.SPLITS, default="train", help="whose conditions are used (default: train)"
    )
    what.add_argument(
        "--allow_test_conditions",
        action="store_true",
        help="needed for --split test: training on such clips leaks the test set",
    )
    what.add_argument(
        "--class_label",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="one, several or all classes (default: all)",
    )
    what.add_argument(
        "--predifined_sampled_num",
        "--predefined_sampled_num",
        nargs="+",
        default=[],
        metavar="N",
        help="samples of each class, or one number a class, in --class_label's order (default: as many as real clips)",
    )
    what.add_argument(
        "--seed", type=seed_number, default=plan.PLAN_SEED, help="of the plan (default: %(default)s)"
    )
    what.add_argument("--dry_run", action="store_true", help="print the planned file names and stop")


def add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model and conditions")
    model.add_argument(
        "--sequence_model_path",
        "--load_3d_trained_model_name",
        "--pretrained_model_path",
        dest="model_path",
        metavar="FOLDER",
        help="the trained sequence model: its UNet is in checkpoint/unet3d, unet3d or the newest checkpoint-N/unet3d",
    )
    model.add_argument(
        "--image_model_path",
        "--load_2d_pretrained_model_name",
        metavar="FOLDER",
        help="pretrained_2d_model_[data], for VAE, text encoder, tokenizer and scheduler "
        "(default: they are in the sequence model's folder)",
    )
    model.add_argument("--vae_path", help="another VAE folder than the model's own")
    model.add_argument(
        "--user_defined_conditions",
        nargs="+",
        metavar="CONDITION",
        default=["image_condition", "motion_condition"],
        help="image_condition, motion_condition (default: both); the class label is always used",
    )
    model.add_argument(
        "--text",
        default="auto",
        metavar="auto|none|metadata|PROMPT",
        help="prompts from the metadata, or one for all samples (default: auto, metadata if the model was trained so)",
    )
    model.add_argument(
        "--num_frames",
        type=positive_int,
        help="frames where no motion field tells, and of all clips with --context_length (default: the data set's)",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    running = parser.add_argument_group("running and output")
    running.add_argument(
        "--device_id_list",
        nargs="+",
        default=[],
        metavar="DEVICE",
        help="[0,1,2], cuda:1 or cpu (default: all GPUs, else cpu)",
    )
    running.add_argument(
        "--batch_size",
        type=positive_int,
        default=4,
        help="samples at once on a GPU (default: %(default)s); halved when memory runs out",
    )
    running.add_argument(
        "--num_workers",
        type=positive_int,
        help="processes in all: the i-th works on the i-th of the devices, which are taken in turn "
        "(default: 1 a GPU; on a CPU as many as cores and memory allow)",
    )
    running.add_argument(
        "--shard",
        help="i/n: this machine's share; slurm: the place in a job array; slurm/n: the same, of n shares",
    )
    cluster.add_option(running)
    running.add_argument("--output_dir", help="(default: FOLDER/cond_{first letters}_synthesis_mp4)")
    running.add_argument("--lossless", action="store_true", help="keep every grey value (larger files)")


def main() -> int:
    parser = steps.parser(__doc__, EXAMPLE)
    for add_group in (add_plan, add_model, add_sampling, add_running):
        add_group(parser)
    options = parser.parse_args()
    spec = datasets.chosen(options)
    if options.split == "test" and not options.allow_test_conditions:
        raise UserError(
            "--split test makes clips from test conditions, which leak into whatever is trained on them",
            "Add --allow_test_conditions if that is wanted",
        )
    classes = arguments.parse_classes(options.class_label, spec)
    named = arguments.named_classes(
        options.class_label, spec
    )  # one number a class: in the order of their names there
    numbers = arguments.parse_numbers(options.predifined_sampled_num, named)
    shard = arguments.parse_shard(options.shard)
    clips = spec.clips(spec.home_in(options.data_root), options.split)
    samples = plan.make_plan(clips, classes, numbers, options.seed)
    if options.dry_run:
        print(*(sample.file_name for sample in plan.take_shard(samples, *shard)), sep="\n")
        return 0
    if options.model_path is None:
        raise UserError("--sequence_model_path is missing", "Give the trained sequence model's folder")

    from augment.generation.generate_folder import Request, generate_folder  # a dry run need not wait for it

    request = Request(
        model_path=options.model_path,
        image_model_path=options.image_model_path,
        data_root=options.data_root,
        split=options.split,
        conditions=arguments.parse_conditions(options.user_defined_conditions),
        text=options.text,
        vae_path=options.vae_path,
        sampling=sampling_of(options),
        num_frames=options.num_frames,
        devices=tuple(arguments.parse_devices(options.device_id_list)) if options.device_id_list else (),
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        output_dir=options.output_dir,
        lossless=options.lossless,
    )
    outcome, folder = generate_folder(samples, spec, request, shard)
    made = f"{outcome.counts['made']} clips made, {outcome.counts['kept']} were there already, in {folder}"
    print(outcome.closing_line(made))
    vae = options.vae_path or options.image_model_path or options.model_path
    print(f"next: python VAE-Seq.py --vae_path {vae} --synthetic_dir {os.path.relpath(folder)}")
    return outcome.exit_code()


if __name__ == "__main__":
    steps.run(main)
