"""Configs are strict: unknown fields, wrong types and malformed files are named errors."""

from dataclasses import dataclass, field

import pytest

from ctrlgenaug.config import load_config, save_config
from ctrlgenaug.errors import UserError


@dataclass
class Optimizer:
    weight_decay: float = 1e-2


@dataclass
class Schema:
    learning_rate: float = 1e-4
    caption_column: str | None = None
    labels: list[int] = field(default_factory=list)
    optimizer: Optimizer = field(default_factory=Optimizer)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("learning_rate: 1e-3\nlabels: [0, 2]\noptimizer: {weight_decay: 0.1}\n")
    return path


def test_file_then_command_line(path, tmp_path):
    config = load_config(Schema, path, ["optimizer.weight_decay=0.5", "--caption_column=text"])
    assert config == Schema(1e-3, "text", [0, 2], Optimizer(0.5))
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(Schema, tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lerning_rate=1", "unknown field lerning_rate. Did you mean learning_rate?"),
        (
            "optimizer.wait_decay=1",
            "unknown field optimizer.wait_decay. Did you mean optimizer.weight_decay?",
        ),
        ("learning_rate=fast", "learning_rate: .*could not be converted to Float"),
        ("learning_rate", "not of the form key=value"),
    ],
)
def test_bad_overrides_are_named(path, override, message):
    with pytest.raises(UserError, match=message):
        load_config(Schema, path, [override])


def test_unknown_field_in_the_file_names_the_file(path):
    path.write_text("epochs: 3\n")
    with pytest.raises(UserError, match="config.yaml: unknown field epochs"):
        load_config(Schema, path)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n"])
def test_malformed_yaml_is_named(path, text):
    path.write_text(text)
    with pytest.raises(UserError, match="config.yaml"):
        load_config(Schema, path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.yaml: does not exist"):
        load_config(Schema, tmp_path / "none.yaml")
