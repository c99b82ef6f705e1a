"""Frames for the VAE and the image diffusion model."""

from cond2img.data.frames import DiffusionBatch, FrameBatch, FrameData, LabelledFrameData

__all__ = ["DiffusionBatch", "FrameBatch", "FrameData", "LabelledFrameData"]
