"""Weights out of classifier files: ours, and those of mmaction2 0.x and 1.x. Nothing in them is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ctrlgenaug.errors import UserError
from ctrlgenaug.restricted_pickle import NUMPY_NAMES, Callback, refuse
from ctrlgenaug.tensor_files import load_torch


class _LogBuffer:
    """Stands in for mmengine's ``HistoryBuffer``, which checkpoints hold beside the weights; nothing of it is kept."""

    def __init__(self, *content: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _statistic(owner: object, name: object) -> None:
    """Stands in for ``getattr``, by which log buffers refer to their own statistics."""
    if owner is not _LogBuffer or name not in ("min", "max", "mean", "current"):
        refuse(f"it refers to {name!r:.40} of {owner!r:.40}, which is not allowed")


# torch's own reader admits these names beside tensors and containers, and gives the file these objects for them.
_OTHER_NAMES: dict[str, Any] = NUMPY_NAMES | {
    "mmengine.logging.history_buffer.HistoryBuffer": _LogBuffer,
    "builtins.getattr": Callback(_statistic),
    "__builtin__.getattr": Callback(_statistic),
}


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights under the recogniser's names, meta) of a checkpoint.

    Raises:
        UserError: missing, damaged, holds more than plain data, no weights, or weights that are NaN or infinite.
    """
    remedy = "Train a classifier with train_classifier.py, or save its weights again"
    content = load_torch(path, remedy, names=_OTHER_NAMES)
    if not isinstance(content, dict):
        raise UserError("is not a checkpoint (no dictionary)", "Save its weights again", path)
    weights = content.get("state_dict", content.get("model", content))
    weights = {
        str(key).removeprefix("module."): value
        for key, value in (dict.items(weights) if isinstance(weights, dict) else ())
        if isinstance(value, Tensor) and not str(key).startswith("data_preprocessor.")
    }
    if not weights:
        raise UserError("holds no weights", "Give a classifier's checkpoint", path)
    if broken := next((name for name, value in weights.items() if not _finite(value)), None):
        raise UserError(f"holds weights that are no numbers ({broken})", "Train the classifier again", path)
    meta = content.get("meta")
    return weights, meta if isinstance(meta, dict) else {}
