"""Foreign pickles: the official files are read, and a crafted one can neither run nor corrupt anything."""

import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch

from augment.classifiers.weights import read_weights
from ctrlgenaug.errors import UserError
from ctrlgenaug.restricted_pickle import NAMES, load_restricted_pickle, unpickle

NUMPY = "numpy._core.multiarray"


# --- what must be read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        np.arange(12, dtype=np.int64).reshape(3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((2, 3, 4)).transpose(1, 0, 2),
        np.arange(3, dtype=">i4"),
        np.ones(3, bool),
        np.empty((0, 3), np.float32),
        np.float32(2.5),
        np.int64(3),
        torch.arange(6).view(2, 3),
        torch.arange(6).view(2, 3).T,
        torch.arange(20.0)[3:9],
        torch.ones(3, dtype=torch.bool),
        torch.empty(0, 3),
        torch.tensor(7, dtype=torch.uint8),
        torch.ones(2, dtype=torch.float16),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.dtype}-{tuple(value.shape)}",
)
def test_arrays_numbers_and_tensors_of_every_protocol(value, protocol):
    loaded = unpickle(pickle.dumps({"a": [value, (value, "text", None, True)]}, protocol))
    first, (second, *rest) = loaded["a"]
    assert rest == ["text", None, True]
    np.testing.assert_array_equal(first, np.asarray(value))
    assert np.asarray(first).shape == tuple(value.shape) and np.array_equal(first, second)
    if isinstance(first, np.ndarray):
        assert first.dtype == np.asarray(value).dtype.newbyteorder("=")
        first[...] = 0  # it owns its numbers


def test_a_dict_inside_a_npy(tmp_path):
    value = {"traj32": torch.arange(24).view(4, 2, 3), "mask32": np.ones((4, 2), bool)}
    np.save(tmp_path / "a.npy", value, allow_pickle=True)
    loaded = load_restricted_pickle(tmp_path / "a.npy")
    assert loaded["traj32"].shape == (4, 2, 3) and loaded["mask32"].all()


# --- what must be refused ---------------------------------------------------------------------------------------------


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


DTYPE = name("numpy", "dtype")
INT8 = DTYPE + text("i8") + b"\x85R"
EMPTY = name(NUMPY, "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85" + raw(b"b") + b"\x87R"


def dtype_with_flags(flags: int) -> bytes:
    """An i8 whose state says that it holds objects: NumPy's own dtype would then follow its bytes as addresses."""
    return INT8 + b"(K\x03" + text("|") + b"NNN" + number(8) + number(8) + number(flags) + b"tb"


def array(dtype: bytes, shape: bytes, content: bytes) -> bytes:
    return EMPTY + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


# as a pickled tensor carries it
STORAGE = torch.TypedStorage(
    wrap_storage=torch.arange(4).untyped_storage(), dtype=torch.int64, _internal=True
).__reduce__()[1][0]


def tensor(storage: bytes, offset: int, size: bytes, stride: bytes) -> bytes:
    loaded = name("torch.storage", "_load_from_bytes") + raw(storage) + b"\x85R"
    hooks = name("collections", "OrderedDict") + b")R"
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + loaded
        + number(offset)
        + size
        + stride
        + b"\x89"
        + hooks
        + b"tR"
    )


