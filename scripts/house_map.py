"""Draws the map in CONTRIBUTING.md anew: every module with the first sentence of its docstring.

python scripts/house_map.py          writes it
python scripts/house_map.py --check  says whether it is up to date, and changes nothing
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map -->\n", "<!-- end of map -->\n"
STOREYS = ("augment", "cond2video", "cond2img", "ctrlgenaug")  # from the attic down


def first_sentence(file: Path) -> str:
    """What a module says of itself, up to the first full stop that ends a sentence."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


def draw_map() -> str:
    """The map as Markdown: a heading a package, a line a module."""
    lines = []
    for storey in STOREYS:
        for folder in sorted({file.parent for file in (ROOT / storey).rglob("*.py")}):
            modules = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
            lines.append(f"\n**{folder.relative_to(ROOT)}/**: {first_sentence(folder / '__init__.py')}\n")
            lines += [f"- `{file.name}`: {first_sentence(file)}" for file in modules]
    return "\n".join(lines).strip() + "\n"


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}\n{draw_map()}\n{END}{tail}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(wanted, encoding="utf-8")
    elif page != wanted:
        print("CONTRIBUTING.md: the map is out of date. Run python scripts/house_map.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
