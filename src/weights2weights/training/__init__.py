"""DreamBooth for many subjects at once, each exactly as if it were trained alone.

Every subject gets a LoRA of its own, fine-tuned with the denoising loss on its images plus λ
times the same loss on the base's own images of the class (equation 2 of Dravid et al. 2024,
arXiv:2406.09413, after DreamBooth). K subjects share one pass: their LoRAs are rows of one leaf
(K, d) that `adapter.adapt` spreads over the batch. The loss is a sum over subjects, AdamW works
elementwise, gradients are clipped row by row, and noise, timesteps and the order of the images are
functions of (seed, step): neither K nor the others in a batch matter beyond rounding.

Training can be killed at any moment; the next call resumes, to the same bytes.
"""

from ._config import PRESETS, DreamBoothConfig, default_config
from ._latents import Latents
from ._train import train

__all__ = ["PRESETS", "DreamBoothConfig", "Latents", "default_config", "train"]
