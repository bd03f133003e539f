"""What is random in DreamBooth: noise, timesteps, the order of the images, parts of captions."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from .._noise import Noise, draw_noise, fractions, generator, shuffled_rounds
from ..bases import Base
from ._config import DreamBoothConfig


def step_noise(base: Base, config: DreamBoothConfig, kind: str, step: int) -> Noise:
    """Draw the noise of one step, the same for every subject.

    Args:
        base: for the shapes and the number of timesteps.
        config: for the seed, the batch size and how timesteps are spread.
        kind: "subject" or "class": two streams of one seed.
        step: counted from 0.
    """
    b = config.train_batch_size
    random = generator(config.seed, kind, step)
    turns = step * b + torch.arange(b, dtype=torch.float64)
    evenly = (config.seed, kind, "first") if config.timesteps == "even" else None
    positions = fractions(random, turns, evenly)
    return draw_noise(random, base.latent_shape, positions, len(base.alphas_cumprod))


def image_order(config: DreamBoothConfig, kind: str, images: int) -> Int[Tensor, "steps b"]:
    """Return which images each step uses: all of them in shuffled rounds, one after the other."""
    length = config.steps * config.train_batch_size
    order = shuffled_rounds((config.seed, kind), images, length)
    return order.view(config.steps, config.train_batch_size)


def draw_prompts(config: DreamBoothConfig, step: int, captions: Sequence[str]) -> list[str]:
    """Return the prompt of each of a step's images: the instance prompt and some of the caption.

    Args:
        config: for the prompt, the caption dropout and the seed.
        step: counted from 0.
        captions: of one subject's images in this step.
    """
    random = generator(config.seed, "caption", step)
    prompts = []
    for caption in captions:
        parts = [part.strip() for part in caption.split(",") if part.strip()]
        kept = torch.rand(len(parts), generator=random) < 1 - config.caption_dropout
        chosen = [part for part, yes in zip(parts, kept.tolist(), strict=True) if yes]
        prompts.append(", ".join([config.instance_prompt, *chosen]))
    return prompts
