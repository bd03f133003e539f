"""All that chance decides, as functions of (seed, what for, step) and of nothing else.

No stream of random numbers runs on from step to step: each step has a generator of its own. So a
subject meets the same noise whoever is trained beside it, and a run that goes on from a checkpoint
needs no state of a generator.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bases import Base
from ..layout import WeightLayout
from ._recipe import DreamBoothConfig


def initial_weights(layout: WeightLayout, seed: int) -> Float[Tensor, "d"]:
    """Return the weights that training begins with: A uniform in ±1/√in as in PEFT, B zero."""
    generator = _generator(seed, "initial A")
    weights = torch.zeros(layout.num_parameters)
    for module, A, _ in layout.slices():
        bound = module.in_features**-0.5
        weights[A].uniform_(-bound, bound, generator=generator)
    return weights


@dataclass(frozen=True)
class Chance:
    """What chance decides for the images of one kind in one step.

    Attributes:
        timesteps: of the noise.
        noise: that is added, and is to be predicted.
        posterior: with which the VAE's posterior is drawn from.
    """

    timesteps: Int[Tensor, "b"]
    noise: Float[Tensor, "b c h w"]
    posterior: Float[Tensor, "b c h w"]


def draw_chance(base: Base, recipe: DreamBoothConfig, seed: int, kind: str, step: int) -> Chance:
    """Draw what one step needs, as a function of its arguments alone.

    Args:
        base: for the shapes and the number of timesteps.
        recipe: for the number of images and how timesteps are spread.
        seed: of the subject, or of the class.
        kind: "subject" or "class": two streams of one seed.
        step: counted from 0.
    """
    generator = _generator(seed, kind, step)
    b, total = recipe.train_batch_size, len(base.alphas_cumprod)
    uniform = torch.rand(b, generator=generator, dtype=torch.float64)
    if recipe.timesteps == "even":
        golden = (5**0.5 - 1) / 2
        first = torch.rand(1, generator=_generator(seed, kind, "first"), dtype=torch.float64)
        uniform = (first + golden * (step * b + torch.arange(b, dtype=torch.float64))) % 1
    noise = torch.randn(2, b, *base.latent_shape, generator=generator)
    return Chance((uniform * total).long(), noise[0], noise[1])


def image_order(
    recipe: DreamBoothConfig, seed: int, kind: str, images: int
) -> Int[Tensor, "steps b"]:
    """Return which image is seen when: all of them in shuffled rounds, one after the other."""
    seen = recipe.steps * recipe.train_batch_size
    rounds = [
        torch.randperm(images, generator=_generator(seed, kind, "round", i))
        for i in range(-(-seen // images))
    ]
    return torch.cat(rounds)[:seen].view(recipe.steps, recipe.train_batch_size)


def draw_prompts(
    recipe: DreamBoothConfig, seed: int, step: int, captions: Sequence[str]
) -> list[str]:
    """Return what is said about each of a step's images: the prompt and some of the caption.

    Args:
        recipe: for the prompt and the share.
        seed: of the subject.
        step: counted from 0.
        captions: of the subject's images in this step.
    """
    generator = _generator(seed, "caption", step)
    prompts = []
    for caption in captions:
        parts = [part.strip() for part in caption.split(",") if part.strip()]
        said = torch.rand(len(parts), generator=generator) < recipe.caption_share
        kept = [part for part, yes in zip(parts, said.tolist(), strict=True) if yes]
        prompts.append(", ".join([recipe.prompt, *kept]))
    return prompts


def subject_seed(recipe: DreamBoothConfig, name: str) -> int:
    """Return the seed of a subject: the recipe's, or that and the name mixed."""
    return mix(recipe.seed, name) if recipe.seed_per_subject else recipe.seed


def mix(seed: int, *what: str | int) -> int:
    """Return a seed of 63 bits that depends on another and on what it is for."""
    digest = hashlib.blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _generator(seed: int, *what: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(seed, *what))
