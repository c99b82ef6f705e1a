"""One self-contained HTML page: a table of contents, sections of text, tables and embedded pictures. Opens offline.

All text is escaped, because names come from data. What is missing is named where it should stand, and again on top.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from augment.report.style import STYLE
from ctrlgenaug.files import write_text

WIDEST = 1600  # pixels; wider pictures are reduced, which keeps a page of many clips small
STRIP = 5  # width over height from which a picture scrolls in its box on a phone instead of becoming tiny


@dataclass(frozen=True)
class Key:
    """The one line of a section that must not be missed."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Something missing or doubtful; repeated at the top of the page."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Long plain text behind its title."""

    title: str
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text below ``header``.

    Attributes:
        header: titles of the columns.
        rows: cells; shown as `str` shows them.
        numeric: positions of the columns that are set flush right.
        long: positions of the columns whose long words (paths, commands) may be broken.
        caption: said above it, if anything.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    numeric: Sequence[int] = ()
    long: Sequence[int] = ()
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An encoded picture; made by `picture` and `drawn`.

    Attributes:
        png: the file's content.
        size: width and height, in pixels.
        caption: said above it.
    """

    png: bytes
    size: tuple[int, int]
    caption: str


Block = str | Key | Heading | Notice | Fold | Table | Picture


@dataclass
class Section:
    """A titled part of a page.

    Attributes:
        title: its heading, unique on the page.
        blocks: what follows, in order; a plain string is a paragraph.
        facts: (what, figure) of this section for the page's top.
    """

    title: str
    blocks: list[Block] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def notices(self) -> list[Notice]:
        """What this section lacks or doubts."""
        return [block for block in self.blocks if isinstance(block, Notice)]

    @property
    def anchor(self) -> str:
        """The target of links to this section."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


def picture(path: Path, caption: str) -> Picture | Notice:
    """A picture file, reduced to `WIDEST`; a `Notice` if it is missing or damaged."""
    if not path.is_file():
        return Notice(f"{caption}: there is no picture {path}.")
    try:
        with Image.open(path) as image:
            image.load()
            if image.width <= WIDEST and image.format == "PNG":
                return Picture(path.read_bytes(), image.size, caption)
            image.thumbnail((WIDEST, 100 * WIDEST), Image.Resampling.BOX)
            return _encoded(image, caption)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Notice(f"{caption}: {path} is not a readable picture.")


def drawn(pixels: np.ndarray, caption: str) -> Picture:
    """A picture from (H, W) or (H, W, 3) uint8."""
    return _encoded(Image.fromarray(pixels), caption)


def _encoded(image: Image.Image, caption: str) -> Picture:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return Picture(data.getvalue(), image.size, caption)


def _table(table: Table) -> str:
    def row(cells: Sequence[object], tag: str) -> str:
        kinds = [
            "number" if c in table.numeric else "long" if c in table.long else "" for c in range(len(cells))
        ]
        return "".join(
            f"<{tag}{f' class={kind}' if kind else ''}>{html.escape(str(cell))}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    caption = f'<p class="caption">{html.escape(table.caption)}</p>' if table.caption else ""
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    head = f"<thead><tr>{row(table.header, 'th')}</tr></thead>"
    return f'{caption}<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        caption, (width, height) = html.escape(block.caption), block.size
        kind = ' class="strip"' if width > STRIP * height else ""
        source = base64.b64encode(block.png).decode()
        image = (
            f'<img src="data:image/png;base64,{source}" width="{width}" height="{height}" alt="{caption}">'
        )
        return f"<figure{kind}><figcaption>{caption}</figcaption>{image}</figure>"
    if isinstance(block, Fold):
        text = html.escape(block.text)
        return f"<details><summary>{html.escape(block.title)}</summary><pre>{text}</pre></details>"
    if isinstance(block, str):
        return f"<p>{html.escape(block)}</p>"
    before, after = {
        Key: ('<p class="key">', "</p>"),
        Heading: ("<h3>", "</h3>"),
        Notice: ('<p class="notice">', "</p>"),
    }[type(block)]
    return f"{before}{html.escape(block.text)}{after}"


def _contents(sections: Sequence[Section]) -> str:
    lines = []
    for section in sections:
        number = len(section.notices)
        count = f' <span class="count" title="notices">{number}</span>' if number else ""
        lines.append(f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a>{count}</li>')
    return f'<nav aria-label="Contents"><ol>{"".join(lines)}</ol></nav>'


def _overview(sections: Sequence[Section]) -> str:
    """The figures of all sections, then everything that is missing or doubtful, with links to where it belongs."""
    facts = [
        f"<div><dt>{html.escape(what)}</dt><dd>{html.escape(value)}</dd></div>"
        for section in sections
        for what, value in section.facts
    ]
    notices = [
        f'<li><a href="#{section.anchor}">{html.escape(section.title)}</a>: {html.escape(notice.text)}</li>'
        for section in sections
        for notice in section.notices
    ]
    return (f'<dl class="facts">{"".join(facts)}</dl>' if facts else "") + (
        f'<ul class="notices">{"".join(notices)}</ul>' if notices else ""
    )


def write_page(path: str | Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Writes the page, pictures embedded, whole or not at all."""
    body = "".join(
        f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>'
        f"{''.join(map(_block, section.blocks))}</section>"
        for section in sections
    )
    header = f'<header><h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p></header>'
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<style>{STYLE}</style></head>\n<body><div class="page">{header}{_contents(sections)}'
        f"<main>{_overview(sections)}{body}</main></div></body></html>\n",
    )
