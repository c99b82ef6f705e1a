"""Sequence models of Ctrl-GenAug: what clips add to the image models, and the sequence pipeline."""
