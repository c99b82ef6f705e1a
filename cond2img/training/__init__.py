"""The VAE's and the image diffusion model's training stages."""
