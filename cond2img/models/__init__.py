"""The VAE with its loss, and the multimodal UNet."""

from cond2img.models.unet import UNet2DMultiConditionModel
from cond2img.models.vae import AutoencoderKL, load_vae
from cond2img.models.vae_loss import VAELoss

__all__ = ["AutoencoderKL", "UNet2DMultiConditionModel", "VAELoss", "load_vae"]
