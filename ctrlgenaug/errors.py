"""The one kind of error a user is meant to read: what is wrong with which file, and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path


class UserError(Exception):
    """Something in the user's data, configuration or command line that the user can mend.

    Args:
        problem: what is wrong, without a full stop, e.g. ``"is not a NIfTI volume (file truncated)"``.
        remedy: what to do, as an imperative sentence, e.g. ``"Download it again"``.
        path: the file or folder at fault, where there is one.
    """

    def __init__(self, problem: str, remedy: str = "", path: str | Path | None = None) -> None:
        self.problem, self.remedy, self.path = problem, remedy, path
        super().__init__(problem, remedy, path)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path is not None else ""
        return where + " ".join(
            text if text.endswith((".", "?", "!")) else f"{text}."
            for text in (self.problem, self.remedy)
            if text
        )


def in_one_line(error: BaseException) -> str:
    """What a library's error says, in a line of at most 200 characters, without its advice to read a file unsafely."""
    text = " ".join(str(error).split())
    if re.search(r"allow_pickle|weights_only|trust", text):
        text = re.split(r"(?<=[.!?]) ", text)[0]
    if re.search(r"allow_pickle|weights_only|trust", text):
        text = "it holds more than plain data"
    return text[:200] or type(error).__name__
