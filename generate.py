"""Synthesises labelled clips with a trained sequence model: any number of GPUs and machines, restartable."""

from __future__ import annotations

import argparse
import os

from augment.generation import arguments, plan
from cond2img.guidance import Guidance
from cond2img.sampling import BATCH_NORMS, DTYPES, NOISES, SOLVERS, SPACINGS, Sampling
from ctrlgenaug import cluster, datasets, steps
from ctrlgenaug.arguments import number_from_0, positive_int, seed_number
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
        help="samples of each class, or one number a class (default: as many as real clips)",
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


def add_sampling(parser: argparse.ArgumentParser) -> None:
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "--scheduler",
        choices=SOLVERS,
        default="ddim",
        help="(default: %(default)s, the method's)",
    )
    sampling.add_argument(
        "--timestep_spacing",
        choices=SPACINGS,
        help="which timesteps are visited: trailing starts at the very last one and suits few steps "
        "(default: leading, as published; trailing for a model trained with zero-terminal SNR)",
    )
    sampling.add_argument(
        "--num_inference_steps", type=positive_int, default=200, help="(default: %(default)s)"
    )
    sampling.add_argument("--guidance_scale", type=number_from_0, default=7.5, help="(default: %(default)s)")
    sampling.add_argument(
        "--guidance_interval",
        type=number_from_0,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="timesteps, of 0 to 999, with guidance; outside, a step costs half (default: all)",
    )
    sampling.add_argument(
        "--class_contrast",
        type=number_from_0,
        default=0.0,
        metavar="W",
        help="also guide away from the other classes, where the class is followed too weakly: 1 is a good start; "
        "a step costs one branch more for each other class (default: 0, off, as published)",
    )
    sampling.add_argument(
        "--noise",
        choices=NOISES,
        default="shared",
        help="initial noise: shared by all clips with the same seed, as published, or each sample's own, "
        "for variety where conditions steer weakly (default: %(default)s)",
    )
    sampling.add_argument(
        "--noise_correlation",
        type=number_from_0,
        default=0.0,
        metavar="C",
        help="of the initial noise of a clip's frames, 0 to 1: the higher, the less they differ by chance, so that "
        "slices come in order, but chance findings stay, too (default: 0, each frame its own, as published)",
    )
    sampling.add_argument(
        "--batch_norm",
        choices=BATCH_NORMS,
        default="running",
        help="normalise the image prior with the statistics of training, or, as the published scripts do, with "
        "those of the two guidance branches (default: %(default)s)",
    )
    sampling.add_argument(
        "--cache_interval",
        type=positive_int,
        default=1,
        metavar="N",
        help="compute the UNet's deep features at one in N steps only: faster, slightly different frames "
        "(default: 1, off)",
    )
    sampling.add_argument(
        "--cache_center",
        type=number_from_0,
        metavar="SHARE",
        help="with --cache_interval: where in the run, 0 (start) to 1 (end), those steps lie closest together; "
        "their distances grow away from there (default: evenly spread)",
    )
    sampling.add_argument(
        "--context_length",
        type=positive_int,
        metavar="FRAMES",
        help="denoise longer clips in overlapping windows of so many frames, those of training; --num_frames is then "
        "the length of every clip, whose motion runs there and back if it has less (default: clips as a whole)",
    )
    sampling.add_argument(
        "--context_stride",
        type=positive_int,
        metavar="FRAMES",
        help="from the start of a window to that of the next (default: half of --context_length)",
    )
    sampling.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="(default: %(default)s)",
    )
    sampling.add_argument("--compile", action="store_true", help="compile the UNet first")


def sampling_of(options: argparse.Namespace) -> Sampling:
    """The sampling that the flags ask for."""
    interval = options.guidance_interval and tuple(options.guidance_interval)
    return Sampling(
        solver=options.scheduler,
        num_inference_steps=options.num_inference_steps,
        guidance=Guidance(options.guidance_scale, interval, options.class_contrast),
        timestep_spacing=options.timestep_spacing,
        noise=options.noise,
        noise_correlation=options.noise_correlation,
        batch_norm=options.batch_norm,
        cache_interval=options.cache_interval,
        cache_center=options.cache_center,
        context_length=options.context_length,
        context_stride=options.context_stride,
        dtype=options.dtype,
        compiled=options.compile,
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
    numbers = arguments.parse_numbers(options.predifined_sampled_num, classes)
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
