"""A base model, loaded once: prompts to embeddings, images to latents and back, and the loss.

Everything the library fine-tunes, edits or draws is a small change of one *base*: a latent
diffusion model with a text encoder, a VAE and a denoising UNet (section 3.1 of Dravid et al. 2024,
arXiv:2406.09413). This room is the one seam between diffusers' networks and the rest. A base may
be the word of an embedded world ("people"), a folder in diffusers layout or a hub id; the networks
come frozen, in evaluation mode, from safetensors files only.

`_base` is the base itself, `_find` where one is, `_load` the way from there to the networks in
place.
"""

from ._base import Base, add_noise, noise_target
from ._find import find_start_file
from ._load import base_from_pipeline, load_base

__all__ = [
    "Base",
    "add_noise",
    "base_from_pipeline",
    "find_start_file",
    "load_base",
    "noise_target",
]
