"""Weights out of classifier files: ours, and those of mmaction2 0.x and 1.x. Nothing in them is ever run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlgenaug.errors import UserError


def _statistic(owner: Any, name: str) -> Callable[..., Any]:
    """Stands in for ``getattr``, by which mmengine's log buffers refer to their own statistics."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"it refers to {name!r} of {owner!r}, which is not allowed")
    return vars(HistoryBuffer)[name]


def _mmengine_globals() -> list[Any]:
    """What mmengine puts beside the weights: log buffers of numbers, whose class only holds data."""
    from mmengine.logging.history_buffer import HistoryBuffer
    from numpy._core.multiarray import _reconstruct, scalar

    renamed = [
        (thing, f"numpy.core.multiarray.{thing.__name__}") for thing in (_reconstruct, scalar)
    ]  # NumPy 1
    dtypes = [type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "bool", "O")]
    attributes = [(_statistic, "builtins.getattr"), (_statistic, "__builtin__.getattr")]
    return [HistoryBuffer, _reconstruct, scalar, *renamed, np.ndarray, np.dtype, *dtypes, *attributes]


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights under the recogniser's names, meta) of a checkpoint.

    Raises:
        UserError: missing, damaged, holds more than plain data, or no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("does not exist", "Train a classifier with train_classifier.py first", path)
    try:
        content = _load(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = re.search(r"GLOBAL (\S+)", str(error))  # torch's own advice would be to load it unsafely
        why = f"it refers to {reason[1]}" if reason else "it is damaged, or no checkpoint"
        raise UserError(f"cannot be loaded safely ({why})", "Save its weights again", path) from None
    if not isinstance(content, dict):
        raise UserError("is not a checkpoint (no dictionary)", "Save its weights again", path)
    weights = content.get("state_dict", content.get("model", content))
    weights = {
        str(key).removeprefix("module."): value
        for key, value in (weights.items() if isinstance(weights, dict) else ())
        if isinstance(value, Tensor) and not str(key).startswith("data_preprocessor.")
    }
    if not weights:
        raise UserError("holds no weights", "Give a classifier's checkpoint", path)
    meta = content.get("meta")
    return weights, meta if isinstance(meta, dict) else {}


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        with torch.serialization.safe_globals(_mmengine_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
