"""Clips for the sequence diffusion model."""

from cond2video.data.clips import LabelledClipData

__all__ = ["LabelledClipData"]
