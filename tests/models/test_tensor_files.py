"""Weights as they are in the wild: wrapped, prefixed, sharded, old; and what must not be read."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from ctrlgenaug.errors import UserError
from ctrlgenaug.tensor_files import bare_names, read_folder, read_tensors

WEIGHTS = {
    "conv.weight": torch.arange(6.0).reshape(2, 3),
    "conv.bias": torch.ones(2),
    "scale": torch.ones(()),
}


def prefixed(prefix):
    return {prefix + name: value for name, value in WEIGHTS.items()}


def same(found):
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        prefixed("_orig_mod.module."),
        prefixed("net."),
        {"state_dict": prefixed("model."), "epoch": 3, "optimizer": {"lr": 0.1}},
        {"state_dict": prefixed("model.net._orig_mod."), "pytorch-lightning_version": "2.0"},
        {"model": {"state_dict": prefixed("module.")}},
        {"module": WEIGHTS, "global_steps": 7},
        {name.replace("conv.", "conv._orig_mod."): value for name, value in WEIGHTS.items()},
    ],
    ids=str,
)
@pytest.mark.parametrize("old", [False, True])
def test_wrappers_come_off(tmp_path, content, old):
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=not old)
    assert same(read_tensors(tmp_path / "weights.pth"))


def test_a_prefix_of_some_names_belongs_to_the_model(tmp_path):
    mixed = {"model.weight": torch.ones(1), "head.weight": torch.ones(1)}
    assert bare_names(mixed, tmp_path) == mixed
    with pytest.raises(UserError, match="twice"):
        bare_names({"a": torch.ones(1), "_orig_mod.a": torch.ones(1)}, tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("stem", ["diffusion_pytorch_model", "model"])
def test_shards(tmp_path, suffix, stem):
    save = save_file if suffix == "safetensors" else torch.save
    places = {}
    for number, (name, value) in enumerate(prefixed("module.").items(), 1):
        file = f"{stem}-{number:05d}-of-00003.{suffix}"
        save({name: value}, tmp_path / file)
        places[name] = file
    index = tmp_path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert same(read_folder(tmp_path, (stem,)))
    (tmp_path / places["module.scale"]).unlink()
    with pytest.raises(UserError, match="-00003-of-00003.*not there"):
        read_folder(tmp_path, (stem,))
    index.write_text(json.dumps({"weight_map": {"a": "../a.bin"}}))
    with pytest.raises(UserError, match="not a plain file name"):
        read_folder(tmp_path, (stem,))
    index.write_text("[]")
    with pytest.raises(UserError, match="names no shards"):
        read_folder(tmp_path, (stem,))


class Payload:
    def __reduce__(self):
        return print, ("run by the unpickler",)


BAD = {
    "code": lambda file: torch.save({"a": Payload()}, file),
    "code, old format": lambda file: torch.save({"a": Payload()}, file, _use_new_zipfile_serialization=False),
    "code, bare": lambda file: file.write_bytes(pickle.dumps({"a": Payload()})),
    "a whole model": lambda file: torch.save(torch.nn.Linear(1, 1), file),
    "numpy": lambda file: torch.save({"a": torch.ones(1).numpy()}, file),
    "text": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: (torch.save(WEIGHTS, file), file.write_bytes(file.read_bytes()[:300])),
    "a list": lambda file: torch.save([torch.ones(1)], file),
    "no tensors": lambda file: torch.save({"epoch": 3}, file),
    "numbers for names": lambda file: torch.save({0: torch.ones(1)}, file),
    "a folder": lambda file: file.mkdir(),
    "nothing": lambda file: None,
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_weights_is_one_line_without_bad_advice(tmp_path, kind, suffix, capfd):
    file = tmp_path / f"weights.{suffix}"
    BAD[kind](file)
    with pytest.raises(UserError) as caught:
        read_tensors(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and message.endswith(("download it again.", "file itself there."))
    assert "\n" not in message and len(message) < len(str(file)) + 300
    for advice in ("weights_only", "allow_pickle", "add_safe_globals", "trust"):
        assert advice not in message
    assert "run by the unpickler" not in capfd.readouterr().out
