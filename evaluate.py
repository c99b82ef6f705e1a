"""Judges synthetic clips by FVD, FID, VAE-Seq, smoothness, diversity, class control and memorisation.

Each per class and in total. Real clips are scored beside the synthetic ones, and against each other, so that every
figure has something to be held against. Folders made from test conditions are refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ctrlgenaug import datasets, steps
from ctrlgenaug.errors import UserError

METRICS = ("fvd", "fid", "vae_seq", "smoothness", "diversity", "class_control", "memorisation")

EXAMPLE = """python evaluate.py --real MosMedData --synthetic MosMed_filtered \\
      --classifier classifier_MosMed/classifier.pth --vae_path sequence_model_MosMed

  python evaluate.py --synthetic MosMed_filtered --classifier classifier_MosMed/classifier.pth --metrics class_control

docs/evaluation.md says how each figure is computed and what it can and cannot tell."""


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    data = parser.add_argument_group("data")
    data.add_argument("--synthetic", nargs="+", required=True, help="folders of generated or filtered clips")
    data.add_argument(
        "--real", help="the data set's folder, or the folder that holds it (for all but class_control)"
    )
    data.add_argument(
        "--split", choices=datasets.SPLITS, default="train", help="of the real clips (default: train)"
    )
    datasets.add_data_options(data, "default: the classifier's, or MosMed")
    what = parser.add_argument_group("what is computed, and with what")
    what.add_argument(
        "--metrics",
        nargs="+",
        default=["all"],
        help=f"{', '.join(METRICS)} (default: all that the flags allow)",
    )
    what.add_argument("--classifier", help="checkpoint of train_classifier.py, trained on real clips")
    what.add_argument("--vae_path", help="the VAE's folder, or the folder of a model that has one")
    what.add_argument(
        "--i3d_weights", help="i3d_torchscript.pt, for the usual FVD (default: the classifier's features)"
    )
    what.add_argument("--i3d_sha256", help="its SHA-256, to be checked")
    what.add_argument(
        "--inception_weights", help="inception-2015-12-05.pt (default: the classifier's features)"
    )
    what.add_argument("--inception_sha256", help="its SHA-256, to be checked")
    what.add_argument(
        "--interpolator",
        choices=("mean", "flow", "amt"),
        default="mean",
        help="of smoothness: mean of the neighbours, optical flow, or AMT-S (package vbench) (default: mean)",
    )
    what.add_argument("--amt_weights", help="amt-s.pth")
    what.add_argument("--draws", type=int, default=10, help="resamples of FVD and FID (default: 10)")
    what.add_argument("--seed", type=int, default=3407, help="of the resamples (default: 3407)")
    what.add_argument(
        "--memorisation_quantile",
        type=float,
        default=0.01,
        help="a clip nearer to a training clip than this part of real clips are to another patient's is flagged",
    )
    running = parser.add_argument_group("running and output")
    running.add_argument(
        "--output", default="evaluation.json", help="with .md and .png beside it (default: %(default)s)"
    )
    running.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    running.add_argument("--batch_size", type=int, default=8, help="clips at once (default: 8)")
    return parser.parse_args()


def choose_metrics(options: argparse.Namespace) -> list[str]:
    """What can be computed with the flags given; a `UserError` if something asked for cannot."""
    lacking = {
        "fvd": [] if options.classifier or options.i3d_weights else ["--i3d_weights or --classifier"],
        "fid": []
        if options.classifier or options.inception_weights
        else ["--inception_weights or --classifier"],
        "vae_seq": [] if options.vae_path else ["--vae_path"],
        "class_control": [] if options.classifier else ["--classifier"],
    }
    if not options.real:
        for metric in ("fvd", "fid", "memorisation"):
            lacking.setdefault(metric, []).insert(0, "--real")
    asked = [name for text in options.metrics for name in text.split(",") if name]
    if asked == ["all"]:
        chosen = [metric for metric in METRICS if not lacking.get(metric)]
        for metric in METRICS:
            if lacking.get(metric):
                print(f"note: no {metric} without {' and '.join(lacking[metric])}", file=sys.stderr)
        return chosen
    for metric in asked:
        if metric not in METRICS:
            raise UserError(f"{metric!r} is not a metric", f"Known: {', '.join(METRICS)}")
        if lacking.get(metric):
            raise UserError(f"{metric} needs {' and '.join(lacking[metric])}", "Give it")
    return asked


def make_tools(
    options: argparse.Namespace,
    metrics: list[str],
    classifier: tuple[Any, dict] | None,
    device: str,
    clips: Path | None,
) -> Any:
    """The networks and functions that ``metrics`` need; see `augment.quality.evaluation.Tools`."""
    from augment.classifiers import score
    from augment.quality import features, smoothness
    from augment.quality.evaluation import Tools
    from augment.quality.latent_store import open_store
    from augment.quality.latents import LatentSettings

    labels, tools = {}, {}
    if "fvd" in metrics:
        tools["clip_features"] = (
            features.i3d(options.i3d_weights, options.i3d_sha256, device)
            if options.i3d_weights
            else features.classifier_clips(classifier[0], device, classifier[1]["name"])
        )
        labels["fvd"] = tools["clip_features"].label
    if "fid" in metrics:
        tools["frame_features"] = (
            features.inception(options.inception_weights, options.inception_sha256, device)
            if options.inception_weights
            else features.classifier_frames(classifier[0], device, classifier[1]["name"])
        )
        labels["fid"] = tools["frame_features"].label
    if "class_control" in metrics:
        tools["logits"] = lambda frames: score(classifier[0], frames, device, options.batch_size)
        labels["class_control"] = f"{classifier[1]['name']} ({options.classifier})"
    if "smoothness" in metrics:
        if options.interpolator == "amt":
            scorer = smoothness.amt_scorer(options.amt_weights or "amt-s.pth", device)
            tools["smoothness"] = lambda path, frames: scorer(path)
        else:
            interpolate = smoothness.INTERPOLATORS[options.interpolator]
            tools["smoothness"] = lambda path, frames: smoothness.smoothness(frames, interpolate)
        labels["smoothness"] = {
            "mean": "the mean of the neighbouring frames, not AMT-S",
            "flow": "DIS optical flow, not AMT-S",
            "amt": "AMT-S by vbench",
        }[options.interpolator]
    if options.vae_path and {"vae_seq", "diversity", "memorisation"} & set(metrics):
        folders = (clips, Path(options.synthetic[0]) if len(options.synthetic) == 1 else None)
        tools["latents"] = tuple(
            open_store(
                options.vae_path, folder, LatentSettings(), device=device, batch_size=options.batch_size
            )
            for folder in folders
        )
        labels["vae_seq"] = f"the VAE in {options.vae_path}, as published"
    return Tools(**tools, labels=labels)


def main() -> int:
    options = parse_arguments()
    metrics = choose_metrics(options)
    if not metrics:
        raise UserError("nothing can be computed", "Give --real, --classifier or --vae_path")

    from augment.classifiers import load
    from augment.classifiers.clip_items import real_items, synthetic_items
    from augment.quality.evaluation import evaluate
    from augment.quality.evaluation_report import headline, markdown
    from ctrlgenaug.devices import pick_device
    from ctrlgenaug.files import write_text
    from ctrlgenaug.plain_data import write_json

    device = pick_device(options.device)
    classifier = load(options.classifier, device) if options.classifier else None
    spec = datasets.chosen(options, (classifier and classifier[1]["data_name"]) or datasets.DEFAULT)
    if classifier and classifier[1]["classes"] not in (None, list(spec.classes)):
        raise UserError(
            f"is a classifier of {classifier[1]['data_name']}", "Check --data_name", options.classifier
        )
    real, test, clips = [], [], None
    if options.real:
        home = spec.home_in(options.real)
        clips = home / spec.clips_dir
        real = real_items(spec, home, options.split)
        test = real_items(spec, home, "test") if spec.metadata_path(clips, "test").is_file() else []
    synthetic, strangers = synthetic_items(options.synthetic, spec, test)
    for name in strangers:
        print(f"skipped {name}: it is not named like a synthetic clip of {spec.data_name}", file=sys.stderr)

    output = Path(options.output).with_suffix(".json")
    result = evaluate(
        spec,
        real,
        synthetic,
        metrics,
        make_tools(options, metrics, classifier, device, clips),
        batch_size=options.batch_size,
        draws=options.draws,
        seed=options.seed,
        quantile=options.memorisation_quantile,
        picture=output.with_suffix(".png"),
    )
    result |= {"synthetic": options.synthetic, "real": options.real, "split": options.split}
    write_json(output, result)
    write_text(output.with_suffix(".md"), markdown(result))
    for name, reason in result["failures"].items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    failed = len(result["failures"]) + len(strangers)
    bad = f"; {failed} files skipped (listed above)" if failed else ""
    print(
        f"{headline(result)}: {len(synthetic)} synthetic clips, {output} and {output.with_suffix('.md')}{bad}"
    )
    return steps.EXIT_SOME_FAILED if failed else 0


if __name__ == "__main__":
    steps.run(main)
