"""The miniature base model's card: what it is, how it was made, and how well it follows its conditions."""

from __future__ import annotations

from pathlib import Path

from augment.demo.base.recipe import Recipe
from ctrlgenaug.files import write_text

LEVELS = (500, 700, 850, 950)
TEXT = """# The miniature base model

Takes Stable Diffusion's part in the demo, the experiments and those tests that need a model that works: a VAE, an image
UNet, and the parts that the sequence stage adds, {megabytes:.1f} MB in float16. **It was trained on drawings
(`ctrlgenaug.phantom`) alone, and nothing of it is medical.** Licence: MIT, as the rest of the project.

- Use: `pretrained_model_path` of the image stage is this folder, and `sequence_parts` of the sequence stage is
  `sequence_parts/` in it. Classes are unknown to it; their embedding starts fresh (`fresh_init: identity` leaves the
  model as it is). Image priors must be those of `augment/demo/encoder.py`, the stand-in for MedSAM.
- Data: {patients:,} unlabelled phantom patients of all four kinds (chest, knee, heart, thyroid), 8 frames each, drawn
  from seed {seed}. The thyroids' texts are those of the data set; the other texts are empty.
- VAE: the encoder's weights are chosen, four numbers for each block of 8 x 8 pixels; the decoder was trained,
  {decoder_steps:,} steps of 2 frames, absolute difference, from latents with noise of up to half of their deviation
  (`latent_noise: 0.5`). Error on unseen patients: {reconstruction}, with noise {noisy_reconstruction}.
- Image UNet: {image_steps:,} steps of {batch_size} frames, velocity, half of the timesteps uniform and half towards
  high noise, learning rate 1e-3 with cosine decay, priors kept in 90 %.
- Sequence parts: {sequence_steps:,} steps of 2 clips of 8 frames of {clips:,} patients, learning rate 5e-4, the frames'
  places being known (`frame_positions`). The view of three clips of four drifts by up to {movement:g} pixels a
  frame, and the image prior goes along (`prior_follows_motion`); fields of `--adjacent_reference --fill_blocks`.
- Again: `python -m augment.demo.base --scratch FOLDER --out FOLDER`.

## How well it follows

Mean square error of the clean latents (deviation 1) recovered from noise at timestep t, on patients that it was never
trained on.

Image UNet, one frame of each of {unseen} patients:

{image_table}

Sequence UNet, 8 clips, the view of most of which drifts, the prior being that of the first frame:

{sequence_table}
"""


def _last(path: Path) -> str:
    """The last figure of a curve's text file, ``step N: value``."""
    return path.read_text(encoding="utf-8").split()[-1] if path.is_file() else "-"


def _table(run: Path, kinds: dict[str, str]) -> str:
    rows = [f"| t | {' | '.join(kinds.values())} |", "|---" * (len(kinds) + 1) + "|"]
    for level in LEVELS:
        values = (_last(run / f"test_{kind}_{level}.txt") for kind in kinds)
        cells = (value if value == "-" else f"{float(value):.3f}" for value in values)
        rows.append(f"| {level} | {' | '.join(cells)} |")
    return "\n".join(rows)


def write(folder: Path, recipe: Recipe, runs: Path) -> None:
    """Writes ``folder/README.md`` for the model in ``folder``, with the figures that the ``runs`` measured."""
    kinds = {"own": "own prior", "other": "another's", "none": "none"}
    motion = {"other_motion": "another's motion", "no_motion": "no motion"}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    text = TEXT.format(
        **vars(recipe),
        megabytes=size / 1e6,
        reconstruction=_last(runs / "vae" / "test_l1.txt"),
        noisy_reconstruction=_last(runs / "vae" / "test_l1_noisy.txt"),
        image_table=_table(runs / "image", kinds),
        sequence_table=_table(runs / "sequence", {**kinds, **motion}),
    )
    write_text(folder / "README.md", text)
