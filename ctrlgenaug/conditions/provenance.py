"""What the image priors and motion fields of a data set were made with, and of which version of each frame and clip.

Whoever keeps something made from conditions compares this with what it was then. Folders from elsewhere say nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ctrlgenaug.conditions.variants import WEIGHTS_FILE
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.folders import SETTINGS
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.preprocessing import ledger

# An encoder's file name, how many variants lie beside the frames' own priors, how trajectories are written.
MERE_NOTES = {"image_prior": ("encoder", "variants"), "motion_field": ("official_format",)}

Provenance = dict[str, dict[str, Any]]
"""By condition (``image_prior``, ``motion_field``); a condition of which nothing is known is left out."""


def noted_settings(folder: str | Path, name: str = SETTINGS) -> dict[str, Any]:
    """What the file ``name`` in ``folder`` says that its files were made with; empty where there is none."""
    path = Path(folder) / name
    noted = read_json(path) if path.is_file() else {}
    return noted if isinstance(noted, dict) else {}


def made_with(spec: DatasetSpec, home: Path, used: Collection[str]) -> Provenance:
    """The settings behind the conditions ``used``, without what changes no number of theirs."""
    noted = {
        "image_prior": noted_settings(home / spec.priors_dir, WEIGHTS_FILE),
        # a superset of the motion fields' own
        "motion_field": noted_settings(home / spec.trajectories_dir),
    }
    telling = {
        name: {key: value for key, value in settings.items() if key not in MERE_NOTES[name]}
        for name, settings in noted.items()
        if name in used
    }
    return {name: settings for name, settings in telling.items() if settings}


class Versions:
    """Tells the version of the frame and of the clip that a clip's conditions are of.

    Args:
        spec: the data set.
        home: its home folder.
        used: of ``image_prior`` and ``motion_field``.
    """

    def __init__(self, spec: DatasetSpec, home: Path, used: Collection[str]) -> None:
        self.spec = spec
        self._priors = ledger.entries(home / spec.priors_dir) if "image_prior" in used else {}
        self._fields = ledger.entries(home / spec.motion_dir) if "motion_field" in used else {}

    def of(self, clip: str) -> dict[str, str]:
        """The digest of the frame or clip behind each condition of ``clip``, as far as one is noted."""
        return {
            **_digest("image_prior", self._priors.get(self.spec.first_frame(clip))),
            **_digest("motion_field", self._fields.get(clip)),
        }


def _digest(condition: str, entry: dict[str, Any] | None) -> dict[str, str]:
    noted = entry and entry["made_from"]
    digest = noted[0] if isinstance(noted, list) and noted else noted  # a clip's size and date come with it
    return {condition: digest} if isinstance(digest, str) else {}
