"""docs/configuration.md names every field, with the default it has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cond2img.config import LDMConfig, VAEConfig
from cond2video.config import SequenceConfig

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
DOCUMENTED = {
    name
    for line in TEXT.splitlines()
    if line.startswith("| `")
    for name in re.findall(r"`([\w.]+)`", line.split("|")[1])
}


def names(schema):
    for field in dataclasses.fields(schema):
        nested = field.default_factory
        if isinstance(nested, type) and dataclasses.is_dataclass(nested):
            yield from (f"{field.name}.{inner.name}" for inner in dataclasses.fields(nested))
        else:
            yield field.name


@pytest.mark.parametrize("schema", [VAEConfig, LDMConfig, SequenceConfig])
def test_every_field_is_documented(schema):
    assert set(names(schema)) <= DOCUMENTED


def test_nothing_else_is_documented():
    known = {name for schema in (VAEConfig, LDMConfig, SequenceConfig) for name in names(schema)}
    assert known >= DOCUMENTED
