"""Measures generation, VAE-Seq and the filter by the real scripts: seconds a clip, seconds and memory a folder.

Without --model_path a small random model and data set are made (real shapes: 8 frames, 256 x 256, latents 32 x 32).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from augment.generation.arguments import words  # noqa: E402
from ctrlgenaug import datasets, steps  # noqa: E402
from ctrlgenaug.errors import UserError  # noqa: E402
from ctrlgenaug.plain_data import save_npy, write_jsonl  # noqa: E402
from ctrlgenaug.video import write_mp4  # noqa: E402

EXAMPLE = """python benchmarks/generation.py --workers 1 2 --batches 1 4 --videos 100 1000
  python benchmarks/generation.py --model_path sequence_model_MosMed --data_root . --devices 0 --steps 200"""


@dataclass(frozen=True)
class Cost:
    """Of one run of a script: wall-clock seconds, CPU seconds of all its processes, MB of the largest one."""

    seconds: float
    cpu_seconds: float
    peak_mb: int


def timed(script: str, *arguments: object, cwd: Path) -> Cost:
    """Runs a script."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{script} failed ({' '.join(last)})", "Run it by hand to see why")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)


def make_world(folder: Path, clips: int) -> None:
    """``MosMedData/`` with the conditions of ``clips`` clips, and ``model/``: random, but of real shapes."""
    import torch

    from augment.demo import weights
    from cond2img.models import UNet2DMultiConditionModel, load_vae
    from cond2video.models import UNet3DMultiConditionModel
    from ctrlgenaug.conditions.trajectories import save_tracks, track

    spec, home = datasets.get("MosMed"), folder / datasets.get("MosMed").home
    noise = np.random.default_rng(0)
    rows = []
    for number in range(clips):
        name = spec.clip_name(f"study_{number:04d}", 1)
        field = noise.normal(0, 6, (7, 2, 16, 16)).repeat(16, 2).repeat(16, 3).astype(np.float32)
        prior = noise.standard_normal((256, 64, 64), dtype=np.float32)
        save_npy(spec.prior_path(home, spec.first_frame(name)), prior)
        save_npy(spec.motion_path(home, name), field)
        save_tracks(spec.trajectory_path(home, name), track(field, number))
        rows.append({"file_name": f"{name}.avi", "cls": "CT-0"})
    write_jsonl(spec.metadata_path(home / spec.clips_dir, "train"), rows)

    torch.manual_seed(0)
    start, model = folder / "stable-diffusion", folder / "model"
    weights.write_stable_diffusion(start, seed=0)
    UNet2DMultiConditionModel.from_pretrained_2d(start, "unet", num_class_embeds=3).save_pretrained(
        folder / "unet"
    )
    UNet3DMultiConditionModel.from_pretrained_2d(folder / "unet").save_pretrained(model / "unet3d")
    load_vae(start / "vae").save_pretrained(model / "MosMed-vae-pretrained")
    for part in ("text_encoder", "tokenizer"):
        (start / part).rename(model / part)


def measure_generation(
    folder: Path, model: Path, data_root: Path, devices: str, workers: list[int], batches: list[int],
    clips: int, denoising_steps: int,
) -> None:  # fmt: skip
    """Prints seconds a clip against workers and batch, start-up (measured with one sample) taken off."""
    print(f"generation: {clips} clips, {denoising_steps} DDIM steps, device {devices}")
    print(f"{'workers':>10}{'batch':>10}{'start, s':>10}{'s a clip':>10}{'CPU s/clip':>12}{'peak MB':>10}")
    base = ("--sequence_model_path", model, "--data_root", data_root, "--class_label", "CT-0")
    base += ("--num_inference_steps", denoising_steps, "--device_id_list", devices)
    for number in workers:
        one = (
            "--output_dir",
            folder / f"one-{number}",
            "--num_workers",
            number,
            "--predifined_sampled_num",
            1,
        )
        first = timed("generate.py", *base, *one, cwd=folder)
        for batch in batches:
            many = ("--output_dir", folder / f"many-{number}-{batch}", "--num_workers", number)
            many += ("--batch_size", batch, "--predifined_sampled_num", clips)
            whole = timed("generate.py", *base, *many, cwd=folder)
            # `first` holds the start and one clip; the rest is made by all workers side by side
            rest = max(clips - number, 1)
            each = max(whole.seconds - first.seconds, 0) / rest
            cpu = max(whole.cpu_seconds - number * first.cpu_seconds, 0) / rest
            print(
                f"{number:>10}{batch:>10}{first.seconds:>10.1f}{each:>10.2f}{cpu:>12.2f}{whole.peak_mb:>10}",
                flush=True,
            )


