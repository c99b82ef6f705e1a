"""Trains a classifier: baseline, joint, or pretrain and finetune; the best epoch on held-out train patients is kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from augment.classifiers.checkpoint import probabilities
from augment.classifiers.clip_items import ClipReader, Item
from augment.classifiers.clips import Augmentation
from augment.classifiers.metrics import summarise
from augment.classifiers.model import Classifier
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path

Paradigm = Literal["baseline", "joint", "pretrain_finetune"]
PARADIGMS: tuple[Paradigm, ...] = ("baseline", "joint", "pretrain_finetune")
STATE = "state.pt"


@dataclass(frozen=True)
class FitSettings:
    """How a classifier is fitted.

    Attributes:
        batch_size: clips of a step.
        weight_decay: AdamW's.
        warmup: part of a stage's steps over which the learning rate rises from 0; then it falls as a cosine.
        clip_norm: largest norm of the gradient.
        patience: epochs without a better validation before a stage stops; 0 never stops early.
        balanced_sampling: draw each class equally often.
        class_weights: weight the loss by the inverse of the class's frequency.
        label_smoothing: of the cross-entropy.
        augment: see `augment.classifiers.clips.Augmentation`.
        precision: ``fp32`` or ``bf16`` (autocast).
        seed: of weights, order, dropout and augmentation.
        max_steps: stops a stage after so many steps; None for no limit.
    """

    batch_size: int = 8
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip_norm: float = 1.0
    patience: int = 15
    balanced_sampling: bool = False
    class_weights: bool = False
    label_smoothing: float = 0.0
    augment: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 3407
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("batch_size", self.batch_size, 1),
            ("max_steps", self.max_steps, 1),
            ("patience", self.patience, 0),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"--{name} {value} is less than {least}", "Give a larger one")


@dataclass(frozen=True)
class Stage:
    """One pass of fitting: ``title`` for the records, ``items`` to learn from, how long, and how fast."""

    title: str
    items: Sequence[Item]
    epochs: int
    lr: float


@dataclass
class Progress:
    """Where a run stands; what `STATE` holds besides weights.

    Attributes:
        stage: index of the stage at work.
        epoch: epochs of it that are done.
        step: optimizer steps of it that are done.
        best: (balanced accuracy, -loss) of the best validation of it so far, or None.
        best_epoch: its epoch, from 1.
        rows: the records so far, one a finished epoch.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    best: tuple[float, float] | None = None
    best_epoch: int = 0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def plan_stages(
    paradigm: Paradigm,
    real: Sequence[Item],
    synthetic: Sequence[Item],
    *,
    epochs: int,
    pretrain_epochs: int,
    lr: float,
    finetune_lr: float,
) -> list[Stage]:
    """The stages of a paradigm; a `UserError` where it needs synthetic clips that are not given (or the reverse)."""
    if paradigm == "baseline":
        if synthetic:
            raise UserError(
                "--paradigm baseline uses real clips alone, but --synthetic_dir is given",
                "Use --paradigm joint or pretrain_finetune, or leave --synthetic_dir out",
            )
        return [Stage("real", real, epochs, lr)]
    if not synthetic:
        raise UserError(f"--paradigm {paradigm} needs synthetic clips", "Give --synthetic_dir")
    if paradigm == "joint":
        return [Stage("joint", [*real, *synthetic], epochs, lr)]
    return [
        Stage("pretrain", synthetic, pretrain_epochs, lr),
        Stage("finetune", real, epochs, finetune_lr),
    ]


