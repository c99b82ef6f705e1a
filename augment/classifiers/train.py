"""Trains a classifier stage by stage; the best epoch on held-out real patients is kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augment.classifiers.checkpoint import probabilities
from augment.classifiers.clip_items import ClipReader, Item
from augment.classifiers.clips import make_augmentation
from augment.classifiers.losses import ClipLoss, clip_targets, inverse_frequency
from augment.classifiers.metrics import summarise
from augment.classifiers.mixing import Mixing, make_mixing
from augment.classifiers.model import Classifier
from augment.classifiers.settings import VALIDATIONS, FitSettings
from augment.classifiers.stages import Stage
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.tensor_files import load_torch

STATE = "state.pt"


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
        report: Callable[[dict[str, Any]], object] = print,
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
        real = np.array([not item.synthetic for item in stage.items])
        clip_weights = np.where(real, 1.0, settings.synthetic_weight).astype(np.float32)
        loss, mixing = self._loss(labels), make_mixing(settings.mixing, settings.mixing_alpha)
        change = make_augmentation(settings.augmentation)
        self.model.learn_only_head(stage.head_only)
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, stage.lr, weight_decay=settings.weight_decay)
        if optimizer_state is not None:
            optimizer.load_state_dict(optimizer_state)
        total, in_epoch = lengths(stage, settings)

        while progress.epoch < math.ceil(total / in_epoch) and not self._out_of_patience():
            started, summed_loss, seen = time.perf_counter(), 0.0, 0
            epoch_seed = (settings.seed, progress.stage, progress.epoch)
            # of dropout, stochastic depth and mixing
            torch.manual_seed(int(np.random.SeedSequence(epoch_seed).generate_state(1)[0]))
            self.model.train()
            order = self._order(labels, epoch_seed, in_epoch if stage.steps is not None else None)
            for batch, batch_labels in clips.batches(order, settings.batch_size, change, epoch_seed):
                if progress.step >= total:
                    break
                rate = stage.lr * self._factor(progress.step, total)
                weights = clip_weights[order[seen : seen + len(batch_labels)]]
                value = self._step(optimizer, rate, loss, mixing, batch, batch_labels, weights)
                progress.step += 1
                summed_loss, seen = summed_loss + value * len(batch_labels), seen + len(batch_labels)
            progress.epoch += 1
            row = {"stage": stage.title, "epoch": progress.epoch, "step": progress.step}
            row |= {"loss": summed_loss / max(1, seen), "lr": rate, **self._validate()}
            row["clips_per_second"] = seen / (time.perf_counter() - started)
            progress.rows.append({key: _short(value) for key, value in row.items()})
            self._save(optimizer)
            self.report(progress.rows[-1])

        if self.best_weights is not None:
            self.model.load_weights(self.best_weights)
        self.model.learn_only_head(False)
        self.progress = Progress(stage=progress.stage + 1, rows=progress.rows, best_epoch=progress.best_epoch)
        self.best_weights = None
        self._save(None)

    # --- its parts ---------------------------------------------------------------------------------------------

    def _loss(self, labels: np.ndarray) -> ClipLoss:
        settings = self.settings
        weights = inverse_frequency(labels, self.num_classes) if settings.class_weights else None
        return ClipLoss(weights, settings.focal_gamma, settings.label_smoothing).to(self.device)

    def _order(self, labels: np.ndarray, epoch_seed: tuple[int, ...], steps: int | None = None) -> np.ndarray:
        """Indices of an epoch: each clip once, or for ``steps`` full batches; classes alike if balanced."""
        rng = np.random.default_rng(epoch_seed)
        number = len(labels) if steps is None else steps * self.settings.batch_size
        if self.settings.balanced_sampling:
            counts = np.bincount(labels, minlength=self.num_classes)[labels]
            return rng.choice(len(labels), size=number, p=(1 / counts) / (1 / counts).sum())
        rounds = math.ceil(number / len(labels))
        return np.concatenate([rng.permutation(len(labels)) for _ in range(rounds)])[:number]

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
        mixing: Mixing,
        batch: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
    ) -> float:
        for group in optimizer.param_groups:
            group["lr"] = rate
        clips = torch.from_numpy(batch).to(self.device, non_blocking=True)  # (B, 1, F, S, S)
        label_ids = torch.from_numpy(labels).to(self.device)
        targets = clip_targets(label_ids, self.num_classes, torch.from_numpy(weights).to(self.device))
        clips, targets = mixing(clips, targets)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            heads = self.model.logits_for_training(clips)
        values = [weight * loss(logits, targets) for weight, logits in heads]
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
        found = probabilities(logits)
        loss = float(-np.log(np.maximum(found[np.arange(len(labels)), labels], 1e-12)).mean())
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
        # a length in steps is kept, so that runs with different clips take equally many
        patience = 0 if self.settings.steps is not None else self.settings.patience
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
        state = load_torch(path, "Delete it to start over", device=self.device, mmap=False)
        try:
            self.progress = Progress(**state["progress"])
            if self.progress.best is not None:
                balanced, negative_loss = self.progress.best  # a list when it comes from disk
                self.progress.best = (balanced, negative_loss)
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


def lengths(stage: Stage, settings: FitSettings) -> tuple[int, int]:
    """(gradient steps of a stage, gradient steps of an epoch of it, after which it is validated)."""
    if stage.steps is not None:
        return stage.steps, settings.steps_per_validation or math.ceil(stage.steps / VALIDATIONS)
    in_epoch = math.ceil(len(stage.items) / settings.batch_size)
    total = stage.epochs * in_epoch
    return (total if settings.max_steps is None else min(total, settings.max_steps)), in_epoch


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