def measure_quality(folder: Path, model: Path, videos: list[int], side: int, device: str) -> None:
    """Prints seconds and peak memory of VAE-Seq, VAE-Seq from its cache, and the filter with a tiny classifier."""
    from augment import classifiers

    judge = folder / "classifier.pth"
    spec = datasets.get("MosMed")
    built = classifiers.build("tiny", len(spec.classes), input_size=64)
    classifiers.save(judge, built, "tiny", spec.classes, spec.data_name)
    print(f"{'videos':>10}  {'step':<34}{'s':>8}{'CPU s':>8}{'peak MB':>10}")
    noise = np.random.default_rng(0)
    for number in videos:
        clips = folder / f"clips-{number}"
        for index in range(number):
            base = (
                noise.integers(0, 255, (32, 32), dtype=np.uint8).repeat(side // 32, 0).repeat(side // 32, 1)
            )
            drift = [np.roll(base, frame * (1 + index % 9), axis=1) for frame in range(8)]
            write_mp4(clips / f"study_{index // 10:04d}_s01_CT-0_{index % 10}.mp4", np.stack(drift))
        score = ("--vae_path", model, "--synthetic_dir", clips, "--device", device)
        keep = (*score, "--classifier_checkpoint", judge, "--save_base", folder / f"kept-{number}")
        for step, script, arguments in (
            ("VAE-Seq", "VAE-Seq.py", score),
            ("VAE-Seq again", "VAE-Seq.py", score),
            ("filter, all levels", "noisy_data_filter.py", keep),
        ):
            cost = timed(script, *arguments, cwd=folder)
            print(
                f"{number:>10}  {step:<34}{cost.seconds:>8.1f}{cost.cpu_seconds:>8.1f}{cost.peak_mb:>10}",
                flush=True,
            )


def main() -> None:
    parser = steps.parser(__doc__, EXAMPLE)
    parser.add_argument("--model_path", help="a trained sequence model (default: a small random one)")
    parser.add_argument("--data_root", default=".", help="with --model_path: holds MosMedData/ (default: .)")
    parser.add_argument("--devices", default="cpu", help="as generate.py's --device_id_list (default: cpu)")
    parser.add_argument("--workers", nargs="*", default=["1", "2"], help="none: no generation (default: 1 2)")
    parser.add_argument("--batches", nargs="+", default=["1", "4"], help="(default: 1 4)")
    parser.add_argument("--clips", type=int, default=8, help="clips of each measurement (default: 8)")
    parser.add_argument("--steps", type=int, default=5, help="denoising steps (default: 5)")
    parser.add_argument("--videos", nargs="*", default=["100"], help="folder sizes for VAE-Seq and filter")
    parser.add_argument(
        "--video_side",
        type=int,
        default=256,
        help="of their frames in pixels, a multiple of 32 (default: 256)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(options.model_path).resolve() if options.model_path else folder / "model"
        data_root = Path(options.data_root).resolve() if options.model_path else folder
        if options.model_path is None:
            make_world(folder, options.clips)
        workers, batches = (
            [int(word) for word in words(given)] for given in (options.workers, options.batches)
        )
        if workers:
            measure_generation(
                folder, model, data_root, options.devices, workers, batches, options.clips, options.steps
            )
        device = "cpu" if options.devices == "cpu" else "auto"
        measure_quality(
            folder, model, [int(word) for word in words(options.videos)], options.video_side, device
        )


if __name__ == "__main__":
    steps.run(main)
