"""The loss of soft targets: cross-entropy or focal, weighted by class and by clip."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def clip_targets(labels: Tensor, num_classes: int, weights: Tensor) -> Tensor:
    """One-hot rows times the clips' weights: labels (B,) int64, weights (B,) float -> (B, num_classes) float.

    A row's sum is its clip's weight, so that mixing rows (mixup and its kin) mixes classes and weights alike.
    """
    return nn.functional.one_hot(labels, num_classes).to(weights.dtype) * weights[:, None]


def inverse_frequency(labels: np.ndarray, num_classes: int) -> Tensor:
    """(num_classes,) float32: a class's weight is the inverse of its frequency, 1 if all are alike; absent ones 0."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.divide(len(labels), counts * (counts > 0).sum(), where=counts > 0, out=np.zeros(len(counts)))
    return torch.tensor(weights, dtype=torch.float32)


class ClipLoss(nn.Module):
    """The mean loss of a batch, each clip counted by its own weight times its class's.

    With gamma 0 it is `torch.nn.CrossEntropyLoss` (Szegedy et al. 2016 for smoothing); with gamma > 0 each class's
    term is multiplied by (1 - p)^gamma, the focal loss of Lin et al. 2017 (equation 4) for several classes.

    Args:
        class_weights: (C,), or None for 1 each.
        gamma: focusing parameter; the paper's choice is 2.
        smoothing: part of a target that is spread evenly over all classes.
    """

    def __init__(
        self, class_weights: Tensor | None = None, gamma: float = 0.0, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)
        self.gamma, self.smoothing = gamma, smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits (B, C) and targets (B, C) of `clip_targets`, mixed or not -> a scalar."""
        log_p = nn.functional.log_softmax(logits.float(), dim=1)
        weights = torch.ones_like(log_p[0]) if self.class_weights is None else self.class_weights
        wanted = (1 - self.smoothing) * targets
        wanted = wanted + self.smoothing / targets.shape[1] * targets.sum(1, keepdim=True)
        terms = -log_p * wanted * weights
        if self.gamma:
            terms = terms * (1 - log_p.exp()).clamp(min=0) ** self.gamma
        return terms.sum() / (targets * weights).sum()
