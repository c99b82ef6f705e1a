"""Faster sampling against the method's 200 DDIM steps: same conditions, same noise, fewer steps or less guidance.

    python benchmarks/solvers.py --run demo_run        on the demo's model and its classifier

Prints a Markdown table as it goes: seconds a clip (of the processor, on a CPU), VAE-Seq, class control (share of clips
in which a classifier trained on real clips finds the class asked for), and how far the frames are from those of 200
steps (mean absolute difference in grey values; the row "one seed to another" gives the scale).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from augment.classifiers.checkpoint import scorer
from augment.generation.plan import Sample
from augment.generation.synthesiser import SequenceSynthesiser
from augment.quality.latents import LatentStore
from augment.quality.vae_seq import score_videos
from cond2img.guidance import Guidance
from cond2img.models import load_vae
from cond2img.sampling import Sampling
from cond2video.model_folder import find_model_folder
from ctrlgenaug import datasets
from ctrlgenaug.video import write_mp4

INTERVAL = (200, 800)


@dataclass(frozen=True)
class Setting:
    """A row of the table."""

    sampling: Sampling
    seed_shift: int = 0

    @property
    def title(self) -> str:
        sampling, guidance = self.sampling, self.sampling.guidance
        shown = f"{guidance.scale:g}" if guidance.is_free else "none"
        if guidance.interval:
            shown += " in {}-{}".format(*guidance.interval)
        name = f"{sampling.solver} | {sampling.num_inference_steps} | {shown} | {sampling.dtype}"
        return f"{name}, one seed to another" if self.seed_shift else name


def settings(scale: float) -> list[Setting]:
    """The rows; the first is what the others are compared with."""
    everywhere, within = Guidance(scale), Guidance(scale, INTERVAL)
    quick = Sampling("unipc", 20, everywhere)
    return [
        Setting(Sampling("ddim", 200, everywhere)),
        Setting(Sampling("ddim", 50, everywhere)),
        Setting(Sampling("dpmsolver++", 50, everywhere)),
        Setting(Sampling("dpmsolver++", 20, everywhere)),
        Setting(Sampling("unipc", 50, everywhere)),
        Setting(quick),
        Setting(quick, seed_shift=1),
        Setting(replace(quick, dtype="bfloat16")),
        Setting(replace(quick, guidance=within)),
        Setting(replace(quick, guidance=Guidance(1))),
        Setting(Sampling("ddim", 200, within)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="demo_run", help="folder of the demo (default: %(default)s)")
    parser.add_argument("--data_name", default="MosMed", help="(default: %(default)s)")
    parser.add_argument("--sequence_model_path", help="(default: RUN/sequence_model_{data})")
    parser.add_argument("--classifier", help="(default: RUN/runs/classifier/classifier.pth)")
    parser.add_argument("--clips", type=int, default=2, help="clips of each class (default: %(default)s)")
    parser.add_argument("--guidance_scale", type=float, default=7.5, help="(default: %(default)s)")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    run, spec = Path(args.run), datasets.get(args.data_name)
    home = spec.home_in(run)
    model = args.sequence_model_path or str(run / f"sequence_model_{spec.data_name}")
    classify = scorer(args.classifier or run / "runs/classifier/classifier.pth", device=args.device)
    vae = find_model_folder(model, spec.data_name).vae
    store = LatentStore(lambda: load_vae(vae).eval().to(args.device), "vae", None, device=args.device)
    real = spec.clips(home)
    chosen = [clip for cls in spec.classes for clip in [c for c in real if c.cls == cls][: args.clips]]
    labels = np.array([spec.class_id(clip.cls) for clip in chosen])
    clock = time.process_time if args.device == "cpu" else time.perf_counter

    print(f"{len(chosen)} clips, {args.device}, torch {torch.__version__}\n")
    print("| solver | steps | guidance | precision | seconds a clip | VAE-Seq % | class control | distance |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    reference: np.ndarray | None = None
    for setting in settings(args.guidance_scale):
        synthesiser = SequenceSynthesiser(
            args.device,
            model,
            spec.data_name,
            str(home),
            ("image_condition", "motion_condition"),
            sampling=setting.sampling,
        )
        samples = [
            Sample(clip.name, clip.cls, 66 + place + len(chosen) * setting.seed_shift)
            for place, clip in enumerate(chosen)
        ]
        conditions = [synthesiser.load(sample) for sample in samples]
        start = clock()
        frames = np.stack(list(synthesiser.synthesise(samples, conditions)))  # (N, F, H, W)
        seconds = (clock() - start) / len(samples)
        reference = frames if reference is None else reference
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / sample.file_name for sample in samples]
            for path, clip in zip(paths, frames, strict=True):
                write_mp4(path, clip)
            vae_seq = np.mean(list(score_videos(store, paths).results.values()))
        control = np.mean(classify(frames).argmax(1) == labels)
        distance = np.abs(frames.astype(float) - reference).mean()
        print(
            f"| {setting.title} | {seconds:.1f} | {vae_seq:.2f} | {control:.0%} | {distance:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
