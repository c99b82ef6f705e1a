"""Pickles of foreign files, read without running anything: containers, numbers, text, NumPy arrays, CPU tensors.

A pickle is a program: it names functions, calls them, and sets the state of what they return. Three closed lists keep
it to data. Only the opcodes in `OPCODES` are admitted; every name stands for an object of this module (`NAMES`), never
for the library's own; and what a pickle calls an array or a dtype is a record of it (`PickledArray`, `PickledDtype`)
until its numbers have been checked. NumPy's own dtype is not among them: setting its state sets its flags, and with
them NumPy takes bytes of the file for addresses.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ctrlgenaug.errors import UserError, in_one_line

# The official trajectories of a clip of 8 frames take 3.3 MB; reading takes some copies of this.
LARGEST_PICKLE = 1 << 28
# An array takes some 40 instructions. Tuples nested a million times would overflow the stack where they are hashed.
LONGEST_PROGRAM = 10_000
DEEPEST_NESTING = 32
# A tensor's numbers are copied three times on their way out of the file.
LARGEST_GROWTH = 8
NUMERIC_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
OBJECT_CODES = {"O", "O8"}
STORAGE_CODES = {
    f"torch.{name}Storage": code
    for name, code in {
        "Bool": "b1", "Char": "i1", "Short": "i2", "Int": "i4", "Long": "i8",
        "Byte": "u1", "Half": "f2", "Float": "f4", "Double": "f8",
    }.items()
}  # fmt: skip
TORCH_MAGIC = 0x1950A86A20F9469CFC6C

# Left out: persistent ids, the extension registry, instances of classes, sets, buffers outside of the file.
OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP",
    "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
}  # fmt: skip


def refuse(why: str) -> NoReturn:
    """Ends the reading of a pickle."""
    raise pickle.UnpicklingError(why)


# Bytes that the pickle being read may still have copied: it can refer to one long text a thousand times.
_allowance: ContextVar[list[int] | None] = ContextVar("allowance", default=None)


def _spend(count: int) -> None:
    left = _allowance.get()
    if left is not None:
        left[0] -= count
        if left[0] < 0:
            refuse("it unpacks to many times its size")


class Callback:
    """A function that a pickle may call and do nothing else with: it has no attributes that it could set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        refuse("it changes a function")


class PickledDtype:
    """What a pickle calls a dtype: one of `NUMERIC_CODES` with a byte order, or ``object``."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        text = code if isinstance(code, str) else ""
        self.order, self.code = (text[0], text[1:]) if text[:1] in ("<", ">", "=", "|") else ("=", text)
        if self.code not in NUMERIC_CODES | OBJECT_CODES:
            refuse(f"it holds numbers of the type {code!r:.40}, which is not allowed")

    def __setstate__(self, state: object) -> None:
        """Takes the byte order out of NumPy's (version, order, subdtype, names, fields, itemsize, alignment, flags)."""
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "=", "|")):
            refuse("its dtype has an unknown state")
        if any(part is not None for part in state[2:5]):
            refuse("its dtype has fields, which are not allowed")
        self.order = state[1]

    def numeric(self) -> np.dtype:
        """The NumPy dtype; for ``object`` the reading ends."""
        if self.code in OBJECT_CODES:
            refuse("it holds an array of objects, which is not allowed")
        return np.dtype(self.order + self.code)


class PickledArray:
    """What a pickle calls an array, until `value` has built it from its bytes."""

    __slots__ = ("_value",)

    def __setstate__(self, state: object) -> None:
        """Takes NumPy's (version, shape, dtype, Fortran order, bytes or list of objects)."""
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], PickledDtype)):
            refuse("its array has an unknown state")
        _, shape, dtype, fortran, content = state
        if dtype.code in OBJECT_CODES and shape == () and isinstance(content, list) and len(content) == 1:
            # np.save spells a dict so: an array of one object without dimensions
            self._value = content[0]
        else:
            self._value = _array(content, dtype, shape, "F" if fortran else "C")

    def value(self) -> Any:
        """The array (or the one object that it wraps)."""
        return self._value if hasattr(self, "_value") else refuse("it names an array without content")


