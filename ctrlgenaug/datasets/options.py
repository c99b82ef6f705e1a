"""The flags that tell every script which data set it works on."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctrlgenaug.datasets.registry import data_names, get, of_folder
from ctrlgenaug.datasets.spec import DatasetSpec

DEFAULT = "MosMed"


def add_data_options(parser: argparse._ActionsContainer, default: str = f"default: {DEFAULT}") -> None:
    """Adds ``--data_name`` and ``--data``; ``default`` says what happens without either."""
    parser.add_argument(
        "--data_name",
        metavar="NAME",
        help=f"the data set: {', '.join(data_names())}, or a data file ({default})",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="data file (.yaml) of a data set of your own; see docs/your_own_data.md",
    )


def chosen(
    options: argparse.Namespace, default: str | None = DEFAULT, folder: str | Path | None = None
) -> DatasetSpec:
    """The data set that the flags of `add_data_options` name, else that of ``folder``, else ``default``.

    Raises:
        UserError: unknown, or named by nothing.
    """
    named = options.data or options.data_name
    if named:
        return get(named)
    return get(default) if folder is None and default else of_folder(folder or ".")
