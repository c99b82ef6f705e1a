"""Imports point down only: `augment` may use the models, the models the ground, and the ground neither."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STOREYS = ("ctrlgenaug", "cond2img", "cond2video", "augment")  # from the ground up
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}


def imported(file: Path) -> set[str]:
    """First parts of all module names that ``file`` imports, also inside functions."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("storey", STOREYS)
def test_no_import_climbs(storey: str) -> None:
    forbidden = {*STOREYS[STOREYS.index(storey) + 1 :], *SCRIPTS}
    climbing = {str(file): up for file in (ROOT / storey).rglob("*.py") if (up := imported(file) & forbidden)}
    assert not climbing


def test_no_script_imports_another() -> None:
    assert not {file.name: up for file in ROOT.glob("*.py") if (up := imported(file) & SCRIPTS)}


def test_no_module_is_named_by_a_string() -> None:
    """A path in a string hides an arrow from everybody who reads the imports."""
    files = [file for storey in STOREYS for file in (ROOT / storey).rglob("*.py")]
    assert not [str(file) for file in files if "import_module" in file.read_text(encoding="utf-8")]


def needed(file: Path, modules: set[str]) -> set[str]:
    """The ones of ``modules`` whose names ``file`` imports anywhere in it, also for type checking alone."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inner & modules) or {node.module}
    return names & modules


def test_no_two_files_need_each_other() -> None:
    """Packages' own files apart: they name their modules, and a module may need the package's other ones."""
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for storey in STOREYS
        for file in (ROOT / storey).rglob("*.py")
        if file.stem != "__init__"
    }
    graph = {name: needed(file, set(files)) for name, file in files.items()}
    TopologicalSorter(graph).prepare()  # raises and names the circle