def _array(content: object, dtype: object, shape: object, order: object, axes: object = None) -> np.ndarray:
    """An array of its own from the bytes of a pickle; they must be as many as the shape says."""
    if not isinstance(dtype, PickledDtype) or not isinstance(content, bytes | bytearray):
        refuse("its array is not made of numbers")
    sizes = _whole_numbers(shape)
    numbers = dtype.numeric()
    if math.prod(sizes) * numbers.itemsize != len(content):
        refuse(f"its array of shape {sizes} has {len(content)} bytes")
    _spend(len(content))
    flat = np.frombuffer(bytearray(content), numbers).astype(numbers.newbyteorder("="), copy=False)
    if axes is None:
        return flat.reshape(sizes, order="F" if order == "F" else "C")
    return flat.reshape(sizes).transpose(_whole_numbers(axes))


def _whole_numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > 16:
        refuse("its array has no shape")
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in value):
        refuse("its array has an impossible shape")
    return tuple(value)


def _empty_array(kind: object, shape: object = (0,), code: object = b"b") -> PickledArray:
    return PickledArray() if kind is PickledArray else refuse("it makes an array of an unknown class")


def _scalar(dtype: object, content: object = b"") -> bool | int | float:
    """A NumPy number as Python's."""
    return _array(content, dtype, (), "C").item()


def _latin1_bytes(text: object, encoding: object = "latin1") -> bytes:
    """How protocols 0 to 2 spell bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        refuse(f"it uses the codec {encoding!r:.40}, which is not allowed")
    _spend(len(text))
    return text.encode("latin1")


def _storage(content: object) -> np.ndarray:
    """The flat numbers behind a tensor, which torch keeps in a file of its own within the pickle.

    That file is five pickles (a number, its version, the system, the storage's name and type, the names in order), then
    the count of the numbers and the numbers.
    """
    if not isinstance(content, bytes | bytearray):
        refuse("its tensor has no storage")
    _spend(len(content))
    stream = io.BytesIO(content)
    magic, _, system, storage, names = (_load(StorageUnpickler, stream) for _ in range(5))
    if magic != TORCH_MAGIC or not isinstance(storage, tuple):
        refuse("its tensor's storage is no file of torch")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        refuse("its tensor's storage is of a big-endian machine")
    code, name, count = storage
    numbers = np.dtype(f"<{code}")
    written = int.from_bytes(stream.read(8), "little")
    rest = stream.read()
    if names != [name] or written != count or len(rest) != count * numbers.itemsize:
        refuse("its tensor's storage has not the size that it says")
    return np.frombuffer(rest, numbers)


def _tensor(storage: object, offset: object, shape: object, strides: object, *rest: object) -> np.ndarray:
    """A tensor as an array. Its elements must lie within the storage, and may not lie there twice."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        refuse("its tensor has no storage")
    sizes, steps, (start,) = _whole_numbers(shape), _whole_numbers(strides), _whole_numbers((offset,))
    if len(sizes) != len(steps) or math.prod(sizes) > storage.size:
        refuse("its tensor does not fit its storage")
    last = start + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if math.prod(sizes) and last >= storage.size:
        refuse("its tensor does not fit its storage")
    if not math.prod(sizes):
        return np.empty(sizes, storage.dtype)
    width = storage.dtype.itemsize
    _spend(math.prod(sizes) * width)
    return np.lib.stride_tricks.as_strided(storage[start:], sizes, [step * width for step in steps]).copy()


def _empty_bytes(*content: object) -> bytes:
    """How protocols 0 to 2 spell no bytes at all."""
    return b"" if not content else refuse("it makes bytes of something")


def _no_hooks(*items: object) -> dict[Any, Any]:
    """The empty OrderedDict in which a tensor carries its hooks."""
    return {} if not items else refuse("it holds an OrderedDict with content")


_ARRAY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": _empty_array,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _array,
}
NUMPY_NAMES: dict[str, Any] = {
    "numpy.dtype": PickledDtype,
    "numpy.ndarray": PickledArray,
    **{
        f"numpy.{core}.{name}": Callback(call)
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, call in _ARRAY_FUNCTIONS.items()
    },
    "_codecs.encode": Callback(_latin1_bytes),
    "builtins.bytes": Callback(_empty_bytes),
    "__builtin__.bytes": Callback(_empty_bytes),
}
TORCH_NAMES: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": Callback(_tensor),
    "torch.storage._load_from_bytes": Callback(_storage),
    "collections.OrderedDict": Callback(_no_hooks),
}
NAMES = NUMPY_NAMES | TORCH_NAMES


