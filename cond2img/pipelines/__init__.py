"""Sampling: the image pipeline, and what the sequence pipeline shares with it."""

from cond2img.pipelines.denoising import PictureOutput, make_scheduler
from cond2img.pipelines.image import GenImagePipeline

__all__ = ["GenImagePipeline", "PictureOutput", "make_scheduler"]
