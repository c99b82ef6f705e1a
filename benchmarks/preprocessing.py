"""What steps (a) to (d) cost, part by part: a chest CT read to PNG, a clip's motion and trajectories, an image prior.

Reading stands beside its unavoidable parts, linking beside a plain Python reading of the method. Times are the least
processor time of several runs on one core, so other programs on the machine hardly count. Exit code 1 if a clip's
trajectories take more than is promised.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy is imported
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "conditions")]

import gzip  # noqa: E402
import resource  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import scipy.ndimage  # noqa: E402
from moving import moving_clip  # noqa: E402
from test_trajectories import plain_link  # noqa: E402

from ctrlgenaug import steps  # noqa: E402
from ctrlgenaug.conditions import trajectories  # noqa: E402
from ctrlgenaug.conditions.motion_field import motion_field  # noqa: E402
from ctrlgenaug.phantom import chest, shapes  # noqa: E402
from ctrlgenaug.preprocessing.batch import Case  # noqa: E402
from ctrlgenaug.preprocessing.deflate import unpack_gzip  # noqa: E402
from ctrlgenaug.preprocessing.images import to_bytes, zoom_plane  # noqa: E402
from ctrlgenaug.preprocessing.png import encode_png  # noqa: E402
from ctrlgenaug.preprocessing.readers import mosmed  # noqa: E402

MOST_MILLISECONDS, MOST_BYTES = 5.0, 200_000  # what the project promises of a clip's trajectories


def processor_seconds() -> float:
    """Of this process and of those that it started and waited for, as the video encoder."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def milliseconds(
    work: Callable[[], object], repeats: int, clock: Callable[[], float] = processor_seconds
) -> float:
    """Least time of ``work`` over some repeats."""
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return 1000 * min(times)


def show(title: str, cost: float, note: str = "") -> None:
    """A row of the tables: what, how long, what to say to it."""
    print(f"  {title:<40} {cost:9.2f} ms   {note}".rstrip())


