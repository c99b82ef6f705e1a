"""Numbers on command lines have bounds, in every script."""

import argparse
import ast
from pathlib import Path

import pytest

from augment.generation.arguments import parse_shard, share_devices
from ctrlgenaug import arguments
from ctrlgenaug.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
NONSENSE = ["nan", "inf", "-inf", "-1", "1e400", "", " ", "x", "1,5", "0x10", "9" * 400, "٣x"]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (arguments.positive_int, {"1": 1, "12": 12}, ["0", "1.5", "1e3"]),
        (arguments.whole_number, {"0": 0, "7": 7}, ["0.0", "-0.1"]),
        (arguments.seed_number, {"0": 0, "4294967295": 2**32 - 1}, ["4294967296", "1.0"]),
        (arguments.picture_side, {"16": 16, "256": 256}, ["1", "0", "50000"]),
        (arguments.positive_number, {"1e-5": 1e-5, "3": 3.0}, ["0", "0.0", "1e-400"]),
        (arguments.number_from_0, {"0": 0.0, "7.5": 7.5}, ["-1e-9"]),
        (arguments.fraction, {"0": 0.0, "1": 1.0, ".5": 0.5}, ["1.001", "7"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", "") if callable(value) else "",
)
def test_bounds(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in [*bad, *NONSENSE]:
        with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
            kind(text)


def test_every_number_of_every_script_has_bounds():
    """`type=int` takes 0, -1 and 10**400; `type=float` takes nan."""
    unbounded = []
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] in ("tests", "benchmarks") or ".venv" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                kinds = {ast.unparse(word.value) for word in node.keywords if word.arg == "type"}
                if kinds & {"int", "float"}:
                    unbounded.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not unbounded


@pytest.mark.parametrize(
    "command",
    [
        ("generate.py", "--batch_size", "0"),
        ("generate.py", "--guidance_scale", "nan"),
        ("train_classifier.py", "--seed", "-1"),
        ("evaluate.py", "--draws", "1e9"),
        ("noisy_data_filter.py", "--keep_at_least", "-1"),
        ("VAE-Seq.py", "--seed", "99999999999999999999"),
    ],
)
def test_a_script_says_it_in_one_line(call_script, tmp_path, command):
    error = call_script(*command, cwd=tmp_path, code=2).stderr.splitlines()[-1]
    assert f"argument {command[1]}" in error and repr(command[2]) in error


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
@pytest.mark.parametrize("text", ["x", "-1", "1.5", "٣"])
def test_a_launchers_environment_is_checked(name, text):
    with pytest.raises(UserError, match=f"the environment says {name}={text}"):
        parse_shard(None, {name: text}), share_devices(["cpu"], {name: text})
