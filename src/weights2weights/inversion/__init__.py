"""Inversion: one photo in, a model of its subject out.

Only the coefficients of a point in the space are sought, with the denoising loss on one photo (or a
few of one subject): some hundred numbers in place of a whole LoRA, and no prior preservation, since
every point of the space is a model of its class. The subject need not be one that the space was
made for; whatever is shown, the nearest model in the space comes out (Dravid et al. 2024,
arXiv:2406.09413, sections 3.4, 4.4 and 4.5).

    photo → latent, once → z → c = spread^p · z → w = c @ components · std + mean → loss → z

One product with the components gives the weights of all layers, another one the gradient. K photos
go through one pass, each with coefficients of its own (`adapter.adapt`); noise depends on the seed
and the step alone, and every step of the optimiser works row by row, so the company of a photo does
not matter beyond rounding.

`_recipe` holds the numbers and presets, `_chance` all randomness, `_photos` what is encoded,
`_coordinates` what z means, `_search` the optimiser, `_invert` the way from photos to points.
"""

from ._invert import Inversion, default_prompt, invert
from ._recipe import FAST, OUT_OF_DISTRIBUTION, PAPER, RECIPES, InversionConfig

__all__ = [
    "FAST",
    "OUT_OF_DISTRIBUTION",
    "PAPER",
    "RECIPES",
    "Inversion",
    "InversionConfig",
    "default_prompt",
    "invert",
]
