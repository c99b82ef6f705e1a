"""How much of everything the miniature base model is trained with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    Attributes:
        seed: of patients, weights and noise.
        patients: drawn for the VAE's and the image stage's training, eight frames each.
        clips: of how many of them the sequence stage sees a clip.
        movement: pixels that the view of these clips drifts from one frame to the next, at most on average.
        published_fields: their motion fields as the published code extracts them, see `store.Motion`.
        prior_follows_motion: of the sequence UNet.
        unseen: patients that steering is measured on.
        decoder_steps: optimizer steps of 2 frames.
        image_steps: of 16 frames.
        sequence_steps: of 2 clips.
        batch_size: frames of a step of the image stage.
    """

    seed: int = 1
    patients: int = 2400
    clips: int = 1200
    movement: float = 6
    published_fields: bool = False
    prior_follows_motion: bool = True
    unseen: int = 48
    decoder_steps: int = 2900
    image_steps: int = 1800
    sequence_steps: int = 2600
    batch_size: int = 16


SHORT = Recipe(patients=96, clips=8, unseen=16, decoder_steps=20, image_steps=500, sequence_steps=4)
"""Minutes: enough to see steering appear, not enough for pictures."""