class Fit:
    """One classifier's training, restartable after any epoch.

    Args:
        model: the classifier, on the device it trains on.
        stages: in order; the best weights of one start the next.
        validation: real clips that choose the best epoch; empty keeps the last epoch.
        num_classes: how many.
        settings: see `FitSettings`.
        folder: the run folder, where `STATE` is kept after each epoch.
        reader: keyword arguments of `ClipReader`.
        report: called with each finished epoch's record.
    """

    def __init__(
        self,
        model: Classifier,
        stages: Sequence[Stage],
        validation: Sequence[Item],
        num_classes: int,
        settings: FitSettings,
        folder: Path,
        reader: dict[str, Any],
        report: Any = print,
    ) -> None:
        self.model, self.stages, self.settings, self.folder = model, list(stages), settings, folder
        self.num_classes, self.reader, self.report = num_classes, reader, report
        self.device = next(model.parameters()).device
        self.validation = ClipReader(validation, **reader) if validation else None
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] | None = None

    # --- the run, from top to bottom ---------------------------------------------------------------------------

    def run(self) -> Progress:
        """Fits all stages, from where `STATE` left off; the model ends with the best weights of the last stage."""
        optimizer_state = self._restore()
        while self.progress.stage < len(self.stages):
            self._run_stage(self.stages[self.progress.stage], optimizer_state)
            optimizer_state = None
        return self.progress

    def _run_stage(self, stage: Stage, optimizer_state: dict[str, Any] | None) -> None:
        settings, progress = self.settings, self.progress
        clips = ClipReader(stage.items, **self.reader)
        labels = np.array([item.label for item in stage.items])
        if len(labels) < 2:
            raise UserError("there are fewer than two clips to learn from", "Extract more cases")
        loss = self._loss(labels)
        optimizer = torch.optim.AdamW(self.model.parameters(), stage.lr, weight_decay=settings.weight_decay)
        if optimizer_state is not None:
            optimizer.load_state_dict(optimizer_state)
        steps_an_epoch = math.ceil(len(labels) / settings.batch_size)
        total = stage.epochs * steps_an_epoch
        if settings.max_steps is not None:
            total = min(total, settings.max_steps)

        while progress.epoch < math.ceil(total / steps_an_epoch) and not self._out_of_patience():
            started, lossy, seen = time.perf_counter(), 0.0, 0
            place = (settings.seed, progress.stage, progress.epoch)
            torch.manual_seed(
                int(np.random.SeedSequence(place).generate_state(1)[0])
            )  # dropout, stochastic depth
            self.model.train()
            augmentation = Augmentation() if settings.augment else Augmentation(0, 0, 0, 0, 0)
            order = self._order(labels, place)
            for batch, targets in clips.batches(order, settings.batch_size, augmentation, place):
                if progress.step >= total:
                    break
                rate = stage.lr * self._factor(progress.step, total)
                value = self._step(optimizer, rate, loss, batch, targets)
                progress.step += 1
                lossy, seen = lossy + value * len(targets), seen + len(targets)
            progress.epoch += 1
            row = {"stage": stage.title, "epoch": progress.epoch, "step": progress.step}
            row |= {"loss": lossy / max(1, seen), "lr": rate, **self._validate()}
            row["clips_per_second"] = seen / (time.perf_counter() - started)
            progress.rows.append({key: _short(value) for key, value in row.items()})
            self._save(optimizer)
            self.report(progress.rows[-1])

        if self.best_weights is not None:
            self.model.load_weights(self.best_weights)
        self.progress = Progress(stage=progress.stage + 1, rows=progress.rows, best_epoch=progress.best_epoch)
        self.best_weights = None
        self._save(None)

    # --- its parts ---------------------------------------------------------------------------------------------

    def _loss(self, labels: np.ndarray) -> nn.CrossEntropyLoss:
        weight = None
        if self.settings.class_weights:
            counts = np.bincount(labels, minlength=self.num_classes)
            inverse = np.divide(
                len(labels), counts * (counts > 0).sum(), where=counts > 0, out=np.zeros(len(counts))
            )
            weight = torch.tensor(inverse, dtype=torch.float32, device=self.device)
        return nn.CrossEntropyLoss(weight, label_smoothing=self.settings.label_smoothing)

    def _order(self, labels: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
        draw = np.random.default_rng(place)
        if not self.settings.balanced_sampling:
            return draw.permutation(len(labels))
        counts = np.bincount(labels, minlength=self.num_classes)[labels]
        return draw.choice(len(labels), size=len(labels), p=(1 / counts) / (1 / counts).sum())

    def _factor(self, step: int, total: int) -> float:
        warmup = max(1, round(self.settings.warmup * total))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    def _step(
        self,
        optimizer: torch.optim.Optimizer,
        rate: float,
        loss: nn.Module,
        batch: np.ndarray,
        targets: np.ndarray,
    ) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate
        clips = torch.from_numpy(batch).to(self.device, non_blocking=True)  # (B, 1, F, S, S)
        wanted = torch.from_numpy(targets).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            heads = self.model.logits_for_training(clips)
        values = [weight * loss(logits.float(), wanted) for weight, logits in heads]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(values).sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        optimizer.step()
        value = float(values[0].detach())
        if not math.isfinite(value):
            raise UserError("the loss is no longer a number", "Lower --lr, or use --precision fp32")
        return value

    def _validate(self) -> dict[str, float]:
        """Loss and figures on the held-out train patients; remembers the weights if they are the best so far."""
        if self.validation is None:
            return {}
        labels, logits = predict(self.model, self.validation, self.device, self.settings.batch_size)
        chances = probabilities(logits)
        loss = float(-np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-12)).mean())
        confusion = np.zeros((self.num_classes, self.num_classes))
        np.add.at(confusion, (labels, logits.argmax(1)), 1)
        summary = summarise(confusion)
        balanced = float(summary["balanced_accuracy"])
        if self.progress.best is None or (balanced, -loss) > self.progress.best:
            self.progress.best, self.progress.best_epoch = (balanced, -loss), self.progress.epoch
            self.best_weights = {key: value.detach().clone() for key, value in self.model.weights().items()}
        return {
            "validation_loss": loss,
            "validation_accuracy": float(summary["accuracy"]),
            "validation_balanced_accuracy": balanced,
        }

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return bool(
            patience
            and self.validation is not None
            and self.progress.epoch - self.progress.best_epoch >= patience
        )

    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        state = {
            "progress": dataclasses.asdict(self.progress),
            "weights": self.model.weights(),
            "best_weights": self.best_weights,
            "optimizer": None if optimizer is None else optimizer.state_dict(),
        }
        with atomic_path(self.folder / STATE) as temporary, temporary.open("wb") as handle:
            torch.save(state, handle)

    def _restore(self) -> dict[str, Any] | None:
        path = self.folder / STATE
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.progress = Progress(**state["progress"])
            if self.progress.best is not None:
                self.progress.best = tuple(self.progress.best)
            self.model.load_weights(state["weights"])
        except UserError:
            raise
        except Exception as error:  # a damaged file can raise nearly anything
            raise UserError(
                f"cannot be continued from ({type(error).__name__})", "Delete it to start over", path
            ) from None
        self.best_weights = state["best_weights"]
        return state["optimizer"]


@torch.inference_mode()
def predict(
    model: Classifier, reader: ClipReader, device: torch.device | str, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(labels (N,), logits (N, C) float32) of all clips of ``reader``; the model is put in eval mode."""
    model.eval()
    labels, logits = [], []
    for clips, targets in reader.batches(range(len(reader.items)), batch_size):
        labels.append(targets)
        logits.append(model(torch.from_numpy(clips).to(device)).float().cpu().numpy())
    return np.concatenate(labels), np.concatenate(logits)


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
