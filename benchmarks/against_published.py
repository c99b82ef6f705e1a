"""Times the published code of the method and this project on the same inputs, in one run: ratios below 1 are faster.

The published code is not part of this repository. Give its folder and the Python of an environment that runs it
(diffusers 0.11.1, transformers 4.39, huggingface_hub 0.25, motion-vector-extractor 1, scikit-image, scikit-learn,
nibabel, SimpleITK, connected-components-3d, h5py, pandas, openpyxl, jsonlines, imageio, einops, timm; torch may be the
one used here; lpips for the row of the VAE's training). What is missing there is said before anything is measured.

Each step is run by both sides in turn, ``--rounds`` times, in working folders of its own with the same phantom
patients. Processor seconds of the process and its children are compared: they depend less than the clock does on what
else the machine is doing. Starting Python and importing what a script imports at its head is part of a script's time on
both sides, as it is for a user; it is also measured alone, and the last column compares what is left without it. Both
sides find their own compiled modules, as they do when a user runs them again. Models have random weights and the same
config.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from two_sides import ON_CPU, ROOT, Comparison, Measure, Side, compare

sys.path.insert(0, str(ROOT))

from ctrlgenaug import steps
from ctrlgenaug.errors import UserError

EXAMPLE = (
    "python benchmarks/against_published.py --published ../Ctrl-GenAug --python ../published-env/bin/python"
)
VAE_INPUTS = ON_CPU.with_name("vae_seq_inputs.py")
VAE_CALL, UNET_CALL = ON_CPU.with_name("vae_call.py"), ON_CPU.with_name("unet_call.py")
CASES = {"MosMed": 15, "MRNet": 144, "ACDC": 60, "TUSC": 12}
ROOT_FILES = ("database", "dataset.hdf5", "metadata.csv")
NEEDED = (
    "diffusers",
    "transformers",
    "mvextractor",
    "skimage",
    "sklearn",
    "nibabel",
    "SimpleITK",
    "cc3d",
    "h5py",
)
NEEDED += (
    "pandas",
    "openpyxl",
    "jsonlines",
    "imageio",
    "einops",
    "timm",
    "lpips",
)  # modules of the published code
HOMES = {"MosMed": "MosMedData", "MRNet": "MRNet", "ACDC": "ACDC", "TUSC": "TUSC"}


def draw_phantoms(ours: Side, work: Path, data_name: str) -> None:
    """Phantom patients of a data set, in ``work``."""
    home = work / HOMES[data_name]
    flags = ["--data_name", data_name, "--cases", str(CASES[data_name]), "--balance", "--out", str(home)]
    ours.run(["-m", "ctrlgenaug.phantom", *flags], work)
    for table in home.glob("*-acl.csv"):  # the published reader needs the header that ours can do without
        if not (text := table.read_text()).startswith("PatientID"):
            table.write_text("PatientID,label\n" + text)


def slices(data_name: str) -> Comparison:
    """Step (a) of a data set."""
    name = "extract_all_images.py" if data_name == "TUSC" else "extract_all_slices.py"
    script = f"{HOMES[data_name]}/{name}"

    def measure(side: Side, work: Path) -> float:
        for made in (work / HOMES[data_name]).glob("*_all_*"):
            shutil.rmtree(made)
        return side.script(script, [], work)

    return Comparison(measure, script)


def sampling(side: Side, work: Path) -> float:
    """Step (b) of MosMed, after its step (a): the published script is started once a split, ours does both in one."""
    home = work / "MosMedData"
    if not (home / "MosMed_all_slices").exists():
        side.script("MosMedData/extract_all_slices.py", [], work)
    for made in ("MosMed_data", "MosMed_volume"):
        shutil.rmtree(home / made, ignore_errors=True)
    flags = ["--all_slices_dir", "MosMedData/MosMed_all_slices", "--frames_per_clip", "15"]
    flags += ["--clip_sampling_interval", "1", "--required_clip_num", "8"]
    script = "MosMedData/sample_sequences.py"
    modes = ("both",) if side.name == "ours" else ("train", "test")
    return sum(side.script(script, [*flags, "--mode", mode], work) for mode in modes)


def motion(side: Side, work: Path) -> float:
    """Step (d) of MosMed, after its step (b)."""
    home = work / "MosMedData"
    if not (home / "MosMed_volume").exists():
        sampling(side, work)
    for made in ("MosMed_motion_field", "MosMed_motion_field_trajectory"):
        shutil.rmtree(home / made, ignore_errors=True)
    return side.script("extract_motion_field_trajs.py", ["--clip_data_dir", "MosMedData/MosMed_volume"], work)


def unet(precision: str, what: str, threads: int) -> Comparison:
    """One guided forward, one training step or one clip of the full-size sequence UNet."""

    def measure(side: Side, work: Path) -> float:
        # the published scripts compute in fp32, whatever ours is asked for
        used = precision if side.name == "ours" else "fp32"
        arguments = [str(UNET_CALL), side.name, used, what, str(threads)]
        return float(side.run(arguments, work)[1].splitlines()[-1])

    return Comparison(measure)


class VAERows:
    """The rows that need a VAE and synthetic clips: both sides use the same ones, so that results can be compared.

    Args:
        ours: makes them.
        clips: how many, at least four: the filter forms four groups of scores.
        channels: of the VAE's first level.
        threads: of the training step.
    """

    def __init__(self, ours: Side, clips: int, channels: int, threads: int) -> None:
        self.ours, self.clips, self.channels, self.threads = ours, clips, channels, threads

    def home(self, work: Path) -> Path:
        """The folder with both, made at the first call."""
        home = work.parent / "vae"
        if not home.exists():
            self.ours.run([str(VAE_INPUTS), str(home), str(self.clips), str(self.channels)], work)
        return home

    def vae_seq(self, side: Side, work: Path) -> float:
        """VAE-Seq of the folder, nothing kept from before."""
        home = self.home(work)
        shutil.rmtree(home / "clips" / ".latents", ignore_errors=True)
        flags = ["--load_2d_pretrained_model_name", str(home / "model"), "--syn_data_p", str(home / "clips")]
        seconds = side.on_cpu("VAE-Seq.py", flags, work)
        found = json.loads((home / "clips" / "VAE_Seq_train_results.json").read_text())
        mean = statistics.mean(found.values())
        print(f"   {side.name}: mean VAE-Seq {mean:.2f} % over {len(found)} clips", flush=True)
        return seconds

    def noise_filter(self, side: Side, work: Path) -> float:
        """The filter after our VAE-Seq, whose scores both sides read; the latents beside them are ours to use."""
        home = self.home(work)
        if not (home / "clips" / ".latents").exists():
            self.vae_seq(self.ours, work)
        flags = ["--load_2d_pretrained_model_name", str(home / "model"), "--syn_data_p", str(home / "clips")]
        flags += ["--cls_model_name", "tiny", "--cls_model_pth", str(home / "classifier.pth")]
        shutil.rmtree(work / "kept", ignore_errors=True)
        return side.on_cpu("noisy_data_filter.py", [*flags, "--save_base", str(work / "kept")], work)

    def training(self, what: str) -> Measure:
        """A training step; the published one never stores less than everything, whatever its config says."""

        def measure(side: Side, work: Path) -> float:
            arguments = [side.name, str(self.home(work)), what, str(self.threads), "256", str(self.channels)]
            published = [] if side.name == "ours" else [str(side.code)]
            seconds, loss = side.run([str(VAE_CALL), *arguments, *published], work)[1].splitlines()[-2:]
            print(f"   {side.name}: loss {float(loss):.6g}", flush=True)
            return float(seconds)

        return measure


def comparisons(ours: Side, clips: int, channels: int, threads: int) -> dict[str, Comparison]:
    """What can be compared, by title."""
    vae = VAERows(ours, clips, channels, threads)
    of_size = "" if channels == 128 else f", VAE of {channels} channels"
    return {
        f"MosMed slices, {CASES['MosMed']} patients": slices("MosMed"),
        f"MRNet slices, {CASES['MRNet']} patients": slices("MRNet"),
        f"ACDC slices, {CASES['ACDC']} patients": slices("ACDC"),
        f"TUSC images, {CASES['TUSC']} patients": slices("TUSC"),
        "sampling of clips (MosMed), both splits": Comparison(sampling, "MosMedData/sample_sequences.py", 2),
        "motion fields and trajectories (MosMed)": Comparison(motion, "extract_motion_field_trajs.py"),
        f"VAE-Seq of {clips} clips{of_size}": Comparison(vae.vae_seq, "VAE-Seq.py"),
        f"filter of {clips} clips after VAE-Seq{of_size}": Comparison(
            vae.noise_filter, "noisy_data_filter.py"
        ),
        f"VAE, training step, fp32{of_size}": Comparison(vae.training("plain")),
        f"VAE, training step, checkpointing{of_size}": Comparison(vae.training("checkpointing")),
        "UNet, guided forward, fp32": unet("fp32", "forward", threads),
        "UNet, guided forward, bf16 against fp32": unet("bf16", "forward", threads),
        "clip: 20 cached UniPC steps, guided at the noisier half, bf16, decoded; 200 of DDIM": unet(
            "bf16", "clip", threads
        ),
        "UNet, training step, fp32": unet("fp32", "training", threads),
        "UNet, training step, bf16 against fp32": unet("bf16", "training", threads),
    }


def require_modules(python: str) -> None:
    """Raises a `UserError` if the published code's Python lacks a module, before ten minutes of other rows."""
    ask = (
        "import importlib.util, sys; print(*(m for m in sys.argv[1:] if importlib.util.find_spec(m) is None))"
    )
    try:
        answer = subprocess.run([python, "-c", ask, *NEEDED], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"is no Python that runs ({error})", "Give --python", python) from None
    if lacking := answer.stdout.split():
        raise UserError(f"lacks {', '.join(lacking)}", "Install them in its environment", python)


