"""Where a run of the pipeline left its results: the official folder names, unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrlgenaug.datasets import DatasetSpec

STAGES = {"vae": "VAE", "ldm": "LDM", "sequence_ldm": "sequence LDM"}


@dataclass(frozen=True)
class RunFolders:
    """The folders and files that a report is made from; any of them may be missing.

    Attributes:
        spec: the data set.
        home: its folder.
        runs: holds a folder for each stage of `STAGES`.
        synthetic: the generated clips.
        filtered: what the noise filter kept.
        classifiers: run folders of train_classifier.py.
        comparison: reproduce.sh's folder.
        evaluation: evaluate.py's JSON.
    """

    spec: DatasetSpec
    home: Path
    runs: Path
    synthetic: Path
    filtered: Path
    classifiers: tuple[Path, ...]
    comparison: Path
    evaluation: Path


def find(
    spec: DatasetSpec,
    data_root: str | Path = ".",
    *,
    sequence_model: str | Path | None = None,
    runs: str | Path | None = None,
    synthetic: str | Path | None = None,
    filtered: str | Path | None = None,
    classifiers: Sequence[str | Path] | None = None,
    reproduce: str | Path | None = None,
    evaluation: str | Path | None = None,
) -> RunFolders:
    """Looks in the working directory, where the scripts leave their results by default; what is given is taken."""
    name = spec.data_name
    model = Path(sequence_model or f"sequence_model_{name}")
    made = Path(synthetic) if synthetic else _newest(model, "cond_*_synthesis_mp4", "cond_im_synthesis_mp4")
    if classifiers is None:
        classifiers = sorted(path.parent for path in Path().glob(f"classifier_{name}*/metrics.json"))
    return RunFolders(
        spec=spec,
        home=spec.home_in(data_root),
        runs=Path(runs) if runs else _first(f"runs/{name}", "runs"),
        synthetic=made,
        filtered=Path(filtered)
        if filtered
        else _first(f"{name}_filtered", f"{name}_synthetic_filtered", f"{made}_filtered"),
        classifiers=tuple(map(Path, classifiers)),
        comparison=Path(reproduce or f"reproduce_{name}"),
        evaluation=Path(evaluation or "evaluation.json"),
    )


def _first(*candidates: str) -> Path:
    """The first that exists, else the first."""
    return next((Path(path) for path in candidates if Path(path).exists()), Path(candidates[0]))


def _newest(folder: Path, pattern: str, fallback: str) -> Path:
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else folder / fallback
