"""Image models of Ctrl-GenAug: the VAE, the 2-D multimodal latent diffusion model and its pipeline."""
