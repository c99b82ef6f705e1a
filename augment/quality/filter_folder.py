"""The noise filter on a folder of synthetic clips: levels are asked, what is kept is copied, all is recorded."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augment.classifiers import scorer
from augment.classifiers.clip_items import Item, real_items
from augment.classifiers.doubts import doubts
from augment.classifiers.weights import read_weights
from augment.generation.plan import parse_file_name
from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality import noise_filter
from augment.quality.data_set import data_set_of
from augment.quality.filter_levels import LEVELS, Evidence, FilterSettings, ScoreClips, reasons
from augment.quality.filter_report import PUBLISHED, Filtered, counts, draw_examples, draw_thresholds, record
from augment.quality.latent_store import open_store
from augment.quality.latents import LatentSettings, LatentStore
from augment.quality.noise_filter import Verdict
from augment.quality.vae_seq import list_videos
from ctrlgenaug import model_steps
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.folders import beside, exclusive, fingerprint
from ctrlgenaug.model_steps import Workers
from ctrlgenaug.plain_data import read_json, write_json

REPORT, PLOT, EXAMPLES = "filter_report.json", "inner-video-kmeans-threshold.png", "filter_examples.png"


def decide(
    folder: Path,
    spec: DatasetSpec,
    store: LatentStore,
    score_clips: ScoreClips | None,
    settings: FilterSettings,
    *,
    real: Sequence[Item] = (),
    scores_dir: Path | None = None,
    workers: Workers | None = None,
    batch_size: int = 8,
) -> Filtered:
    """Asks every level about every sample in ``folder``; writes nothing but the latents' cache.

    Args:
        folder: the synthetic clips.
        spec: their data set.
        store: latents, with the settings that VAE-Seq used.
        score_clips: the classifier; may be None without the semantic level.
        settings: see `FilterSettings`.
        real: the training clips; needed by the level copies.
        scores_dir: where VAE-Seq's results are; None: in ``folder``.
        workers: who asks VAE and classifier; None: this process, on the store's device.
        batch_size: clips that go through the classifier together.

    Raises:
        UserError: no clips, no clip of this data set, or a level lacks what it needs.
    """
    asked = [name for name in LEVELS if name in settings.levels]
    result = Filtered([], levels=tuple(name for name in LEVELS if name in (*PUBLISHED, *asked)))
    videos = list_videos(folder)
    spec = spec.with_classes_of(path.name for path in videos)
    for path in videos:
        try:
            sample = parse_file_name(path.name, spec)
            # "01" and "1" are one seed but two files, and an AVI is no sample
            if sample.file_name != path.name:
                raise UserError(f"should be called {sample.file_name}", "Rename or remove it")
            result.verdicts.append(Verdict(sample))
        except UserError as error:
            result.foreign[path.name] = f"{error.problem}."
    if not result.verdicts:
        raise UserError(f"holds no clip named like {spec.data_name}'s", "Check --data_name", folder)
    result.verdicts.sort(key=lambda verdict: (verdict.sample.clip, verdict.sample.cls, verdict.sample.seed))
    workers = workers or Workers(store.device)
    evidence = Evidence(
        folder, spec, result.verdicts, settings, store, workers, batch_size, score_clips, real, scores_dir
    )
    for name in asked:
        result.warnings += LEVELS[name].judge(evidence)
    result.thresholds = evidence.thresholds
    if settings.keep_at_least:
        result.warnings += noise_filter.readmit(result.verdicts, settings.keep_at_least, list(reasons()))
    for cls, numbers in counts(result.verdicts, result.levels).items():
        if not numbers["kept"]:
            result.warnings.append(f"class {cls}: nothing is kept")
    return result


def filter_clips(options: argparse.Namespace, settings: FilterSettings) -> tuple[Filtered, Path]:
    """What noisy_data_filter.py does with its flags; returns the decisions, and where the kept clips are.

    Raises:
        UserError: see `decide` and `save`; or the classifier has other classes.
    """
    folder = Path(options.synthetic_dir)
    target = Path(options.save_base or beside(folder, "filtered"))
    list_videos(folder)  # says so at once if there is nothing to do
    SynthesisFolder(folder).say_if_filled()
    meta = read_weights(options.classifier_checkpoint)[1] if options.classifier_checkpoint else {}
    spec = data_set_of(options, [folder], meta, options.classifier_checkpoint)
    latents = LatentSettings(options.pixel_range, options.posterior, options.seed)
    scores_dir = Path(options.scores_dir) if options.scores_dir else folder
    workers = model_steps.chosen(options)
    device, batch_size = workers.own_device, options.batch_size
    store = open_store(options.vae_path, scores_dir, latents, device=device, batch_size=batch_size)
    score_clips = None
    if "semantic" in settings.levels:
        if options.classifier_checkpoint is None:
            raise UserError("--classifier_checkpoint is missing", "Give it, or --levels within between")
        score_clips = scorer(
            options.classifier_checkpoint,
            name=options.classifier,
            num_classes=len(spec.classes),
            input_size=options.input_size,
            device=device,
            batch_size=batch_size,
            num_frames=spec.required_clip_num,
        )
    real = real_items(spec, spec.home_in(options.real), "train") if options.real else []
    result = decide(
        folder,
        spec,
        store,
        score_clips,
        settings,
        real=real,
        scores_dir=scores_dir,
        workers=workers,
        batch_size=batch_size,
    )
    if score_clips:
        result.warnings += doubts(options.classifier_checkpoint)
    if not options.dry_run:
        provenance = {
            "synthetic_dir": str(folder),
            "data_name": spec.data_name,
            "classifier": options.classifier,
            "classifier_checkpoint": options.classifier_checkpoint,
            "classifier_fingerprint": score_clips and fingerprint([options.classifier_checkpoint]),
            "vae_path": options.vae_path,
            "latents": latents.tag(),
            "real": options.real,
        }
        save(folder, target, result, settings, provenance)
    return result, target


def save(
    folder: Path, target: Path, result: Filtered, settings: FilterSettings, provenance: dict[str, Any]
) -> None:
    """Makes ``target`` hold exactly the kept samples of ``folder``, with record, plot and examples.

    What an earlier run put there and this one drops, or does not find in ``folder`` any more, is removed; files that
    are not this filter's are left alone.

    Raises:
        UserError: ``target`` is ``folder`` itself, or another run is writing there.
    """
    if target.resolve() == folder.resolve():
        raise UserError(
            "is the synthetic folder itself, whose clips are to be kept", "Give another --save_base", target
        )
    with exclusive(target):
        kept, earlier = set(result.kept), _kept_earlier(target / REPORT)
        for verdict in result.verdicts:
            name = verdict.sample.file_name
            if name in kept:
                _put(folder / name, target / name, link=settings.link)
        there = {path.name for path in target.glob("*.mp4")}
        for name in there & earlier - kept:  # dropped now, or gone from ``folder``
            (target / name).unlink()
        others = sorted(there - earlier - kept)
        if others:
            result.warnings.append(f"{target} holds {len(others)} clips from elsewhere, such as {others[0]}")
        draw_thresholds(target / PLOT, result)
        draw_examples(target / EXAMPLES, folder, result)
        write_json(target / REPORT, record(result, settings, provenance))


def _kept_earlier(path: Path) -> set[str]:
    """What the record of an earlier run into the same folder says it put there."""
    found = read_json(path) if path.is_file() else {}
    samples = found.get("samples", []) if isinstance(found, dict) else []
    return {str(row["file"]) for row in samples if row.get("decision") == "kept"}


def _put(source: Path, target: Path, *, link: bool) -> None:
    with atomic_path(target) as temporary:
        if link:
            try:
                os.link(source, temporary)
                return
            # another file system: a copy serves as well
            except OSError:
                pass
        shutil.copyfile(source, temporary)
