"""The training of the embedded world, from a renderer to a Stable Diffusion folder."""
