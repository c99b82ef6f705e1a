"""The map in CONTRIBUTING.md is the house as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_map_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/house_map.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
