"""Configs: YAML checked against a dataclass, ``key=value`` overrides, unknown keys refused with the nearest one."""

from __future__ import annotations

import dataclasses
import difflib
import io
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.files import read_text, write_text

Schema = TypeVar("Schema")


def load_config(
    schema: type[Schema],
    path: str | Path,
    overrides: Sequence[str] = (),
    page: str = "docs/configuration.md",
    translate: Callable[[dict[str, Any], str | Path], dict[str, Any]] | None = None,
) -> Schema:
    """Reads a YAML config into ``schema`` (a dataclass, nested ones allowed).

    Args:
        schema: the dataclass that lists every field with its type and default.
        path: the YAML file.
        overrides: ``key=value`` pairs, dots for nested keys; they win over the file.
        page: the page that explains the fields, for errors.
        translate: turns fields of another spelling, given with where they come from, into those of ``schema``.

    Raises:
        UserError: missing or malformed file, unknown key (named, with the nearest one), wrong type, missing value.
    """
    path = Path(path)
    from_file, from_line = _read(path), OmegaConf.create()
    for item in overrides:
        _override(from_line, schema, item.lstrip("-"))
    try:
        merged = OmegaConf.structured(schema)
        for source, where in ((from_file, path), (from_line, "command line")):
            if translate is not None:
                source = OmegaConf.create(translate(OmegaConf.to_container(source), where))
            _refuse_unknown(source, schema, where)
            merged = OmegaConf.merge(merged, source)
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{key}{reason}", f"See {page} for the field's type", path) from None
    except ValueError as error:  # a schema's own __post_init__
        raise UserError(str(error), f"See {page}", path) from None


def _read(path: Path) -> DictConfig:
    text = read_text(path, "Give the path of a config, e.g. one in configs/")
    try:
        content = OmegaConf.load(io.StringIO(text))
    except (
        Exception
    ) as error:  # YAML's own errors, and those of numbers, dates and depths that it does not expect
        reason = in_one_line(error)
        raise UserError(f"is not YAML ({reason})", "Mend the line", path) from None
    if not isinstance(content, DictConfig):
        raise UserError("is not a list of `key: value` lines", "See configs/ for examples", path)
    return content


def _override(config: DictConfig, schema: type, item: str) -> None:
    """Sets one ``key=value`` as the field's type reads it; YAML would take 0123 for 83, 12:30 for 750, yes for true."""
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UserError(f"{item!r} is not of the form key=value", "Write e.g. learning_rate=1e-4")
    try:
        if not _is_scalar(schema, key):
            config.merge_with(OmegaConf.from_dotlist([item]))
        else:
            OmegaConf.update(config, key, None if text in ("null", "~") else text)
    except Exception as error:  # see `_read`
        reason = in_one_line(error)
        raise UserError(f"{item!r} cannot be read ({reason})", "Write e.g. learning_rate=1e-4") from None


def _is_scalar(schema: type, key: str) -> bool:
    """Whether field ``key`` (dots for nested ones) is one text, number or switch; None counts as such."""
    found: Any = schema
    for name in key.split("."):
        if not dataclasses.is_dataclass(found):
            return False
        found = typing.get_type_hints(found).get(name)
    either = typing.get_origin(found) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(found) if either else (found,)) - {type(None)}
    return kinds <= {str, int, float, bool}


def _refuse_unknown(given: DictConfig, schema: type, where: str | Path, prefix: str = "") -> None:
    fields = {field.name: field for field in dataclasses.fields(schema)}
    for key in given:
        if str(key) not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            remedy = f"Did you mean {prefix}{near[0]}?" if near else f"Known fields: {', '.join(fields)}"
            raise UserError(f"unknown field {prefix}{key}", remedy, where)
        default = fields[str(key)].default_factory
        nested = default if isinstance(default, type) and dataclasses.is_dataclass(default) else None
        if nested is not None and OmegaConf.is_dict(given[key]):
            _refuse_unknown(given[key], nested, where, f"{prefix}{key}.")


def to_yaml(config: Any) -> str:
    """A config as YAML, every field written out."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def save_config(config: Any, path: str | Path) -> None:
    """Writes the resolved config beside a run's results, whole or not at all."""
    write_text(path, to_yaml(config))
