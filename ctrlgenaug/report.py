"""One self-contained HTML page: titled sections of text, tables and embedded pictures. Opens offline."""

from __future__ import annotations

import base64
import html
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctrlgenaug.files import write_text

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p { max-width: 46rem; } figure { margin: 1rem 0; } figcaption { font-size: .85rem; opacity: .75; }
img { max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.key { background: var(--soft); padding: .8rem 1rem; border-radius: 6px; font-size: 1.1rem; max-width: 46rem; }
"""


@dataclass
class Table:
    """Rows of text below ``header``; columns named in ``numeric`` (by position) are set flush right."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    numeric: Sequence[int] = ()


@dataclass
class Section:
    """A titled part of a page.

    Attributes:
        title: its heading.
        text: a paragraph below it, if any.
        key: one emphasised line, if any.
        pictures: (path, caption); a missing file is left out with a line that says so.
        table: a table, if any.
    """

    title: str
    text: str = ""
    key: str = ""
    pictures: list[tuple[Path, str]] = field(default_factory=list)
    table: Table | None = None


def _picture(path: Path, caption: str) -> str:
    caption = html.escape(caption)
    if not path.is_file():
        return f"<p><em>{caption}: no picture was made ({html.escape(path.name)}).</em></p>"
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img src="data:{kind};base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _table(table: Table) -> str:
    def row(cells: Sequence[object], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if column in table.numeric else ''}>{html.escape(str(cell))}</{tag}>"
            for column, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    return f'<div class="wide"><table><tr>{row(table.header, "th")}</tr>{body}</table></div>'


def write_page(path: str | Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Writes the page, pictures embedded, whole or not at all. All text is escaped: names come from data."""
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(lead)}</p>"]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.key:
            parts.append(f'<p class="key">{html.escape(section.key)}</p>')
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        parts += [_picture(Path(picture), caption) for picture, caption in section.pictures]
        if section.table:
            parts.append(_table(section.table))
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n",
    )
