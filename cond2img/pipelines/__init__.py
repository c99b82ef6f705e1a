"""Sampling: the image pipeline, and what the sequence pipeline shares with it."""

from cond2img.pipelines.image import GenImagePipeline
from cond2img.pipelines.pictures import PictureOutput
from cond2img.pipelines.solvers import make_scheduler

__all__ = ["GenImagePipeline", "PictureOutput", "make_scheduler"]
