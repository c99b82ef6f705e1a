"""The VAE with its loss, and the multimodal UNet."""

from cond2img.models.unet import UNet2DMultiConditionModel
from cond2img.models.vae import AutoencoderKL, load_vae

__all__ = ["AutoencoderKL", "UNet2DMultiConditionModel", "load_vae"]
