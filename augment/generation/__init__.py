"""Synthesis around the model: which samples, by whom, where they are written, what is recorded."""