def main() -> int:
    parser = steps.parser(__doc__ or "", EXAMPLE)
    parser.add_argument("--published", required=True, metavar="DIR", help="the published code's folder")
    parser.add_argument("--python", required=True, metavar="FILE", help="the Python that runs it")
    parser.add_argument(
        "--rounds", type=int, default=3, help="times each side runs a script (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the models (default: %(default)s)")
    parser.add_argument(
        "--only",
        metavar="WORD",
        nargs="+",
        default=[""],
        help="only steps whose title holds one of these words",
    )
    parser.add_argument("--out", metavar="FILE", help="also write the figures as JSON")
    parser.add_argument(
        "--clips", type=int, default=4, help="of VAE-Seq and filter, 4 or more (default: %(default)s)"
    )
    parser.add_argument(
        "--vae_channels",
        type=int,
        default=128,
        help="of the VAE's first level; 32 takes a sixteenth of the time (default: %(default)s, full size)",
    )
    options = parser.parse_args()
    published = Path(options.published).resolve()
    if not (published / "generate.py").is_file():
        raise UserError("is not the published code", "Give its folder", options.published)

    require_modules(options.python)

    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        sides = [
            Side("published", options.python, published, Path(scratch) / "compiled" / "published"),
            Side("ours", sys.executable, ROOT, Path(scratch) / "compiled" / "ours"),
        ]
        every = comparisons(sides[1], options.clips, options.vae_channels, options.threads)
        chosen = {title: row for title, row in every.items() if any(word in title for word in options.only)}
        if not chosen:
            raise UserError(f"--only {' '.join(options.only)} names no step", f"Steps: {', '.join(every)}")
        works = {side.name: Path(scratch) / side.name for side in sides}
        for work in works.values():
            work.mkdir()
        for data_name, home in HOMES.items():
            if any(data_name in title for title in chosen):
                draw_phantoms(sides[1], works["ours"], data_name)
                shutil.copytree(works["ours"] / home, works["published"] / home)
                for name in ROOT_FILES:  # the published scripts look for these in the working folder itself
                    if (raw := works["published"] / home / name).exists():
                        (works["published"] / name).symlink_to(raw)
        print(
            f"{'step':48s} {'published s':>11s} {'start':>6s} {'ours s':>7s} {'start':>6s} {'ratio':>6s} {'work':>6s}"
        )
        for title, row in chosen.items():
            figures[title] = found = compare(row, sides, works, options.rounds)
            print(
                f"{title:48s} {found['published']:11.2f} {found['published_start']:6.2f} {found['ours']:7.2f} "
                f"{found['ours_start']:6.2f} {found['ratio']:6.2f} {found['work_ratio']:6.2f}",
                flush=True,
            )
    if options.out:
        result = {"measured": time.strftime("%F"), "steps": figures}
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    steps.run(main)
