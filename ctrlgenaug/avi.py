"""Raw I420 AVI, byte for byte as ffmpeg's rawvideo encoder writes it from grey frames, without a process a clip."""

from __future__ import annotations

import struct

import numpy as np

USEC_A_FRAME = 400_000  # 2.5 frames/s
RATE, SCALE = 5, 2
FLAGS = 0x0910  # has an index, is interleaved, its chunk types may be trusted
KEY_FRAME = 0x10
LARGEST = 1 << 30  # bytes; beyond it the format needs a second kind of index

# Grey values in [0, 255] -> luma in [16, 235], as ITU-R BT.601 has it. The chroma of grey is 128.
_LUMA = bytes(int(grey * 219 / 255 + 16.5) for grey in range(256))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


def _list(kind: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", kind + b"".join(chunks))


def _header(count: int, height: int, width: int, size: int) -> bytes:
    """The list of headers: the file's, the stream's, and room that ffmpeg keeps for the index of larger files."""
    bytes_a_second = size * RATE // SCALE
    file = struct.pack(
        "<14I", USEC_A_FRAME, bytes_a_second, 0, FLAGS, count, 0, 1, 1 << 20, width, height, 0, 0, 0, 0
    )
    stream = b"vidsI420" + struct.pack(
        "<10I4H", 0, 0, 0, SCALE, RATE, 0, count, size, 0xFFFFFFFF, 0, 0, 0, width, height
    )
    picture = struct.pack("<IiiHH4s5I", 40, width, height, 1, 12, b"I420", size, 0, 0, 0, 0)
    room = (b"\x04" + bytes(7) + b"00dc").ljust(4120, b"\0")
    more_room = b"odmldmlh\xf8".ljust(260, b"\0")
    strl = _list(b"strl", _chunk(b"strh", stream), _chunk(b"strf", picture), _chunk(b"JUNK", room))
    return _list(b"hdrl", _chunk(b"avih", file), strl, _chunk(b"JUNK", more_room))


def grey_avi(frames: np.ndarray) -> bytes:
    """The file's bytes for (F, H, W) uint8 frames at 2.5 frames/s, H and W even.

    Raises:
        ValueError: odd sizes, or a file of 1 GB or more.
    """
    count, height, width = frames.shape
    size = height * width * 3 // 2
    if height % 2 or width % 2 or count * size >= LARGEST:
        raise ValueError(f"{count} frames of {height} x {width} do not fit a plain I420 AVI")
    chroma = b"\x80" * (height * width // 2)
    head = b"00dc" + struct.pack("<I", size)
    frame_bytes = [part for frame in frames for part in (head, frame.tobytes().translate(_LUMA), chroma)]
    index = [b"00dc" + struct.pack("<III", KEY_FRAME, 4 + n * (size + 8), size) for n in range(count)]
    parts = [
        b"AVI ",
        _header(count, height, width, size),
        _chunk(b"JUNK", bytes(1016)),
        b"LIST" + struct.pack("<I", 4 + count * (8 + size)) + b"movi",
        *frame_bytes,  # joined once: they are all but a thousandth of the file
        _chunk(b"idx1", b"".join(index)),
    ]
    return b"".join([b"RIFF" + struct.pack("<I", sum(map(len, parts))), *parts])
