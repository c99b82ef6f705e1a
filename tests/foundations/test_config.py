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
    output_dir: str = "runs"
    epochs: int = 1
    shuffle: bool = False


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


@pytest.mark.parametrize(
    "text",
    [
        "0123",
        "12:30",
        "yes",
        "1e3",
        "null and void",
        "a: b",
        "[x]",
        "#1",
        "2026-01-01",
        "0x1F",
        "~/runs",
        " ",
    ],
)
def test_text_stays_text(path, tmp_path, text):
    config = load_config(Schema, path, [f"output_dir={text}", f"caption_column={text}"])
    assert (config.output_dir, config.caption_column) == (text, text)
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(Schema, tmp_path / "resolved.yaml") == config


def test_the_type_of_a_field_decides(path):
    given = ["epochs=010", "shuffle=yes", "learning_rate=1e-5", "labels=[1,2]", "caption_column=null"]
    config = load_config(Schema, path, given)
    assert (config.epochs, config.shuffle, config.learning_rate) == (10, True, 1e-5)
    assert config.labels == [1, 2] and config.caption_column is None
    for wrong in ("epochs=12:30", "epochs=yes", "labels=[a", "epochs=", "=3"):
        with pytest.raises(UserError):
            load_config(Schema, path, [wrong])


def test_unknown_field_in_the_file_names_the_file(path):
    path.write_text("passes: 3\n")
    with pytest.raises(UserError, match="config.yaml: unknown field passes"):
        load_config(Schema, path)


MALFORMED = {
    "an open list": b"a: [1",
    "a list": b"- 1\n- 2\n",
    "Latin-1": "data_name: Zürich\n".encode("latin-1"),
    "UTF-16": "epochs: 3\n".encode("utf-16"),
    "a binary file": bytes(range(256)),
    "nested too deeply": b"labels: " + b"[" * 100_000,
    "a Python object": b"epochs: !!python/object/apply:os.system ['true']\n",
    "an impossible date": b"epochs: 2026-99-99\n",
    "a number of many digits": b"epochs: " + b"9" * 5000 + b"\n",
    "an unknown alias": b"epochs: *other\n",
    "nothing": b"",
    "a tab": b"a:\n\t- b\n",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_yaml_is_named(path, content):
    path.write_bytes(content)
    if not content:
        assert load_config(Schema, path) == Schema()
        return
    with pytest.raises(UserError, match="config.yaml"):
        load_config(Schema, path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.yaml: does not exist"):
        load_config(Schema, tmp_path / "none.yaml")
