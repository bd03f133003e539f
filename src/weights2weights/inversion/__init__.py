"""Inversion: one image in, a model of its subject out.

Only the coefficients of a point in the space are optimised, with the denoising loss on one image
(or a few of one subject): some hundred parameters instead of a whole LoRA, and no prior
preservation, since every point of the space is a model of its class. The subject need not be one
the space was fitted to; the result is the nearest model in the space (Dravid et al. 2024,
arXiv:2406.09413, sections 3.4, 4.4 and 4.5).

    image → latent, once → z → c = std^p · z → w = c @ components · std + mean → loss → z

One product with the components gives the weights of all layers, another one the gradient. K images
share one pass, each with coefficients of its own (`adapter.adapt`); noise depends on the seed and
the step alone, and the optimiser works row by row, so the other images in a batch do not matter
beyond rounding.
"""

from ._compare import before_and_after
from ._config import PRESETS, InversionConfig
from ._invert import Inversion, invert

__all__ = ["PRESETS", "Inversion", "InversionConfig", "before_and_after", "invert"]
