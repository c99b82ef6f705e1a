"""What speaks against a classifier as a judge of synthetic clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augment.classifiers.training_run import METRICS
from augment.classifiers.weights import read_weights
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json

REAL_ALONE = "baseline"  # the paradigm without synthetic clips
HARDLY = 0.5  # found in fewer of its real test patients, a class is one that a classifier hardly knows


def doubts(path: str | Path) -> list[str]:
    """Warnings, from what the classifier file says of its training and the `METRICS` beside it of its test.

    Args:
        path: of the classifier. Of one that says nothing, such as a checkpoint of mmaction2, there are none.
    """
    return [*_taught_by_synthetic(read_weights(path)[1]), *_hardly_known(Path(path).parent / METRICS)]


def _taught_by_synthetic(meta: Mapping[str, Any]) -> list[str]:
    settings = meta.get("settings")
    paradigm = settings.get("paradigm", REAL_ALONE) if isinstance(settings, dict) else REAL_ALONE
    if paradigm == REAL_ALONE:
        return []
    return [
        f"the classifier learned from synthetic clips (--paradigm {paradigm}): what it finds in such clips says "
        "little; take one of real clips alone"
    ]


def _hardly_known(metrics: Path) -> list[str]:
    try:
        found = read_json(metrics)["test"]["patient"]["per_class"]
        tested = {cls: (row["sensitivity"], row["count"]) for cls, row in found.items()}
        return [
            f"the classifier finds class {cls} in {100 * share:.0f} % of its {count} real test patients: what it says "
            "of synthetic clips of that class is worth little (docs/filter.md)"
            for cls, (share, count) in tested.items()
            if share is not None and share < HARDLY
        ]
    except (UserError, KeyError, TypeError, AttributeError, ValueError):  # no test, or not as a run wrote it
        return []
