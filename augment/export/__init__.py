"""Synthetic clips in the formats of other tools, with a card that says what they are (export_clips.py)."""
