"""Reading a chest CT against its three unavoidable parts: decompression, interpolation and PNG encoding. See --help."""

from __future__ import annotations

import gzip
import importlib.util
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nibabel
import numpy as np
import scipy.ndimage

from ctrlgenaug import steps
from ctrlgenaug.phantom import chest, fields
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.images import to_bytes, zoom_plane
from ctrlgenaug.preprocessing.png import encode_png

ROOT = Path(__file__).resolve().parent.parent


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Least processor time of ``work`` over some repeats: other programs on the machine do not count."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def reader() -> object:
    """MosMedData's reader script as a module."""
    spec = importlib.util.spec_from_file_location("mosmed", ROOT / "MosMedData" / "extract_all_slices.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Times one volume and prints a table."""
    parser = steps.parser(
        "Reads one 512 x 512 volume to PNG as step (a) does, and its parts alone: what exceeds their sum is overhead.",
        "python benchmarks/preprocessing.py --slices 40",
    )
    parser.add_argument("--slices", type=int, default=40, help="slices of the volume (default: %(default)s)")
    parser.add_argument(
        "--noise", type=float, default=12.0, help="HU of noise, as scans have (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (default: %(default)s)")
    arguments = parser.parse_args()
    rng = fields.generator(0, "benchmark")
    shown = chest.draw_volume(rng, "CT-2", arguments.slices)
    shown = shown + rng.normal(0, arguments.noise, shown.shape).astype(np.int16)
    stored = np.ascontiguousarray(np.rot90(shown.transpose(1, 2, 0), -1))
    mosmed = reader()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study_0001.nii.gz"
        path.write_bytes(gzip.compress(nibabel.Nifti1Image(stored, np.eye(4)).to_bytes(), 6))
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
            "decompression": lambda: gzip.GzipFile(fileobj=io.BytesIO(path.read_bytes())).read(),
            "interpolation": lambda: [to_bytes(zoom_plane(plane)) for plane in unit],
            "PNG encoding": lambda: [encode_png(frame) for frame in frames.values()],
        }
        times = {name: seconds(part, arguments.repeats) for name, part in parts.items()}
        total = seconds(whole, arguments.repeats)
        print(f"512 x 512 x {arguments.slices}, {path.stat().st_size / 1e6:.1f} MB; processor seconds")
        for name, value in times.items():
            print(f"  {name:<28} {value:7.3f}")
        print(f"  {'sum of the parts':<28} {sum(times.values()):7.3f}")
        print(f"  {'read to PNG, whole':<28} {total:7.3f}   {total / sum(times.values()):.2f} x the parts")
        spline = seconds(published, 1)
        print(
            f"  {'scipy rotate + zoom, for scale':<28} {spline:7.3f}   {spline / times['interpolation']:.0f} x ours"
        )


if __name__ == "__main__":
    main()
