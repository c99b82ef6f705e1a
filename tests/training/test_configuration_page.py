"""docs/configuration.md names every field, with the default it has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cond2img.config import LDMConfig, VAEConfig
from cond2video.config import SequenceConfig
from ctrlgenaug.training import published

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
DOCUMENTED = {
    name
    for line in TEXT.split("## All stages")[1].splitlines()
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


def test_the_table_of_published_fields_is_the_code_s():
    section = TEXT.split("## Published configs")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    told = {name: here for left, here in rows for name in re.findall(r"`([\w.]+)`", left)}
    assert told.keys() == {*published.RENAMED, *published.FIXED, *published.UNUSED, *published.SPLIT_UP}
    for name, ours in published.RENAMED.items():
        assert f"`{ours}`" in told[name], name
    for name in published.FIXED:
        assert str(published.FIXED[name]) in told[name], name
