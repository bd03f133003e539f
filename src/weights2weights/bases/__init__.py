"""A base model, loaded once: prompts to embeddings, images to latents and back, and the loss.

Everything the library fine-tunes, edits or generates with is a small change of one *base*: a latent
diffusion model with a text encoder, a VAE and a denoiser (section 3.1 of Dravid et al. 2024,
arXiv:2406.09413). This package is the only place that touches diffusers' networks. A base is given
as the name of an embedded world ("people"), a folder in diffusers layout, a hub id or a pipeline;
its networks are frozen, in evaluation mode, and read from safetensors files only.

One family per file: `sd` (Stable Diffusion 1 and 2), `sdxl`, `sd3`, `flux` say what a prompt
becomes and what the denoiser is fed. `_family` is what they have in common, `_diffusion` how images
become noisy and the way back, `_base` what everybody uses, `_find` and `_load` lead there from a
name, `_hash` is what identifies a base.
"""

from ._base import Base
from ._conditions import Conditions
from ._diffusion import add_noise, noise_target
from ._find import find_start_file
from ._load import load_base, quiet

__all__ = [
    "Base",
    "Conditions",
    "add_noise",
    "find_start_file",
    "load_base",
    "noise_target",
    "quiet",
]