ADDRESS = raw(struct.pack("<q", 0x4141414141))
ONE = b"K\x01\x85"
ATTACKS = {
    "runs a function": name("os", "system") + text("touch pwned") + b"\x85R",
    "runs through the stack": text("posix") + text("system") + b"\x93" + text("touch pwned") + b"\x85R",
    "runs through INST": b"(" + text("touch pwned") + b"ios\nsystem\n",
    "runs through OBJ": b"(" + name("os", "system") + text("touch pwned") + b"o",
    "reaches an attribute": text("numpy") + text("dtype.__init__") + b"\x93",
    "reaches a module": text("numpy") + text("os.system") + b"\x93",
    "getattr": name("builtins", "getattr") + DTYPE + text("type") + b"\x86R",
    "an attribute of a function": name(NUMPY, "_reconstruct") + b"N}" + text("_call") + DTYPE + b"s\x86b",
    "an attribute of a class": DTYPE + b"N}" + text("numeric") + name(NUMPY, "scalar") + b"s\x86b",
    "the state of a class": name("numpy", "ndarray") + b"(K\x01" + ONE + INT8 + b"\x89" + ADDRESS + b"tb",
    "a dtype flagged as objects in a scalar": name(NUMPY, "scalar") + dtype_with_flags(0x3F) + ADDRESS + b"\x86R"
    + b"}" + text("a") + b"K\x01sb",
    "a dtype of objects in a scalar": name(NUMPY, "scalar") + DTYPE + text("O") + b"\x85R" + ADDRESS + b"\x86R",
    "a dtype of objects in an array": array(DTYPE + text("O8") + b"\x85R", ONE, ADDRESS),
    "a dtype of objects in a buffer": name("numpy._core.numeric", "_frombuffer") + b"(" + ADDRESS
    + DTYPE + text("O") + b"\x85R" + ONE + text("C") + b"tR",
    "a dtype with fields": INT8 + b"(K\x03" + text("<") + b"N" + text("a") + b"\x85}K\x08K\x08K\x00tb",
    "a dtype of a dtype": DTYPE + INT8 + b"\x85R",
    "text as a dtype": DTYPE + text("U1000000000") + b"\x85R",
    "void": DTYPE + text("V8") + b"\x85R",
    "dates": DTYPE + text("M8[ns]") + b"\x85R",
    "nested dtypes": DTYPE + text("i8,O") + b"\x85R",
    "an array of 2**60 numbers": array(INT8, number(1 << 40) + number(1 << 20) + b"\x86", ADDRESS),
    "an array of fewer bytes": array(INT8, number(1000) + b"\x85", ADDRESS),
    "a negative shape": array(INT8, number(-1) + number(-1) + b"\x86", ADDRESS),
    "a shape of 64 axes": array(INT8, b"(" + b"K\x01" * 64 + b"t", ADDRESS),
    "an array without content": EMPTY,
    "an array as its own state": EMPTY + b"2b",
    "an array of another class": name(NUMPY, "_reconstruct") + DTYPE + b"K\x00\x85" + raw(b"b") + b"\x87R",
    "a new dtype without a code": DTYPE + b")\x81" + b"(K\x03" + text("<") + b"NNNtb",
    "a tensor beyond its storage": tensor(STORAGE, 0, number(5) + b"\x85", ONE),
    "a tensor before its storage": tensor(STORAGE, -8, number(2) + b"\x85", ONE),
    "a tensor behind its storage": tensor(STORAGE, 1 << 40, ONE, ONE),
    "strides beyond the storage": tensor(STORAGE, 0, b"K\x02\x85", number(1 << 40) + b"\x85"),
    "negative strides": tensor(STORAGE, 0, b"K\x02\x85", number(-1) + b"\x85"),
    "one number spread over 2**40": tensor(STORAGE, 0, number(1 << 40) + b"\x85", b"K\x00\x85"),
    "a storage cut short": tensor(STORAGE[:-8], 0, b"K\x03\x85", ONE),
    "a storage of a greater count": tensor(STORAGE.replace(b"K\x04Nt", b"K\x40Nt"), 0, b"K\x04\x85", ONE),
    "a storage that runs a function": tensor(b"\x80\x02" + name("os", "system") + text("touch pwned") + b"\x85R.",
                                             0, ONE, ONE),
    "a storage that is an archive": tensor(b"PK\x03\x04" + bytes(40), 0, ONE, ONE),
    "an OrderedDict with content": name("collections", "OrderedDict") + b"(" + text("a") + b"K\x01\x86t\x85R",
    "a codec that unpacks": name("_codecs", "encode") + text("x") + text("zlib") + b"\x86R",
    "a persistent id": text("x") + b"Q",
    "the extension registry": b"\x82\x01",
    "a buffer from elsewhere": b"\x97",
    "a set of unhashables": b"\x8f(]\x90",
    "a memo entry of 2**31": b"Nr" + struct.pack("<I", 0x7FFFFFFF),
    "a text that says 4 GB": b"X\xff\xff\xff\xff",
    "bytes that say 2**62": b"\x8e" + struct.pack("<Q", 1 << 62),
    "a number of 100 MB": b"\x8b" + struct.pack("<i", 100 << 20),
    "lists nested a million times": b"]" * 10**6 + b"a" * (10**6 - 1),
    "tuples nested a million times as a key": b"}" + b")" + b"\x85" * 10**6 + b"Ns",
    "a list in itself": b"]q\x00h\x00a",
    "a dict in itself": b"}q\x00K\x01h\x00s",
    "tuples as keys": b"}K\x01\x85Ns",
    "a dtype as a value": INT8,
    "a function as a value": name(NUMPY, "scalar"),
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_crafted_pickles_are_refused(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "crafted.npy"
    start = time.perf_counter()
    for content in (
        b"\x80\x04" + ATTACKS[attack] + b".",
        b"\x80\x04}" + text("traj32") + ATTACKS[attack] + b"s.",
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be loaded safely"):
            load_restricted_pickle(path)
    assert time.perf_counter() - start < 5
    assert os.listdir(tmp_path) == ["crafted.npy"]
    assert type(NAMES["numpy.dtype"]("i8").numeric()) is type(np.dtype("i8"))


def test_doubling_lists_are_read_once_each():
    """Thirty lists, each of which holds the one before twice, stand for 2**30 items."""
    content = b"]q\x00" + b"".join(
        b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(30)
    )
    value = unpickle(b"\x80\x04" + content + b".")
    assert value[0] is value[1]


def test_one_text_cannot_be_copied_a_thousand_times():
    copied = b"(" + (name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 1000 + b"t"
    with pytest.raises(pickle.UnpicklingError, match="many times its size"):
        unpickle(b"\x80\x04" + text("x" * 200_000) + b"q\x000" + copied + b".")


# --- the same names in a classifier's file --------------------------------------------------------------------------


CLASSIFIER_ATTACKS = [
    key for key in ATTACKS if key.split()[0] in ("runs", "reaches", "getattr", "void", "dates", "text", "nested")
] + [key for key in ATTACKS if "dtype" in key or "attribute" in key or "class" in key]  # fmt: skip


@pytest.mark.parametrize("attack", sorted(set(CLASSIFIER_ATTACKS) - {"a dtype as a value"}))
def test_crafted_classifiers_are_refused(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "crafted.pth"
    content = b"\x80\x02}" + text("state_dict") + ATTACKS[attack] + b"s."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    with pytest.raises(UserError, match="cannot be loaded safely|holds no weights"):
        read_weights(path)
    assert os.listdir(tmp_path) == ["crafted.pth"]