class RestrictedUnpickler(pickle.Unpickler):
    """Gives a pickle the objects of `NAMES` for the names it uses, and no others."""

    OPCODES = OPCODES

    def find_class(self, module: str, name: str) -> Any:
        try:
            return NAMES[f"{module}.{name}"]
        except KeyError:
            refuse(f"it refers to {module}.{name}, which is not allowed")


class StorageUnpickler(RestrictedUnpickler):
    """Reads the pickles of a storage: they name its type, and spell it as a persistent id."""

    OPCODES = OPCODES | {"BINPERSID"}

    def find_class(self, module: str, name: str) -> Any:
        return STORAGE_CODES.get(f"{module}.{name}") or refuse(f"its tensor holds {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        """(code, name, count) of ("storage", type, name, device, count, view)."""
        if not (isinstance(pid, tuple) and len(pid) == 6 and pid[0] == "storage" and pid[5] is None):
            refuse("its tensor has no plain storage")
        _, code, name, _, count, _ = pid
        if code not in NUMERIC_CODES or not isinstance(name, str) or type(count) is not int or count < 0:
            refuse("its tensor has no plain storage")
        return code, name, count


def _load(unpickler: type[RestrictedUnpickler], stream: io.BytesIO) -> Any:
    """One pickle out of ``stream``, after a look at its instructions.

    Refused are those that data needs not, too many, and memo entries whose number alone would take up all memory.
    """
    start = stream.tell()
    for index, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name not in unpickler.OPCODES:
            refuse(f"it uses the instruction {opcode.name}, which is not allowed")
        if index >= LONGEST_PROGRAM:
            refuse("it has more instructions than data needs")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= stream.tell():
            refuse("it numbers more objects than it has")
    stream.seek(start)
    return unpickler(stream).load()


def _plain(value: object, done: dict[int, Any], depth: int = 0) -> Any:
    """``value`` with its records replaced by arrays; each object once, however often it is referred to."""
    if id(value) in done:
        return done[id(value)]
    if depth > DEEPEST_NESTING:
        refuse("it is nested too deeply")
    result: Any = value
    if isinstance(value, PickledArray):
        result = _plain(value.value(), done, depth + 1)
    elif isinstance(value, list | tuple):
        result = type(value)([_plain(item, done, depth + 1) for item in value])
    elif isinstance(value, dict):
        if not all(isinstance(key, str | bytes | int | float | None) for key in value):
            refuse("it holds keys that are neither text nor numbers")
        result = {key: _plain(item, done, depth + 1) for key, item in value.items()}
    elif not isinstance(value, np.ndarray | str | bytes | bytearray | int | float | None):
        refuse("it holds something that is no data")
    done[id(value)] = result
    return result


def unpickle(content: bytes) -> Any:
    """The data in a pickle: containers, numbers, text, NumPy arrays; tensors come as arrays.

    Raises:
        Exception: nearly any, for a damaged pickle; ``pickle.UnpicklingError`` for one that is more than data.
    """
    token = _allowance.set([LARGEST_GROWTH * len(content)])
    try:
        return _plain(_load(RestrictedUnpickler, io.BytesIO(content)), {})
    finally:
        _allowance.reset(token)


def load_restricted_pickle(path: str | Path) -> Any:
    """Loads a pickle (or pickled .npy) that holds nothing but containers, numbers, text, NumPy arrays and CPU tensors.

    Returns:
        the data; tensors come as NumPy arrays.

    Raises:
        UserError: the file is missing, damaged, larger than `LARGEST_PICKLE`, or refers to anything else.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            if handle.read(6) == np.lib.format.MAGIC_PREFIX:  # a pickled .npy: the header, then the pickle
                handle.seek(0)
                _skip_npy_header(handle)
            else:
                handle.seek(0)
            content = handle.read(LARGEST_PICKLE + 1)
        if len(content) > LARGEST_PICKLE:
            refuse(f"it is larger than {LARGEST_PICKLE >> 20} MB")
        return unpickle(content)
    except FileNotFoundError:
        raise UserError("does not exist", "Run the step that writes it first", path) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = in_one_line(error)
        raise UserError(
            f"cannot be loaded safely ({reason})", "Write it again with this project", path
        ) from None


def _skip_npy_header(handle: Any) -> None:
    version = np.lib.format.read_magic(handle)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    readers[version](handle)
