"""The text encoder and its tokenizer: every weight from the folder, nothing from the network."""

import json
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from augment.demo.weights import write_stable_diffusion
from cond2img.models.text import load_text
from ctrlgenaug.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "stable-diffusion"
    write_stable_diffusion(folder, seed=0)
    return folder


@pytest.fixture
def folder(source, tmp_path, monkeypatch):
    """A copy under a relative path, which could be taken for a model's name; every connection is a failure."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(source / name, tmp_path / "models" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


def rename(folder, change):
    file = folder / "text_encoder" / "model.safetensors"
    save_file({new: value for name, value in load_file(file).items() if (new := change(name))}, file)


def states(folder):
    tokenizer, encoder = load_text(folder)
    tokens = tokenizer(["a solid nodule"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        return encoder(tokens)[0]


def test_names_of_every_release_give_the_same_encoder(folder):
    expected = states("models")
    bare = lambda name: name.removeprefix("text_model.")  # noqa: E731
    for change in (bare, lambda n: f"text_model.{bare(n)}", lambda n: f"model.text_model.{bare(n)}"):
        rename(folder, change)
        assert torch.equal(states("models"), expected)
        rename(folder, lambda n: n.removeprefix("model."))
    file = folder / "text_encoder" / "model.safetensors"
    extra = {"vision_model.x": torch.ones(1), "embeddings.position_ids": torch.arange(77)[None]}
    torch.save(load_file(file) | extra, folder / "text_encoder" / "pytorch_model.bin")
    file.unlink()
    assert torch.equal(states("models"), expected)


def test_code_that_a_config_names_is_not_looked_for(folder):
    path = folder / "text_encoder" / "config.json"
    asks = {"_attn_implementation": "somebody/kernel", "attn_implementation": "flash_attention_2"}
    path.write_text(json.dumps(json.loads(path.read_text()) | asks | {"auto_map": {"AutoModel": "x--y.Z"}}))
    assert load_text("models")[1].config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda f: shutil.rmtree(f / "tokenizer"),
            r"tokenizer: lacks vocab.json and merges.txt. Copy tokenizer/",
        ),
        (lambda f: (f / "tokenizer/merges.txt").unlink(), "tokenizer: lacks merges.txt. Copy tokenizer/"),
        (lambda f: (f / "tokenizer/vocab.json").write_text("{"), "tokenizer: is no CLIP tokenizer"),
        (lambda f: (f / "tokenizer/vocab.json").write_text('{"a": 0}'), "knows .* tokens, text_encoder/"),
        (lambda f: shutil.rmtree(f / "text_encoder"), "text_encoder: is no model folder"),
        (lambda f: (f / "text_encoder/model.safetensors").unlink(), "text_encoder: holds no weights"),
        (lambda f: rename(f, lambda n: f"x.{n}"), r"text_encoder: is no CLIP text encoder \(lacks"),
        (lambda f: rename(f, lambda n: n if "layers.0" not in n else ""), r"lacks \d+ weights, such as"),
        (
            lambda f: (f / "text_encoder/config.json").write_text('{"hidden_size": 32}'),
            "no CLIP text encoder",
        ),
    ],
)
def test_what_is_missing_is_said(folder, harm, message):
    harm(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_text("models")
    assert "\n" not in str(caught.value)
