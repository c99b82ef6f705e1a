"""Faster sampling against the method's 200 DDIM steps: same conditions, same noise, fewer or cheaper steps.

    python benchmarks/solvers.py --run demo_run --clips 2        on the demo's model and its classifier

Prints a Markdown table as it goes: seconds a clip (of the processor, on a CPU); FVD of the classifier's features to the
real clips; VAE-Seq; class control (share of clips in which a classifier trained on real clips finds the class asked
for); prior retrieved (share whose first frame is nearer to its own real first frame than to those of the other patients
of its class); distance (mean absolute difference in grey values from the first row; "other noise" gives its scale).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from augment.classifiers.checkpoint import load, score_and_features
from augment.generation.plan import Sample
from augment.generation.synthesiser import SequenceSynthesiser
from augment.quality import similarity
from augment.quality.frechet import frechet_distance
from augment.quality.latents import LatentStore
from augment.quality.vae_seq import score_videos
from cond2img.guidance import Guidance
from cond2img.models import load_vae
from cond2img.sampling import Sampling
from cond2video.model_folder import find_model_folder
from ctrlgenaug import datasets
from ctrlgenaug.video import read_video, write_mp4

INTERVAL = (200, 800)
NOISIER_HALF = (500, 999)
FEWEST_FOR_FVD = 10  # clips; of fewer the distance says how few they are


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
        cache = "off" if sampling.cache_interval == 1 else f"{sampling.cache_interval}"
        if sampling.cache_center is not None:
            cache += f" around {sampling.cache_center:g}"
        solver = sampling.solver + (", other noise" if self.seed_shift else "")
        spacing = sampling.timestep_spacing or "leading"
        return f"{solver} | {sampling.num_inference_steps} | {spacing} | {shown} | {cache} | {sampling.dtype}"


def settings(scale: float) -> list[Setting]:
    """The rows; the first is what the others are compared with."""
    everywhere, within, noisier = Guidance(scale), Guidance(scale, INTERVAL), Guidance(scale, NOISIER_HALF)
    quick = Sampling("unipc", 20, everywhere)
    cached = replace(quick, cache_interval=2)
    return [
        Setting(Sampling("ddim", 200, everywhere)),
        Setting(Sampling("ddim", 50, everywhere)),
        Setting(Sampling("ddim", 20, everywhere)),
        Setting(Sampling("ddim", 20, everywhere, timestep_spacing="trailing")),
        Setting(Sampling("dpmsolver++", 20, everywhere)),
        Setting(quick),
        Setting(quick, seed_shift=1),
        Setting(replace(quick, timestep_spacing="trailing")),
        Setting(replace(quick, dtype="bfloat16")),
        Setting(replace(quick, guidance=within)),
        Setting(replace(quick, guidance=noisier, timestep_spacing="trailing")),
        Setting(replace(quick, guidance=Guidance(1))),
        Setting(cached),
        Setting(replace(cached, cache_center=0.3)),
        Setting(replace(cached, cache_center=0.7)),
        Setting(replace(quick, cache_interval=3)),
        Setting(replace(cached, dtype="bfloat16")),
        Setting(replace(cached, dtype="bfloat16", guidance=noisier, timestep_spacing="trailing")),
    ]


@dataclass(frozen=True)
class Judge:
    """What the clips of every row are measured by.

    Attributes:
        model: a classifier of the real clips.
        device: where it runs.
        store: the VAE's latents.
        real: (N, F, H, W) uint8, all real clips.
        labels: (N,) their classes.
        chosen: which of them the synthetic clips have their conditions from, in order.
    """

    model: Any
    device: str
    store: LatentStore
    real: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray

    def __call__(self, frames: np.ndarray, samples: list[Sample], reference: np.ndarray) -> str:
        """The cells of a row, from the clips (N, F, H, W) uint8 that were made of ``samples``."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / sample.file_name for sample in samples]
            for path, clip in zip(paths, frames, strict=True):
                write_mp4(path, clip)
            vae_seq = np.mean(list(score_videos(self.store, paths).results.values()))
        logits, features = score_and_features(self.model, frames, self.device, 8)
        _, real_features = score_and_features(self.model, self.real, self.device, 8)
        control = np.mean(logits.argmax(1) == self.labels[self.chosen])
        distance = np.abs(frames.astype(float) - reference).mean()
        fvd = f"{frechet_distance(real_features, features):.2f}" if len(frames) >= FEWEST_FOR_FVD else "-"
        return f"{fvd} | {vae_seq:.2f} | {control:.0%} | {self._retrieved(frames):.0%} | {distance:.1f}"

    def _retrieved(self, frames: np.ndarray) -> float:
        first = [
            np.stack([similarity.thumbnail(clip[:1]) for clip in clips]) for clips in (frames, self.real)
        ]
        distances = similarity.pixel_distances(*first)  # (made, real)
        distances[self.labels[self.chosen][:, None] != self.labels] = np.inf
        return float(np.mean(distances.argmin(1) == self.chosen))


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
    judge_path = args.classifier or run / "runs/classifier/classifier.pth"
    classifier, _ = load(judge_path, args.device)
    vae = find_model_folder(model, spec.data_name).vae
    store = LatentStore(lambda: load_vae(vae).eval().to(args.device), "vae", None, device=args.device)
    clips = spec.clips(home)
    positions = [[n for n, clip in enumerate(clips) if clip.cls == cls][: args.clips] for cls in spec.classes]
    of_rows = np.array(sum(positions, []))
    chosen = [clips[position] for position in of_rows]
    real = np.stack([read_video(home / spec.clips_dir / clip.file_name) for clip in clips])
    judge = Judge(
        classifier, args.device, store, real, np.array([spec.class_id(clip.cls) for clip in clips]), of_rows
    )
    clock = time.process_time if args.device == "cpu" else time.perf_counter

    print(f"{len(chosen)} clips, {args.device}, torch {torch.__version__}\n")
    print("| solver | steps | spacing | guidance | cache | precision | seconds a clip | FVD | VAE-Seq % "
          "| class control | prior retrieved | distance |\n" + "|---" * 12 + "|", flush=True)  # fmt: skip
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
        cells = judge(frames, samples, reference)
        print(f"| {setting.title} | {seconds:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
