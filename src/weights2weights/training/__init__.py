"""DreamBooth for many subjects at once, each exactly as if it were trained alone.

Every subject gets a LoRA of its own, fine-tuned with the denoising loss on its images plus λ
times the same loss on the base's own images of the class (equation 2 of Dravid et al. 2024,
arXiv:2406.09413, after DreamBooth). What makes it fast is that K subjects share one pass: their
LoRAs are rows of one leaf (K, d) that `adapter.adapt` spreads over the batch. The loss is a sum
over subjects and a row only meets its own samples, AdamW works number by number and gradients are
clipped row by row, so nothing of one subject reaches another. Noise, timesteps and the order of the
images are functions of (seed, step) alone, so neither K nor company matters beyond rounding.

    read images → latents (once, cached) → K rows trained for all steps → one append

Whatever is killed at whatever moment, the next call goes on: what is stored stays stored,
and the group at work goes on from its last checkpoint, to the same bytes.

`_recipe` holds the numbers, `_start` where training begins, `_chance` all randomness, `_latents`
what is encoded and cached, `_group` the training loop, `_train` the way from subjects to a dataset.
"""

from ._chance import Chance, draw_chance, draw_prompts, image_order, initial_weights, subject_seed
from ._group import clip_rows, told_if_too_large
from ._latents import Latents, default_cache
from ._recipe import PAPER, PEOPLE, RECIPES, DreamBoothConfig
from ._start import find_start, start_weights, write_start
from ._train import group_size, train

__all__ = [
    "PAPER",
    "PEOPLE",
    "RECIPES",
    "Chance",
    "DreamBoothConfig",
    "Latents",
    "clip_rows",
    "default_cache",
    "draw_chance",
    "draw_prompts",
    "find_start",
    "group_size",
    "image_order",
    "initial_weights",
    "start_weights",
    "subject_seed",
    "told_if_too_large",
    "train",
    "write_start",
]
