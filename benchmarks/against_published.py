"""Times the published code of the method and this project on the same inputs, in one run: ratios below 1 are faster.

The published code is not part of this repository. Give its folder and the Python of an environment that runs it
(diffusers 0.11.1, transformers 4.39, huggingface_hub 0.25, motion-vector-extractor 1, scikit-image, scikit-learn,
nibabel, SimpleITK, connected-components-3d, h5py, pandas, openpyxl, jsonlines, imageio, einops; torch may be the one
used here).

Each step is run by both sides in turn, ``--rounds`` times, in working folders of its own with the same phantom
patients. Processor seconds of the process and its children are compared: they depend less than the clock does on what
else the machine is doing. Starting Python and importing libraries is part of a script's time on both sides, as it is
for a user. Models have random weights and the same config.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ctrlgenaug import steps  # noqa: E402
from ctrlgenaug.errors import UserError  # noqa: E402

EXAMPLE = (
    "python benchmarks/against_published.py --published ../Ctrl-GenAug --python ../published-env/bin/python"
)
ON_CPU = Path(__file__).resolve().parent / "published_on_cpu.py"
VAE_SEQ_INPUTS = Path(__file__).resolve().parent / "vae_seq_inputs.py"
VAE_SEQ_CLIPS = 4
UNET_CALL = Path(__file__).resolve().parent / "unet_call.py"
CASES = {"MosMed": 15, "MRNet": 96, "ACDC": 30, "TUSC": 9}
ROOT_FILES = ("database", "dataset.hdf5", "metadata.csv")
HOMES = {"MosMed": "MosMedData", "MRNet": "MRNet", "ACDC": "ACDC", "TUSC": "TUSC"}


@dataclass(frozen=True)
class Side:
    """One of the two codes.

    Attributes:
        name: ``published`` or ``ours``.
        python: its interpreter.
        code: its folder.
    """

    name: str
    python: str
    code: Path

    def run(self, arguments: list[str], folder: Path) -> tuple[float, str]:
        """Runs Python with ``arguments`` in ``folder``.

        Returns:
            processor seconds of the process and its children, and what it printed.
        """
        environment = {**os.environ, "PYTHONPATH": str(self.code), "CUDA_VISIBLE_DEVICES": ""}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [self.python, *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise UserError(f"{self.name}: {arguments[0]} failed ({''.join(tail)})")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout

    def script(self, name: str, flags: list[str], work: Path) -> float:
        """Processor seconds of one of the data scripts, in one process."""
        own = ["--num_workers", "1"] if self.name == "ours" else []
        return self.run([str(self.code / name), *flags, *own], work)[0]


Measure = Callable[[Side, Path], float]


def draw_phantoms(work: Path, data_name: str) -> None:
    """Phantom patients of a data set, in ``work``."""
    home = work / HOMES[data_name]
    flags = ["--data_name", data_name, "--cases", str(CASES[data_name]), "--balance", "--out", str(home)]
    Side("ours", sys.executable, ROOT).run(["-m", "ctrlgenaug.phantom", *flags], work)
    for table in home.glob("*-acl.csv"):  # the published reader needs the header that ours can do without
        if not (text := table.read_text()).startswith("PatientID"):
            table.write_text("PatientID,label\n" + text)


def slices(data_name: str) -> Measure:
    """Step (a) of a data set."""
    name = "extract_all_images.py" if data_name == "TUSC" else "extract_all_slices.py"

    def measure(side: Side, work: Path) -> float:
        for made in (work / HOMES[data_name]).glob("*_all_*"):
            shutil.rmtree(made)
        return side.script(f"{HOMES[data_name]}/{name}", [], work)

    return measure


def sampling(side: Side, work: Path) -> float:
    """Step (b) of MosMed, after its step (a)."""
    home = work / "MosMedData"
    if not (home / "MosMed_all_slices").exists():
        side.script("MosMedData/extract_all_slices.py", [], work)
    for made in ("MosMed_data", "MosMed_volume"):
        shutil.rmtree(home / made, ignore_errors=True)
    flags = ["--all_slices_dir", "MosMedData/MosMed_all_slices", "--frames_per_clip", "15"]
    flags += ["--clip_sampling_interval", "1", "--required_clip_num", "8"]
    script = "MosMedData/sample_sequences.py"
    return sum(side.script(script, [*flags, "--mode", split], work) for split in ("train", "test"))


def motion(side: Side, work: Path) -> float:
    """Step (d) of MosMed, after its step (b)."""
    home = work / "MosMedData"
    if not (home / "MosMed_volume").exists():
        sampling(side, work)
    for made in ("MosMed_motion_field", "MosMed_motion_field_trajectory"):
        shutil.rmtree(home / made, ignore_errors=True)
    return side.script("extract_motion_field_trajs.py", ["--clip_data_dir", "MosMedData/MosMed_volume"], work)


def unet(precision: str, what: str, threads: int) -> Measure:
    """One guided forward or one training step of the full-size sequence UNet."""

    def measure(side: Side, work: Path) -> float:
        # the published scripts compute in fp32, whatever ours is asked for
        used = precision if side.name == "ours" else "fp32"
        return float(
            side.run([str(UNET_CALL), side.name, used, what, str(threads)], work)[1].splitlines()[-1]
        )

    return measure


def vae_seq(side: Side, work: Path) -> float:
    """VAE-Seq of a folder of synthetic clips with a full-size VAE of random weights, nothing kept from before."""
    home = work.parent / "vae_seq"  # one for both sides, so that they can be compared
    if not home.exists():
        Side("ours", sys.executable, ROOT).run([str(VAE_SEQ_INPUTS), str(home), str(VAE_SEQ_CLIPS)], work)
    results = home / "clips" / "VAE_Seq_train_results.json"
    shutil.rmtree(home / "clips" / ".latents", ignore_errors=True)
    flags = ["--load_2d_pretrained_model_name", str(home / "model"), "--syn_data_p", str(home / "clips")]
    script = str(side.code / "VAE-Seq.py")
    command = [script, *flags] if side.name == "ours" else [str(ON_CPU), script, *flags]
    seconds = side.run(command, work)[0]
    found = json.loads(results.read_text())
    print(
        f"   {side.name}: mean VAE-Seq {statistics.mean(found.values()):.2f} % over {len(found)} clips",
        flush=True,
    )
    return seconds


def comparisons(threads: int) -> dict[str, Measure]:
    """What can be compared, by title."""
    return {
        "MosMed slices": slices("MosMed"),
        "MRNet slices": slices("MRNet"),
        "ACDC slices": slices("ACDC"),
        "TUSC images": slices("TUSC"),
        "sampling of clips (MosMed)": sampling,
        "motion fields and trajectories (MosMed)": motion,
        f"VAE-Seq of {VAE_SEQ_CLIPS} clips, full-size VAE": vae_seq,
        "UNet, guided forward, fp32": unet("fp32", "forward", threads),
        "UNet, guided forward, bf16 against fp32": unet("bf16", "forward", threads),
        "UNet, training step, fp32": unet("fp32", "training", threads),
        "UNet, training step, bf16 against fp32": unet("bf16", "training", threads),
    }


def main() -> int:
    parser = steps.parser(__doc__ or "", EXAMPLE)
    parser.add_argument("--published", required=True, metavar="DIR", help="the published code's folder")
    parser.add_argument("--python", required=True, metavar="FILE", help="the Python that runs it")
    parser.add_argument(
        "--rounds", type=int, default=3, help="times each side runs a script (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the models (default: %(default)s)")
    parser.add_argument("--only", metavar="WORD", default="", help="only steps whose title holds this word")
    parser.add_argument("--out", metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args()
    published = Path(options.published).resolve()
    if not (published / "generate.py").is_file():
        raise UserError("is not the published code", "Give its folder", options.published)
    chosen = {title: run for title, run in comparisons(options.threads).items() if options.only in title}
    if not chosen:
        raise UserError(f"--only {options.only!r} names no step", f"Steps: {', '.join(comparisons(1))}")
    sides = [Side("published", options.python, published), Side("ours", sys.executable, ROOT)]

    figures = {}
    print(f"{'step':45s} {'published s':>12s} {'ours s':>9s} {'ratio':>6s}")
    with tempfile.TemporaryDirectory() as scratch:
        works = {side.name: Path(scratch) / side.name for side in sides}
        for work in works.values():
            work.mkdir()
        for data_name, home in HOMES.items():
            if any(data_name in title for title in chosen):
                draw_phantoms(works["ours"], data_name)
                shutil.copytree(works["ours"] / home, works["published"] / home)
                for name in ROOT_FILES:  # the published scripts look for these in the working folder itself
                    if (raw := works["published"] / home / name).exists():
                        (works["published"] / name).symlink_to(raw)
        for title, measure in chosen.items():
            seconds: dict[str, list[float]] = {side.name: [] for side in sides}
            for _ in range(1 if "UNet" in title else options.rounds):
                for side in sides:
                    seconds[side.name].append(measure(side, works[side.name]))
            theirs, ours = (statistics.median(seconds[side.name]) for side in sides)
            figures[title] = {"published": theirs, "ours": ours, "ratio": ours / theirs}
            print(f"{title:45s} {theirs:12.2f} {ours:9.2f} {ours / theirs:6.2f}", flush=True)
    if options.out:
        result = {"measured": time.strftime("%F"), "steps": figures}
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    steps.run(main)
