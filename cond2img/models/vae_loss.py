"""The VAE's training loss: absolute and perceptual difference under a learned scale, plus a little KL."""

from __future__ import annotations

import logging
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrlgenaug.errors import UserError
from ctrlgenaug.tensor_files import read_tensors

logger = logging.getLogger(__name__)

KL_WEIGHT = 1e-6

VGG_TAPS = (3, 8, 15, 22, 29)  # the ReLUs relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 of VGG16's features
VGG_FILE = "vgg16-397923af.pth"  # torchvision's name for VGG16_Weights.IMAGENET1K_V1


class LPIPS(nn.Module):
    """Learned perceptual difference (Zhang et al. 2018, VGG16, linear layers v0.1). Frozen.

    The linear layers come with torchmetrics; VGG16's weights are torchvision's and have to be on the disk.

    Args:
        vgg_weights: torchvision's ``vgg16-397923af.pth``, or a VGG16 state dict under another name.

    Raises:
        UserError: the file is missing, damaged, or not VGG16's.
    """

    def __init__(self, vgg_weights: str | Path) -> None:
        super().__init__()
        remedy = f"Get torchvision's {VGG_FILE}, or set lpips_weights to null to train without LPIPS"
        weights = read_tensors(vgg_weights, remedy)
        from torchvision.models.vgg import (
            cfgs,
            make_layers,
        )  # slow to import, and only the VAE's training needs it

        network = make_layers(cfgs["D"], batch_norm=False)
        for layer in network:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # a tapped map is needed after the next slice has run
        prefix = "features."  # the classifier is not needed
        features = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        try:
            network.load_state_dict(features)
        except RuntimeError:
            raise UserError("is not torchvision's VGG16", remedy, vgg_weights) from None
        bounds = zip((-1, *VGG_TAPS), VGG_TAPS, strict=False)
        self.slices = nn.ModuleList([network[a + 1 : b + 1] for a, b in bounds])

        # where it lies, without the second that its import takes
        folder = Path(str(distribution("torchmetrics").locate_file("torchmetrics")))
        linear = read_tensors(
            folder / "functional/image/lpips_models/vgg.pth", "Install the project's torchmetrics"
        )
        for number in range(len(VGG_TAPS)):
            self.register_buffer(f"linear{number}", linear[f"lin{number}.model.1.weight"])  # (1, C, 1, 1)
        # ImageNet's mean and deviation for pixels in [-1, 1]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Pictures (B, 1 or 3, H, W) in [-1, 1] -> (B, 1, 1, 1)."""
        a, b = ((x - self.shift) / self.scale for x in (first, second))  # grey becomes three equal channels
        total = first.new_zeros(())
        for number, layers in enumerate(self.slices):
            a, b = layers(a), layers(b)
            # unit length along the channels; where all are zero, normalize has a gradient and x / |x| has none
            difference = F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)
            weighted = (difference.square() * getattr(self, f"linear{number}")).sum(1, keepdim=True)
            total = total + weighted.mean((2, 3), keepdim=True)
        return total


class VAELoss(nn.Module):
    """Loss of VAE training (method, section 5), with the learned scalar ``logvar``, which starts at 0.

    Args:
        lpips_weights: VGG16's weights, see `LPIPS`; None: train without the perceptual term.
        kl_weight: of the KL divergence.
    """

    def __init__(self, lpips_weights: str | Path | None, kl_weight: float = KL_WEIGHT) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.logvar = nn.Parameter(torch.zeros(()))
        self.lpips = None if lpips_weights is None else LPIPS(lpips_weights)
        if self.lpips is None:
            logger.warning(
                "THE VAE IS TRAINED WITHOUT LPIPS: reconstructions will be blurrier than the method's. "
                "Set lpips_weights to torchvision's %s to train as the method does.",
                VGG_FILE,
            )

    def forward(
        self, pixels: Tensor, reconstruction: Tensor, posterior: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch.

        Args:
            pixels, reconstruction: (B, 1, H, W) in [-1, 1].
            posterior: diffusers' DiagonalGaussianDistribution of the latents.

        Returns:
            The loss, sums over pixels divided by B; and for the log, without gradients, ``rec`` (mean over pixels of
            absolute difference plus LPIPS), ``kl`` (divided by B), ``l1`` and ``lpips`` (means).
        """
        batch = pixels.shape[0]
        absolute = (pixels - reconstruction).abs()
        perceptual = absolute.new_zeros(batch, 1, 1, 1)
        if self.lpips is not None:
            perceptual = self.lpips(pixels, reconstruction)
        difference = absolute + perceptual  # an image's LPIPS counts for each of its pixels
        likelihood = (difference / self.logvar.exp() + self.logvar).sum() / batch
        kl = posterior.kl().sum() / batch
        parts = {"rec": difference.mean(), "kl": kl, "l1": absolute.mean(), "lpips": perceptual.mean()}
        return likelihood + self.kl_weight * kl, {name: value.detach() for name, value in parts.items()}
