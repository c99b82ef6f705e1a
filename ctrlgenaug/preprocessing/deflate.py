"""Compression of PNG and gzip files: by ISA-L where it is installed (three times as fast), else by zlib."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

try:
    from isal import isal_zlib
except ImportError:  # no wheel for this machine: the same pixels, in more time
    isal_zlib = None  # type: ignore[assignment]

_module: Any = isal_zlib or zlib
REST = 1 << 16  # bytes looked at beyond those asked for
Errors = (zlib.error, getattr(isal_zlib, "error", zlib.error))


def compress(data: bytes | np.ndarray) -> bytes:
    """A zlib stream, by the fastest level that compresses."""
    return _module.compress(data, 1)


def unpack_gzip(data: bytes, size: int) -> bytes:
    """The first ``size`` bytes (or fewer) of gzip data of any number of members; hardly more is ever in memory.

    Raises:
        Errors: the data are damaged; where they end soon after ``size`` bytes, also by their checksum.
    """
    parts, missing = [], size
    while data and missing > 0:
        stream = _module.decompressobj(wbits=31)
        part = stream.decompress(data, missing)
        parts.append(part)
        missing -= len(part)
        if (
            not missing and not stream.eof
        ):  # what little is left, up to the member's checksum, which is compared
            stream.decompress(stream.unconsumed_tail, REST)
        data = stream.unused_data if stream.eof else b""
        if not data.startswith(b"\x1f\x8b"):  # zeros after the last member, as some tools leave them
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)
