"""A base model, loaded once: prompts to embeddings, images to latents and back, and the loss.

Everything the library fine-tunes, edits or generates with is a small change of one *base*: a latent
diffusion model with a text encoder, a VAE and a denoiser (section 3.1 of Dravid et al. 2024,
arXiv:2406.09413). This package is the only place that touches diffusers' networks. A base is given
as the name of an embedded world ("people"), a folder in diffusers layout, a hub id or a pipeline;
its networks are frozen, in evaluation mode, and read from safetensors files only.

`sd` is the family of Stable Diffusion 1 and 2: what a prompt becomes, what the UNet is fed and
predicts, the loss and the latents. `_diffusion` holds the formulas of the forward process, `_find`
where a base is, `_load` the way from there to its networks, `_hash` what identifies it.
"""

from ._diffusion import add_noise, noise_target
from ._find import find_start_file
from ._load import load_base, quiet
from .sd import Base

__all__ = [
    "Base",
    "add_noise",
    "find_start_file",
    "load_base",
    "noise_target",
    "quiet",
]
