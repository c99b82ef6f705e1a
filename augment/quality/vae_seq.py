"""VAE-Seq: how smoothly a clip's VAE latents go from frame to frame (method, section 7)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augment.generation.plan import parse_file_name
from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality.latents import LatentStore, frame_directions
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path, fingerprint, write_text
from ctrlgenaug.folders import make_folder
from ctrlgenaug.model_steps import Workers
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.progress import progress, say
from ctrlgenaug.steps import Outcome

RESULTS = "VAE_Seq_train_results"  # .json, .csv, .png
SCORED_WITH = "VAE_Seq_settings.json"


def vae_seq(latents: np.ndarray) -> float | None:
    """Mean cosine similarity of neighbouring frames' flattened latents, in percent with 2 decimals.

    Args:
        latents: (F, C, h, w).

    Returns:
        None for a single frame, which has no neighbour.
    """
    if len(latents) < 2:
        return None
    frames = frame_directions(latents)
    return round(100 * float((frames[1:] * frames[:-1]).sum(1, dtype=np.float64).mean()), 2)


class Scores:
    """Answers a video with its VAE-Seq (None for a single frame) and how many clips were encoded for it."""

    def __init__(self, device: str, store: LatentStore) -> None:
        self.store = store.on(device)

    def __call__(self, videos: Sequence[Path]) -> Iterator[tuple[float | None, int] | UserError]:
        before = self.store.computed
        for _, latents in self.store.stream(videos):
            encoded, before = self.store.computed - before, self.store.computed
            yield latents if isinstance(latents, UserError) else (vae_seq(latents), encoded)


def ask_scores(
    store: LatentStore, videos: Sequence[Path], workers: Workers
) -> Iterator[float | None | UserError]:
    """VAE-Seq of each video in order, None for a single frame, or why there is none; ``store.computed`` counts on."""
    folders = [*store.folders(), *{video.parent for video in videos}]
    counted = not workers.elsewhere  # by the store itself
    for answer in workers.ask(
        Scores, {"store": store}, videos, batch_size=store.most_at_once, folders=folders
    ):
        if isinstance(answer, UserError):
            yield answer
            continue
        score, encoded = answer
        store.computed += 0 if counted else encoded
        yield score


def score_videos(store: LatentStore, videos: Sequence[Path], workers: Workers | None = None) -> Outcome:
    """VAE-Seq of each video (``results``, by file name); unreadable ones and single frames are ``failures``.

    Args:
        store: the latents; without ``workers`` they are computed in this process.
        videos: the clips.
        workers: who encodes.
    """
    outcome = Outcome()
    answers = ask_scores(store, videos, workers or Workers(store.device))
    with progress(total=len(videos), description="VAE-Seq", unit="clip") as bar:
        for path, score in zip(videos, answers, strict=True):
            if score is None or isinstance(score, UserError):
                reason = str(score) if isinstance(score, UserError) else "a single frame has no score."
                outcome.failures[path.name] = reason
                say(f"skipped {path.name}: {reason}")
            else:
                outcome.results[path.name] = score
            bar.update()
    return outcome


def list_videos(folder: str | Path) -> list[Path]:
    """The clips in ``folder`` (MP4, or AVI for real ones), by name; a `UserError` if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError("is not a folder", "Give the folder that generate.py made", folder)
    videos = sorted(
        path for path in folder.iterdir() if path.suffix in (".mp4", ".avi") and not path.name.startswith(".")
    )
    if not videos:
        raise UserError("holds no clip", "Give the folder that generate.py made", folder)
    return videos


def scored_with(folder: Path) -> dict[str, Any]:
    """What the scores in ``folder`` were made with, as `write_results` noted it; empty where nobody did, or where the
    scores are others by now."""
    path, results = folder / SCORED_WITH, folder / f"{RESULTS}.json"
    found = read_json(path) if path.is_file() and results.is_file() else {}
    if not isinstance(found, dict) or found.pop("scores", None) != fingerprint([results]):
        return {}
    return found


def write_results(
    folder: Path, scores: Mapping[str, float], made_with: Mapping[str, Any] | None = None
) -> None:
    """Writes the scores to ``folder``: JSON as published (file name -> score), CSV with class and clip, histogram.

    Args:
        folder: where to.
        scores: by file name.
        made_with: `LatentStore.made_with`, noted beside them, so that the filter takes no other VAE's scores.
    """
    rows = []
    for name, score in scores.items():
        try:
            sample = parse_file_name(name)
            rows.append((name, sample.clip, sample.cls, str(sample.seed), score))
        except UserError:  # a real clip, or a stranger's file: it has a score all the same
            rows.append((name, "", "", "", score))
    text = io.StringIO()
    csv.writer(text).writerows([("file_name", "clip", "class", "seed", "vae_seq"), *rows])
    make_folder(folder)
    with SynthesisFolder(folder).alone():  # a generation that starts removes what lies there unfinished
        write_json(folder / f"{RESULTS}.json", dict(scores))
        write_text(folder / f"{RESULTS}.csv", text.getvalue())
        if made_with:
            known = {"scores": fingerprint([folder / f"{RESULTS}.json"]), **made_with}
            write_json(folder / SCORED_WITH, known)
        _draw_histogram(folder / f"{RESULTS}.png", {row[0]: str(row[2]) for row in rows}, scores)


def _draw_histogram(path: Path, classes: Mapping[str, str], scores: Mapping[str, float]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted(set(classes.values()))
    values = [[score for name, score in scores.items() if classes[name] == cls] for cls in names]
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(values, bins=40, stacked=True, label=[name or "no class in the name" for name in names])
    axes.axvline(float(np.mean(list(scores.values()))), color="black", linestyle="--", label="mean")
    axes.set_xlabel("VAE-Seq, %")
    axes.set_ylabel("clips")
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
