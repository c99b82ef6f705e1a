"""What sequences add to the image models."""

from cond2video.models.unet import UNet3DMultiConditionModel, mark_finetuned

__all__ = ["UNet3DMultiConditionModel", "mark_finetuned"]
