"""The sequence diffusion model's training stage."""
