"""Fills a folder with synthetic clips of a sequence model: settings, devices and workers chosen, sheets drawn.

Runs in the parent process, which loads no model; the workers do, through `load_synthesiser`.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from augment.generation.arguments import share_devices
from augment.generation.fill_folder import Work, draw_contact_sheets, fill_folder
from augment.generation.plan import PUBLISHED_NAMES, Sample, folder_name, take_shard
from augment.generation.synthesis_folder import MADE_WITH, SynthesisFolder
from augment.generation.workers import Synthesiser
from cond2img.sampling import Sampling
from cond2video.model_folder import ModelFolder, find_model_folder, trained_with_text
from ctrlgenaug import cluster
from ctrlgenaug.conditions import provenance
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.steps import Outcome

TEXT_SOURCES = ("auto", "none", "metadata")
MOST_CPU_WORKERS = 8
BYTES_A_WORKER = 1_500_000_000  # libraries and activations of one CPU worker, besides the weights


@dataclass(frozen=True)
class Request:
    """What ``generate.py`` asks for; the fields are its flags.

    Attributes:
        model_path: the sequence model's folder.
        data_root: folder that holds the data set's home.
        split: whose conditions the samples use.
        conditions: ``image_condition``, ``motion_condition``; text is decided by ``text``.
        text: ``auto``, ``none``, ``metadata``, or the prompt of all samples.
        devices: device names; empty means all GPUs, else the CPU.
        num_workers: processes in all, the i-th on the i-th of ``devices``, which are taken in turn; None: one a GPU,
            and on the CPU as many as cores and memory allow.
        image_model_path: the 2-D model's folder, for what the sequence model's own has not; None: it has all.
        sampling: solver, guidance, noise, precision.
        num_frames: F where no motion field tells, or None.
        output_dir: the folder, or None for the method's name below ``model_path``.
    """

    model_path: str
    image_model_path: str | None = None
    data_root: str = "."
    split: str = "train"
    conditions: tuple[str, ...] = ("image_condition", "motion_condition")
    text: str = "auto"
    vae_path: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    num_frames: int | None = None
    devices: tuple[str, ...] = ()
    batch_size: int = 4
    num_workers: int | None = None
    output_dir: str | None = None
    lossless: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("num_workers", 1),
            ("num_frames", 2),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} {value} is too small", f"Give at least {least}")
        near = difflib.get_close_matches(self.text.strip().lower(), TEXT_SOURCES, 1)
        if self.text not in TEXT_SOURCES and (near or not self.text.strip()):
            raise UserError(
                f"--text {self.text!r} is no prompt", f"Did you mean {near[0] if near else 'none'}?"
            )

    @property
    def prompt(self) -> str | None:
        """The prompt of all samples, or None."""
        return None if self.text in TEXT_SOURCES else self.text.strip()


def generate_folder(
    samples: Sequence[Sample], spec: DatasetSpec, request: Request, shard: tuple[int, int] = (1, 1)
) -> tuple[Outcome, Path]:
    """Makes what is missing of a shard of the plan; returns what became of it and the folder.

    Args:
        samples: the whole plan, of which the contact sheets show what is there.
        spec: the data set.
        request: what the command line asks for.
        shard: (index from 1, count) of the part to make.

    Raises:
        UserError: see `augment.generation.fill_folder.fill_folder` and `cond2video.model_folder.find_model_folder`;
            contrast with other classes, of which there are none.
    """
    request.sampling.guidance.require_classes(len(spec.classes))
    model = find_model_folder(request.model_path, spec.data_name, request.vae_path, request.image_model_path)
    conditions = _with_text(request, spec)
    if request.prompt is not None:
        samples = [replace(sample, text=request.prompt) for sample in samples]
    default = Path(request.model_path) / folder_name(conditions, request.split)
    folder = SynthesisFolder(Path(request.output_dir or default).resolve())
    home = spec.home_in(request.data_root).resolve()
    used = {PUBLISHED_NAMES[name] for name in conditions}
    settings: dict[str, Any] = {
        "data_name": spec.data_name,
        "split": request.split,
        "conditions": conditions,
        "model": model.fingerprints(),
        **model.schedule_settings(),
        **request.sampling.settings(),
        "num_frames": request.num_frames or spec.required_clip_num,
        "lossless": request.lossless,
        "prompt_of_all": request.prompt,
        MADE_WITH: provenance.made_with(spec, home, used),
    }
    arguments = {
        **{
            name: path and str(Path(path).resolve())
            for name in ("model_path", "vae_path", "image_model_path")
            for path in [getattr(request, name)]
        },
        "data_name": spec.data_name,
        "home": str(home),
        "conditions": conditions,
        "sampling": request.sampling,
        "num_frames": request.num_frames,
    }
    own = take_shard(samples, *shard)
    devices = _places(request, model, len(own))
    # on a CPU samples go through the model one at a time: smaller leases are reported sooner
    batch_size = 1 if set(devices) == {"cpu"} else request.batch_size
    folders = [str(arguments["home"]), str(arguments["model_path"])]
    versions = provenance.Versions(spec, home, used)
    work = Work(
        load_synthesiser,
        arguments,
        devices,
        batch_size,
        shard,
        settings,
        {sample.clip: versions.of(sample.clip) for sample in own},
        request.lossless,
        folders,
    )
    outcome = fill_folder(own, folder, work)
    draw_contact_sheets(folder, samples)
    return outcome, folder.path


def load_synthesiser(**arguments: Any) -> Synthesiser:
    """The sequence model, in a worker; see `augment.generation.synthesiser.SequenceSynthesiser`."""
    # here, because of torch and diffusers, which the parent never needs
    from augment.generation.synthesiser import SequenceSynthesiser

    return SequenceSynthesiser(**arguments)


def _with_text(request: Request, spec: DatasetSpec) -> tuple[str, ...]:
    """The conditions, with ``text_condition`` where prompts are used: one for all, or those of the metadata."""
    given = request.prompt is not None
    named = given or "text_condition" in request.conditions or request.text == "metadata"
    if given and not trained_with_text(request.model_path):
        print("note: nothing says that this model was trained with texts", file=sys.stderr)
    if named and not given and not spec.has_text:
        raise UserError(f"{spec.data_name} has no texts", "Leave --text metadata and text_condition out")
    automatic = request.text == "auto" and spec.has_text and trained_with_text(request.model_path)
    rest = tuple(name for name in request.conditions if name != "text_condition")
    return (*rest, "text_condition") if request.text != "none" and (named or automatic) else rest


def _places(request: Request, model: ModelFolder, samples: int) -> list[str]:
    """A device name for each worker process."""
    if cluster.chosen() is not None:
        kind = request.devices[0] if request.devices else "auto"
        return cluster.places(kind, request.num_workers, samples)
    devices = list(request.devices)
    if not devices:
        import torch  # takes seconds, and only this question needs it

        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices = share_devices(devices)
    if request.num_workers:
        places = [devices[worker % len(devices)] for worker in range(request.num_workers)]
        if idle := devices[request.num_workers :]:
            print(
                f"note: {', '.join(idle)} have no worker; --num_workers counts all of them", file=sys.stderr
            )
    else:
        places = []
        for device in devices:
            places += [device] * (1 if device != "cpu" else _cpu_workers(model.weight_bytes()))
    return places[: max(1, samples)]


def _cpu_workers(weight_bytes: int) -> int:
    """One-threaded workers that cores and free memory allow."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    by_memory = free // (BYTES_A_WORKER + 2 * weight_bytes)
    return int(max(1, min(len(os.sched_getaffinity(0)), MOST_CPU_WORKERS, by_memory)))
