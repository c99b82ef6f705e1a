"""Frames for the VAE and the image diffusion model."""

from cond2img.data.frames import FrameData, LabelledFrameData

__all__ = ["FrameData", "LabelledFrameData"]