def reading(slices: int, noise: float, repeats: int) -> None:
    """Step (a): one 512 x 512 volume to PNG, and its parts alone; what exceeds their sum is overhead."""
    rng = shapes.generator(0, "benchmark")
    shown = chest.draw_volume(rng, "CT-2", slices)
    shown = shown + rng.normal(0, noise, shown.shape).astype(np.int16)
    stored = np.ascontiguousarray(np.rot90(shown.transpose(1, 2, 0), -1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study_0001.nii.gz"
        path.write_bytes(gzip.compress(nibabel.Nifti1Image(stored, np.diag([-1, 1, 8, 1])).to_bytes(), 6))
        case = Case("study_0001", "train", "CT-234", (path,))
        frames = mosmed.read_study(case)
        unit = [np.ascontiguousarray(plane, np.float32) for plane in shown]
        volume = np.moveaxis(np.stack(unit), 0, 2)

        def whole() -> None:
            for frame in mosmed.read_study(case).values():
                encode_png(frame)

        def published() -> None:
            turned = scipy.ndimage.rotate(volume, 90, reshape=False)
            scipy.ndimage.zoom(turned, (0.5, 0.5, 1), order=1)

        parts = {
            "decompression": lambda: unpack_gzip(path.read_bytes(), 1 << 30),
            "interpolation": lambda: [to_bytes(zoom_plane(plane)) for plane in unit],
            "PNG encoding": lambda: [encode_png(frame) for frame in frames.values()],
        }
        print(f"a volume of 512 x 512 x {slices}, {path.stat().st_size / 1e6:.1f} MB")
        times = {name: milliseconds(part, repeats) for name, part in parts.items()}
        total, spline = milliseconds(whole, repeats), milliseconds(published, 1)
    for name, value in times.items():
        show(name, value)
    show("sum of the parts", sum(times.values()))
    show("read to PNG, whole", total, f"{total / sum(times.values()):.2f} x the parts")
    show("scipy rotate + zoom, for scale", spline, f"{spline / times['interpolation']:.0f} x ours")


def motion(repeats: int) -> bool:
    """Step (d): a clip's field and trajectories; whether the trajectories cost what is promised, or less."""
    print("a clip of 8 frames")
    clip = moving_clip(0, 3, 2)
    field = motion_field(clip)
    show("motion field", milliseconds(lambda: motion_field(clip), 5), "encoding, and reading the vectors")
    wild = np.random.default_rng(0).normal(0, 8, field.shape).astype(np.float32)
    worst = 0.0
    for title, given in (("moving clip", field), ("most targets contested", wild)):
        ours = milliseconds(lambda given=given: trajectories.link(given, 0), repeats)
        plain = milliseconds(lambda given=given: plain_link(given, 0), 1)
        worst = max(worst, ours)
        show(f"trajectories, {title}", ours, f"plain Python {plain:.0f} ms, {plain / ours:.0f} times as long")
    with tempfile.TemporaryDirectory() as folder:
        small, official = Path(folder) / "small.npy", Path(folder) / "official.npy"
        tracks = trajectories.track(field, 0)
        trajectories.save_tracks(small, tracks)
        trajectories.save_official(official, tracks)
        size = small.stat().st_size
        for title, path in (("load trajectories", small), ("load the official format", official)):
            cost = milliseconds(lambda path=path: trajectories.load_trajectories(path, 8), repeats)
            show(title, cost, f"{path.stat().st_size / 1000:.1f} kB on disk")
    kept = worst <= MOST_MILLISECONDS and size <= MOST_BYTES
    print(
        f"trajectories of a clip: {worst:.2f} ms, {size / 1000:.1f} kB; "
        f"promised {MOST_MILLISECONDS:.0f} ms, {MOST_BYTES // 1000} kB: {'kept' if kept else 'NOT KEPT'}"
    )
    return kept


def prior(checkpoint: str, device: str, batch_size: int) -> None:
    """Step (c): a frame's image prior, in wall-clock time, because a GPU's work is not the processor's."""
    from ctrlgenaug.conditions.medsam import encode, load_encoder, prepare
    from ctrlgenaug.devices import pick_device

    device = pick_device(device)
    model = load_encoder(checkpoint).to(device)
    frames = np.stack([moving_clip(i, num_frames=1)[0] for i in range(batch_size)])
    encode(model, frames, device)  # warm-up
    cost = milliseconds(lambda: encode(model, frames, device), 5, time.perf_counter) / batch_size
    preparing = milliseconds(lambda: prepare(frames, device).sum().item(), 5, time.perf_counter) / batch_size
    print(f"an image prior on {device}, {batch_size} frames at once, wall clock")
    show("a frame", cost, f"{preparing:.1f} ms of it preparation")


def main() -> int:
    """Measures and prints the tables."""
    parser = steps.parser(__doc__, "python benchmarks/preprocessing.py --medsam_checkpoint weights/medsam")
    parser.add_argument("--slices", type=int, default=40, help="slices of the volume (default: %(default)s)")
    parser.add_argument(
        "--noise", type=float, default=12.0, help="HU of noise, as scans have (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="of reading; of linking four times as many (default: %(default)s)",
    )
    parser.add_argument("--medsam_checkpoint", help="also time a frame's image prior by this encoder")
    parser.add_argument("--device", default="cpu", help="for the image prior (default: %(default)s)")
    parser.add_argument(
        "--batch_size", type=int, default=8, help="for the image prior (default: %(default)s)"
    )
    options = parser.parse_args()
    reading(options.slices, options.noise, options.repeats)
    kept = motion(4 * options.repeats)
    if options.medsam_checkpoint:
        prior(options.medsam_checkpoint, options.device, options.batch_size)
    return 0 if kept else 1


if __name__ == "__main__":
    steps.run(main)
