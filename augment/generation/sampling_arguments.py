"""The command line's words for `cond2img.sampling.Sampling`, the same wherever clips are synthesised."""

from __future__ import annotations

import argparse

from cond2img.guidance import CONTRASTS, Guidance
from cond2img.sampling import BATCH_NORMS, DTYPES, NOISES, SOLVERS, SPACINGS, Sampling
from ctrlgenaug.arguments import number_from_0, positive_int


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The group of flags that says how clips are sampled; the published values are the defaults."""
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "--scheduler",
        choices=SOLVERS,
        default="ddim",
        help="the method's is ddim (default: %(default)s)",
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
        "--contrast_with",
        choices=CONTRASTS,
        default="mean",
        help="with --class_contrast: away from the mean of the other classes, or from the one whose prediction lies "
        "nearest, for classes that lie between others (default: %(default)s)",
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
        guidance=Guidance(options.guidance_scale, interval, options.class_contrast, options.contrast_with),
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
