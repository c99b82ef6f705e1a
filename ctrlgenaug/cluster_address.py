"""Where a Ray cluster is said to be, and whether Ray answers there."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path

from ctrlgenaug.errors import UserError

SECONDS_TO_ANSWER = 10
SETTINGS_FRAME = b"\0\0\0\4"  # length of what follows (3 bytes, any) and kind: the first that HTTP/2 says
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS_FRAME + bytes(5)


def last_started() -> str:
    """The address that Ray takes for ``auto``, as far as it is written down; "" where Ray has to look for it."""
    noted = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        address = os.environ.get("RAY_ADDRESS") or noted.read_text(encoding="utf-8").strip()
        return address if ":" in address else ""
    return ""


def host_and_port(address: str) -> tuple[str, int]:
    """Where ``host:port``, or Ray's ``ray://host:port``, leads; a `UserError` if it is neither."""
    found = re.fullmatch(r"(?:ray://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})", address)
    if not found or not 0 < int(found[2]) < 1 << 16:
        raise UserError(f"--cluster {address!r} is no address", "Write auto, or host:port such as head:6379")
    return found[1].strip("[]"), int(found[2])


def call(host: str, port: int) -> None:
    """Says hello as gRPC does, which Ray speaks: whom it would join it would ask for minutes, whatever that is.

    Raises:
        OSError: nobody there, or not somebody who speaks gRPC.
    """
    try:
        with socket.create_connection((host, port), SECONDS_TO_ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            connection.sendall(HELLO)
            with connection.makefile("rb") as answer:
                if answer.read(len(SETTINGS_FRAME))[3:] != SETTINGS_FRAME[3:]:
                    raise ConnectionError("what answers there is not Ray")
    except UnicodeError:
        raise OSError("there can be no machine of that name") from None
