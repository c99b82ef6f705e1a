"""A data file's YAML into its dataclass. Every scalar is text first: the field's type decides what it means.

So a class may be called ``NO``, ``0`` or ``007``, which YAML alone would take for false, a number and 7.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file

Schema = TypeVar("Schema")
MOST_BYTES = 1 << 20
MOST_VALUES = 100_000  # aliases can make a few lines into billions
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
TRUE, FALSE, NOTHING = ("true", "yes", "on"), ("false", "no", "off"), ("null", "none", "~")


def read_fields(schema: type[Schema], path: Path, page: str) -> Schema:
    """Reads ``path`` into ``schema``, a dataclass of dataclasses, lists, dictionaries and scalars.

    Args:
        schema: knows every field, its type and default.
        path: the YAML file.
        page: explains the fields, for errors.

    Raises:
        UserError: missing or malformed, an unknown field (the nearest is named), a value of another type.
    """
    if check_file(path, f"See {page}") > MOST_BYTES:
        raise UserError("is too large for a data file", f"See {page}", path)
    try:
        found = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"is not YAML{where}", "Mend the line", path) from None
    except (UnicodeDecodeError, RecursionError):
        raise UserError("is not UTF-8 text of a data file", "Save it as UTF-8", path) from None
    if not isinstance(found, dict):
        raise UserError("is not a list of `field: value` lines", f"See {page}", path)
    try:
        return _Reading().dataclass(schema, found, "")
    except ValueError as error:
        raise UserError(str(error), f"See {page}", path) from None


class _Reading:
    """One pass over a file; counts what it meets."""

    def __init__(self) -> None:
        self.values = 0

    def dataclass(self, schema: type[Schema], given: dict[str, Any], prefix: str) -> Schema:
        known = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
        hints = typing.get_type_hints(schema)
        values = {}
        for name, value in given.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"Did you mean {prefix}{near[0]}?" if near else f"Known fields: {', '.join(known)}"
                raise ValueError(f"unknown field {prefix}{name}. {hint}")
            values[name] = self.value(hints[name], value, f"{prefix}{name}")
        return schema(**values)

    def value(self, kind: Any, given: Any, name: str) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            raise ValueError("it holds more values than a data file has")
        options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        if types.NoneType in options:
            kind = next(option for option in options if option is not types.NoneType)
            if isinstance(given, str) and (given.lower() in NOTHING or (given == "" and kind is not str)):
                return None
        if dataclasses.is_dataclass(kind):
            if given in ("", None):
                return kind()  # type: ignore[operator]
            if not isinstance(given, dict):
                raise ValueError(f"{name} is {given!r}, must be fields")
            return self.dataclass(typing.cast(type, kind), given, f"{name}.")
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is list:
            if not isinstance(given, list):
                raise ValueError(f"{name} is {given!r}, must be a list: [..., ...]")
            return [self.value(inner[0], item, name) for item in given]
        if origin is dict:
            if not isinstance(given, dict):
                raise ValueError(f"{name} is {given!r}, must be {{word: value}}")
            return {
                self.value(str, key, name): self.value(inner[1], item, name) for key, item in given.items()
            }
        return self.scalar(kind, given, name)

    def scalar(self, kind: Any, given: Any, name: str) -> Any:
        if not isinstance(given, str):
            raise ValueError(f"{name} is {given!r}, must be one value")
        if kind is bool:
            if given.lower() not in (*TRUE, *FALSE):
                raise ValueError(f"{name} is {given!r}, must be true or false")
            return given.lower() in TRUE
        if kind is str:
            return given
        try:
            return kind(given)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} is {given!r}, must be {what}") from None
