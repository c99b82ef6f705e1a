"""The miniature base model: what takes Stable Diffusion's part in the demo, and how it was trained."""
