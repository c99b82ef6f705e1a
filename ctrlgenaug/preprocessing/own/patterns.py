"""Patterns of paths with named parts: ``{class}/{case}_{number}.png``."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ctrlgenaug.errors import UserError

TOKENS = r"(\*\*/|\*\*|\*|\?|\[[^\]/]*\]|\{[^{}]*\})"
# {case} takes as much as it can: scan.v2 of scan.v2.mp4
PARTS_EXPRESSIONS = {"number": "[0-9]+", "case": "[^/]+"}
PARTS = ("case", "patient", "class", "split", "number")


@dataclass(frozen=True)
class Pattern:
    """A pattern, ready to be matched.

    Attributes:
        text: as written.
        expression: the same as a regular expression.
    """

    text: str
    expression: re.Pattern[str]

    def match(self, relative: str) -> dict[str, str] | None:
        """The named parts of a path below the raw folder, or None if the pattern does not fit."""
        found = self.expression.fullmatch(relative)
        return found.groupdict() if found else None

    def above_case(self, relative: str) -> str:
        """The folders of a path above what ``{case}`` stands for, without what ``{number}`` stands for."""
        found = self.expression.fullmatch(unicodedata.normalize("NFC", relative))
        if not found or "case" not in found.groupdict():
            return ""
        above = found.string[: found.start("case")]
        if "number" in found.groupdict() and found.start("number") < found.start("case"):
            above = above[: found.start("number")] + above[found.end("number") :]
        return above.rpartition("/")[0]

    def fill(self, parts: dict[str, str]) -> Pattern:
        """This pattern with known ``parts`` put in: what the mask of a case may be called."""
        return Pattern(self.text, _compile(self.text, parts))


def pattern(text: str) -> Pattern:
    """Reads a pattern; a `UserError` if it names an unknown part."""
    return Pattern(text, _compile(text, {}))


def _compile(text: str, known: dict[str, str]) -> re.Pattern[str]:
    expression, seen = "", set()
    for token in re.split(TOKENS, unicodedata.normalize("NFC", text).replace("\\", "/")):
        if token == "**/":
            expression += "(?:.*/)?"
        elif token == "**":
            expression += ".*"
        elif token == "*":
            expression += "[^/]*"
        elif token == "?":
            expression += "[^/]"
        elif token.startswith("["):
            expression += token
        elif token.startswith("{"):
            name = token[1:-1]
            if name not in PARTS:
                raise UserError(
                    f"pattern {text!r} names {token}", f"Known: {', '.join(f'{{{part}}}' for part in PARTS)}"
                )
            if name in known:
                expression += re.escape(known[name])
            elif name in seen:
                expression += f"(?P={name})"
            else:
                expression += f"(?P<{name}>{PARTS_EXPRESSIONS.get(name, '[^/]+?')})"
            seen.add(name)
        else:
            expression += re.escape(token)
    return re.compile(expression)
