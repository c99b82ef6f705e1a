"""The fields of the published configs in this project's words: a published YAML, or a user's copy, trains as it is.

docs/configuration.md holds the same tables for a reader, and a test keeps the two equal.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError

OPEN = "xxx"  # what the published files hold where the user is to write a number
METADATA = "_metadata.jsonl"

# published name -> ours; dots for nested fields
RENAMED = {
    "num_workers": "dataloader_num_workers",
    "pretrained_2d_model_path": "pretrained_model_path",
    "video_column": "image_column",
    "train_data.data_path": "train_data_dir",
    "train_data.keep_all_cond_prob": "condition_dropping.keep_all",
    "train_data.drop_all_cond_prob": "condition_dropping.drop_all",
    "validation_data.labels": "validation_data.class_labels",
    "validation_data.images": "validation_data.names",
    "validation_data.videos": "validation_data.names",
    "validation_data.video_length": "num_frames",
}
# published name -> the only value that makes sense here
FIXED: dict[str, Any] = {
    **{f"{part}.{side}": IMAGE_SIZE for part in ("train_data", "test_data", "validation_data")
       for side in ("width", "height")},
    "image_encode": "MedSAM",
}  # fmt: skip
# published name -> why it changes nothing
UNUSED = {
    "unet_config_path": "the UNet's config is unet/config.json in pretrained_model_path",
}
# what to write where a published file holds xxx
TO_FILL_IN = {
    "checkpointing_steps": "Write the optimizer steps between two checkpoints, e.g. checkpointing_steps: 1000",
    "validation_steps": "Write the optimizer steps between two validations, e.g. validation_steps: 1000",
}


def _metadata(part: str) -> Callable[[Any], dict[str, Any]]:
    """``{train,test}_data.data_json_path`` names a folder and, by the file's name, a split."""

    def split_up(value: Any) -> dict[str, Any]:
        path = Path(str(value))
        if not path.name.endswith(METADATA):
            remedy = f"Name it e.g. {part}{METADATA}"
            raise UserError(f"{part}_data.data_json_path is not named SPLIT{METADATA}", remedy, path)
        return {f"{part}_data_dir": str(path.parent), f"{part}_split": path.name.removesuffix(METADATA)}

    return split_up


def _drop_each(value: Any) -> dict[str, Any]:
    """One probability a condition: image prior, then motion field."""
    names = ("condition_dropping.drop_image_prior", "condition_dropping.drop_motion_field")
    if not isinstance(value, list):
        return {"condition_dropping.drop_each": value}
    if not 1 <= len(value) <= len(names):
        raise UserError(
            f"train_data.drop_each_cond_prob holds {len(value)} numbers",
            "Write one for the image prior and, for sequences, one for the motion field, e.g. [0.5, 0.5]",
        )
    return dict(zip(names, value, strict=False))


# published name -> a function of its value that gives fields of ours
SPLIT_UP: dict[str, Callable[[Any], dict[str, Any]]] = {
    "train_data.data_json_path": _metadata("train"),
    "test_data.data_json_path": _metadata("test"),
    "train_data.drop_each_cond_prob": _drop_each,
}


class PublishedFields:
    """Translates published fields into those of ``schema``.

    Attributes:
        notes: a line for each field that changes nothing here, each once.
    """

    def __init__(self, schema: type) -> None:
        self.own = set(_names(schema))
        self.known = self.own | {*RENAMED, *FIXED, *UNUSED, *SPLIT_UP}
        self.notes: list[str] = []

    def __call__(self, given: Mapping[str, Any], where: str | Path) -> dict[str, Any]:
        """``given`` (a config's nested fields, from ``where``) with every published field in our words.

        Raises:
            UserError: an unknown field (with the nearest known one), ``xxx`` left in, or a value that only another
                program could honour.
        """
        result: dict[str, Any] = {}
        for name, value in _leaves(given):
            self._check(name, value, where)
            for ours, translated in self._translated(name, value, where):
                _set(result, ours, translated)
        return result

    def _check(self, name: str, value: Any, where: str | Path) -> None:
        if name not in self.known:
            near = difflib.get_close_matches(name, sorted(self.known), n=1)
            known = ", ".join(sorted({known.split(".")[0] for known in self.known}))
            remedy = f"Did you mean {near[0]}?" if near else f"Known fields: {known}"
            raise UserError(f"unknown field {name}", remedy, where)
        if isinstance(value, str) and value.strip().lower() == OPEN:
            remedy = TO_FILL_IN.get(name, f"Write its value ({name}: ...)")
            raise UserError(f"{name} is still {OPEN}, which is to be filled in", remedy, where)

    def _translated(self, name: str, value: Any, where: str | Path) -> Iterator[tuple[str, Any]]:
        if name in RENAMED:
            if value is not None:
                yield RENAMED[name], value
        elif name in SPLIT_UP:
            if value is not None:
                yield from SPLIT_UP[name](value).items()
        elif name in FIXED:
            if value not in (FIXED[name], str(FIXED[name]), None):
                raise UserError(f"{name} is {value}", f"Only {FIXED[name]} is possible here", where)
        elif name in UNUSED:
            note = f"note: {name} has no effect ({UNUSED[name]})"
            if value is not None and note not in self.notes:
                self.notes.append(note)
        elif name == "mixed_precision" and value is None:
            yield name, "no"
        else:
            yield name, value


def _names(schema: type, prefix: str = "") -> Iterator[str]:
    """The dotted names of a schema's fields, nested ones included."""
    for field in dataclasses.fields(schema):
        yield prefix + field.name
        if isinstance(field.default_factory, type) and dataclasses.is_dataclass(field.default_factory):
            yield from _names(field.default_factory, f"{prefix}{field.name}.")


def _leaves(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _set(target: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value
