"""The paradigms: which clips a classifier learns from, in which order, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from augment.classifiers.clip_items import Item
from augment.classifiers.settings import Paradigm
from ctrlgenaug.errors import UserError


@dataclass(frozen=True)
class Stage:
    """One pass of fitting.

    Attributes:
        title: for the records.
        items: clips to learn from.
        epochs: how long, if ``steps`` is None.
        lr: largest learning rate.
        steps: how long, in gradient steps.
        head_only: only the classifying layer learns, all before it stays as it is.
    """

    title: str
    items: Sequence[Item]
    epochs: int
    lr: float
    steps: int | None = None
    head_only: bool = False


def plan_stages(
    paradigm: Paradigm,
    real: Sequence[Item],
    synthetic: Sequence[Item],
    *,
    epochs: int,
    pretrain_epochs: int,
    lr: float,
    finetune_lr: float,
    steps: int | None = None,
) -> list[Stage]:
    """The stages of a paradigm.

    ``baseline``: real clips. ``joint``: real and synthetic mixed. ``pretrain_finetune``: synthetic, then real at
    ``finetune_lr``. ``linear_probe``: synthetic, then only the classifying layer on real. ``synthetic_only``: synthetic
    alone, for train on synthetic, test on real. With ``steps`` two stages get half of them each.

    Raises:
        UserError: synthetic clips are needed and not given, or the reverse.
    """
    if paradigm == "baseline":
        if synthetic:
            raise UserError(
                "--paradigm baseline uses real clips alone, but --synthetic_dir is given",
                "Use --paradigm joint or pretrain_finetune, or leave --synthetic_dir out",
            )
        return [Stage("real", real, epochs, lr, steps)]
    if not synthetic:
        raise UserError(f"--paradigm {paradigm} needs synthetic clips", "Give --synthetic_dir")
    if paradigm == "joint":
        return [Stage("joint", [*real, *synthetic], epochs, lr, steps)]
    if paradigm == "synthetic_only":
        return [Stage("synthetic", synthetic, epochs, lr, steps)]
    if steps == 1:
        raise UserError(f"--steps 1 is too few for --paradigm {paradigm}", "Give at least 2")
    first = None if steps is None else steps // 2
    rest = None if steps is None or first is None else steps - first
    pretraining = Stage("pretrain", synthetic, pretrain_epochs, lr, first)
    if paradigm == "linear_probe":
        return [pretraining, Stage("probe", real, epochs, lr, rest, head_only=True)]
    return [pretraining, Stage("finetune", real, epochs, finetune_lr, rest)]
