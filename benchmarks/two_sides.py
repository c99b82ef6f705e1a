"""The two codes that `against_published.py` compares, and one comparison."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ctrlgenaug.errors import UserError  # noqa: E402

ON_CPU = Path(__file__).resolve().parent / "published_on_cpu.py"
# Runs the imports at a script's head and nothing else; `published_on_cpu.py` stands in for what is not installed.
IMPORTS_ALONE = """
import ast, sys
for node in ast.parse(open(sys.argv[1]).read()).body:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        try:
            exec(compile(ast.Module([node], []), sys.argv[1], "exec"))
        except ImportError:
            pass
"""


@dataclass(frozen=True)
class Side:
    """One of the two codes.

    Attributes:
        name: ``published`` or ``ours``.
        python: its interpreter.
        code: its folder.
        compiled: where its compiled modules are kept.
    """

    name: str
    python: str
    code: Path
    compiled: Path

    def run(self, arguments: list[str], folder: Path) -> tuple[float, str]:
        """Runs Python with ``arguments`` in ``folder``.

        Returns:
            processor seconds of the process and its children, and what it printed.
        """
        environment = {**os.environ, "PYTHONPATH": str(self.code), "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(self.compiled)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [self.python, *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise UserError(f"{self.name}: {arguments[0]} failed ({''.join(tail)})")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout

    def script(self, name: str, flags: list[str], work: Path) -> float:
        """Processor seconds of one of the data scripts, in one process."""
        own = ["--num_workers", "1"] if self.name == "ours" else []
        return self.run([str(self.code / name), *flags, *own], work)[0]

    def on_cpu(self, name: str, flags: list[str], work: Path) -> float:
        """Processor seconds of a script that wants a GPU."""
        command = [str(self.code / name), *flags]
        return self.run(command if self.name == "ours" else [str(ON_CPU), *command], work)[0]

    def start(self, name: str, work: Path) -> float:
        """Processor seconds to start Python and to import what a script imports at its head."""
        command = ["-c", IMPORTS_ALONE, str(self.code / name)]
        self.run(command, work)  # compiles what has not been compiled
        return self.run(command, work)[0]


Measure = Callable[[Side, Path], float]


@dataclass(frozen=True)
class Comparison:
    """A row.

    Attributes:
        measure: processor seconds of one side's step in its working folder.
        script: the script whose start is part of that; none where a call in a running process is timed.
        published_starts: how often the published one is started; ours is started once.
    """

    measure: Measure
    script: str = ""
    published_starts: int = 1


def compare(row: Comparison, sides: list[Side], works: dict[str, Path], rounds: int) -> dict[str, float]:
    """Medians of both sides' processor seconds and of their starts, the ratio, and that of the work alone."""
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    starts = {side.name: side.start(row.script, works[side.name]) if row.script else 0.0 for side in sides}
    starts["published"] *= row.published_starts
    for _ in range(rounds if row.script else 1):
        for side in sides:
            seconds[side.name].append(row.measure(side, works[side.name]))
    published, ours = (statistics.median(seconds[side.name]) for side in sides)
    work = (ours - starts["ours"]) / (published - starts["published"])
    return {
        "published": published,
        "published_start": starts["published"],
        "ours": ours,
        "ours_start": starts["ours"],
        "ratio": ours / published,
        "work_ratio": work,
    }
