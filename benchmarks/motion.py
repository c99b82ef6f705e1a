"""Measures the conditions' cost: trajectories of a clip (time, file size), its motion field, and a frame's image prior.

Times are the best of several runs on one core. A plain Python reading of the method's linking runs beside ours.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy is imported

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "conditions")]

from moving import moving_clip  # noqa: E402
from test_trajectories import plain_link  # noqa: E402

from ctrlgenaug import steps  # noqa: E402
from ctrlgenaug.motion import trajectories  # noqa: E402
from ctrlgenaug.motion.fields import motion_field  # noqa: E402

MOST_MILLISECONDS, MOST_BYTES = 5.0, 200_000  # what the project promises of a clip's trajectories


def milliseconds(compute: Callable[[], object], runs: int) -> float:
    """The best of ``runs`` wall-clock times."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        compute()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def main() -> int:
    parser = steps.parser(__doc__, "python benchmarks/motion.py --medsam_checkpoint weights/medsam")
    parser.add_argument("--runs", type=int, default=20, help="of each measurement (default: %(default)s)")
    parser.add_argument("--medsam_checkpoint", help="also time a frame's image prior by this encoder")
    parser.add_argument("--device", default="cpu", help="for the image prior (default: %(default)s)")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="for the image prior (default: %(default)s)"
    )
    options = parser.parse_args()

    clip = moving_clip(0, 3, 2)
    field = motion_field(clip)
    wild = np.random.default_rng(0).normal(0, 8, field.shape).astype(np.float32)  # most targets contested
    rows: list[tuple[str, float, str]] = []
    worst = 0.0
    for title, given in (("moving clip", field), ("most targets contested", wild)):
        ours = milliseconds(lambda given=given: trajectories.link(given, 0), options.runs)
        plain = milliseconds(lambda given=given: plain_link(given, 0), 1)
        worst = max(worst, ours)
        rows.append(
            (f"trajectories, {title}", ours, f"plain Python {plain:.0f} ms, {plain / ours:.0f} times as long")
        )
    with tempfile.TemporaryDirectory() as folder:
        small, official = Path(folder) / "small.npy", Path(folder) / "official.npy"
        tracks = trajectories.track(field, 0)
        trajectories.save_tracks(small, tracks)
        trajectories.save_official(official, tracks)
        size = small.stat().st_size
        for title, path in (("load trajectories", small), ("load the official format", official)):
            cost = milliseconds(lambda path=path: trajectories.load_trajectories(path, 8), options.runs)
            rows.append((title, cost, f"{path.stat().st_size / 1000:.1f} kB on disk"))
    rows.append(
        ("motion field", milliseconds(lambda: motion_field(clip), 5), "encoding, and reading the vectors")
    )
    if options.medsam_checkpoint:
        rows.append(_prior_row(options.medsam_checkpoint, options.device, options.batch_size))
    for title, cost, note in rows:
        print(f"{title:38} {cost:9.2f} ms   {note}")
    kept = worst <= MOST_MILLISECONDS and size <= MOST_BYTES
    print(
        f"trajectories of a clip: {worst:.2f} ms, {size / 1000:.1f} kB; "
        f"promised {MOST_MILLISECONDS:.0f} ms, {MOST_BYTES // 1000} kB: {'kept' if kept else 'NOT KEPT'}"
    )
    return 0 if kept else 1


def _prior_row(checkpoint: str, device: str, batch_size: int) -> tuple[str, float, str]:
    from ctrlgenaug.devices import pick_device
    from ctrlgenaug.medsam import encode, load_encoder, prepare

    device = pick_device(device)
    model = load_encoder(checkpoint).to(device)
    frames = np.stack([moving_clip(i, num_frames=1)[0] for i in range(batch_size)])
    encode(model, frames, device)  # warm-up
    cost = milliseconds(lambda: encode(model, frames, device), 5) / batch_size
    preparing = milliseconds(lambda: prepare(frames, device).sum().item(), 5) / batch_size
    return (
        f"image prior on {device}",
        cost,
        f"a frame, {batch_size} at once; {preparing:.1f} ms of it preparation",
    )


if __name__ == "__main__":
    steps.run(main)
