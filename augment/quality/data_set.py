"""Which data set a folder of synthetic clips is of, where no flag says it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augment.generation.plan import parse_file_name
from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug import datasets
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError


def data_set_of(
    options: argparse.Namespace,
    folders: Sequence[str | Path],
    classifier: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
) -> DatasetSpec:
    """The data set that the flags name, else the folder's own, else the classifier's, else the one of the clips' names.

    Args:
        options: with the flags of `datasets.add_data_options`.
        folders: of synthetic clips.
        classifier: what its checkpoint says about it.
        checkpoint: that file, for errors.

    Returns:
        the spec; where it knows no classes, with the classifier's, else with those that the clips' names tell.

    Raises:
        UserError: an unknown data set, or a classifier of other classes, or of the same ones in another order: what it
            calls the first class would be taken for another.
    """
    made = [SynthesisFolder(folder) for folder in folders]
    names = sorted(name for folder in made for name in folder.names())
    noted = [found["data_name"] for folder in made if (found := folder.settings()).get("data_name")]
    told = [*noted, (classifier or {}).get("data_name"), _by_names(names)]
    default = next((name for name in told if name), datasets.DEFAULT)
    spec = datasets.chosen(options, default)
    noted_classes = (classifier or {}).get("classes")
    classes = tuple(map(str, noted_classes)) if isinstance(noted_classes, list | tuple) else ()
    if classes and not spec.classes:  # names tell no class of which no clip is left
        spec = dataclasses.replace(spec, classes=classes)
    if classes and classes != spec.classes:
        known = f"{', '.join(classes)} ({(classifier or {}).get('data_name')})"
        problem = f"is a classifier of {known}, {spec.data_name} has {', '.join(spec.classes)}"
        raise UserError(problem, "Check --data_name, or train it again", checkpoint)
    return spec.with_classes_of(names) if names else spec


def _by_names(names: Sequence[str]) -> str | None:
    """The registered data set that most of these files could be of; None where two fit alike."""
    fitting = {name: sum(_fits(file, datasets.get(name)) for file in names) for name in datasets.data_names()}
    best = max(fitting.values(), default=0)
    found = [name for name, number in fitting.items() if number == best]
    return found[0] if best and len(found) == 1 else None


def _fits(file_name: str, spec: DatasetSpec) -> bool:
    if not spec.classes:
        return False
    try:
        spec.parse_clip(parse_file_name(file_name, spec).clip)
    except UserError:
        return False
    return True
