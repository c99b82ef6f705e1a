"""Sampling of sequences."""

from cond2video.pipelines.sequence import GenVideoPipeline, SequenceOutput

__all__ = ["GenVideoPipeline", "SequenceOutput"]
