"""Text-based Concept Sliders: edits learned from prompts alone, a baseline for directions.

A slider (Gandikota et al. 2023, arXiv:2311.12092) is a LoRA that makes the denoiser answer a
neutral prompt as it would answer an edited one. It needs no images: the base itself provides the
targets. Merged with a subject's LoRA (`merging.merge_weights`, with the strength as weight) it
edits the subject.

Several sliders train at once, as K stacked LoRAs (`adapter.adapt`) that share the same noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from weights2weights._noise import (
    draw_noise,
    fractions,
    generator,
    initial_weights,
    shuffled_rounds,
)
from weights2weights.adapter import adapt
from weights2weights.bases import Base
from weights2weights.errors import InputError
from weights2weights.generation import generate
from weights2weights.layout import WeightLayout


@dataclass(frozen=True)
class Concept:
    """What a slider should change, in prompts.

    Attributes:
        positive: prompt with the attribute ("a photo of a bald person").
        negative: prompt with its opposite ("a photo of a person with hair").
        target: prompt that the slider acts on ("a photo of a person").
    """

    positive: str
    negative: str
    target: str = "a photo of a person"


@dataclass(frozen=True)
class SliderConfig:
    """Training configuration of sliders.

    Attributes:
        steps: optimiser steps.
        samples_per_step: noisy images per step and slider.
        learning_rate: peak learning rate; it decays linearly to a tenth.
        warmup: steps of linear warm-up.
        guidance: η, how far the target is moved along the wanted difference.
        images: images that the base generates from the target prompt, once; noise is added to them.
        betas: coefficients of Adam.
        clip: largest gradient norm of a slider; None does not clip.
    """

    steps: int = 1000
    samples_per_step: int = 4
    learning_rate: float = 2e-4
    warmup: int = 10
    guidance: float = 3.0
    images: int = 64
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = 1.0

    def __post_init__(self):
        for name in ("steps", "samples_per_step", "images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 1")
        if not self.learning_rate > 0 or not self.guidance > 0:
            raise InputError(
                f"learning_rate {self.learning_rate}, guidance {self.guidance}: expected more than"
                " 0; for the opposite swap positive and negative"
            )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.learning_rate * rise * (1 - 0.9 * step / self.steps)


PAPER = SliderConfig()
"""For Stable Diffusion 1.5; learning rate and steps of the sliders' authors."""

PEOPLE = SliderConfig(steps=300, samples_per_step=4, learning_rate=1e-2, guidance=3.0)
"""For the embedded world: a base this small needs larger steps, and fewer of them.

Learning rates from 3e-3 to 2e-2 do equally well; guidance below 2 is weak. Merged with a subject's
LoRA, strengths of 1 to 2 are visible. Takes about 25 s per slider on one core in bfloat16.
"""

RECIPES = {"paper": PAPER, "people": PEOPLE}


def train_sliders(
    base: Base,
    layout: WeightLayout,
    concepts: Sequence[Concept],
    recipe: SliderConfig | None = None,
    *,
    seed: int = 0,
    progress: bool = False,
    **changes: Any,
) -> Float[Tensor, "k d"]:
    """Train a slider for each concept, all in one batch.

    Args:
        base: provides the targets; unchanged afterwards.
        layout: layout of the sliders: any rank and alpha.
        concepts: K concepts.
        recipe: None takes that of the base's world, or the paper's for any other base.
        seed: seed of the initial A, the images, the noise and the timesteps.
        progress: show a progress bar on stderr.
        **changes: fields of the configuration to change.

    Returns:
        one weight vector per concept, on the CPU. Row k is the same, up to float rounding, whatever
        the other concepts are.

    Raises:
        W2WError: there are no concepts, or a slider diverged.
    """
    recipe = replace(recipe or RECIPES.get(base.id, PAPER), **changes)
    if not concepts:
        raise InputError("no concepts: expected at least one")
    images = _Images(base, [concept.target for concept in concepts], recipe, seed)
    weights = initial_weights(layout, seed).repeat(len(concepts), 1).to(base.device)
    weights.requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=recipe.learning_rate, betas=recipe.betas)
    bar = tqdm(total=recipe.steps, unit=" steps", disable=not progress, leave=False)
    with adapt(base.denoiser, layout, weights) as adapter, bar:
        for step in range(recipe.steps):
            noisy, timesteps = images.noisy(step)
            adapter.enabled = False
            wanted = _targets(base, concepts, noisy, timesteps, recipe.guidance)
            adapter.enabled = True
            prompts = [concept.target for concept in concepts]
            predicted = _denoise(base, noisy, timesteps, prompts)
            loss = (predicted - wanted).square().flatten(1).mean(1)
            (weights.grad,) = torch.autograd.grad(loss.sum(), weights)
            if recipe.clip is not None:
                norms = weights.grad.norm(dim=1, keepdim=True)
                weights.grad.mul_((recipe.clip / (norms + 1e-6)).clamp(max=1.0))
            optimiser.param_groups[0]["lr"] = recipe.learning_rate_at(step)
            optimiser.step()
            bar.update()
    learned = weights.detach().cpu()
    for concept, row in zip(concepts, learned, strict=True):
        if not torch.isfinite(row).all():
            raise InputError(
                f"the slider for {concept.positive!r} became infinite or NaN: expected a lower"
                " learning rate or less guidance"
            )
    return learned


def moved_target(
    neutral: Float[Tensor, "*batch"],
    positive: Float[Tensor, "*batch"],
    negative: Float[Tensor, "*batch"],
    guidance: float,
) -> Float[Tensor, "*batch"]:
    """Return ε(c_t) + η (ε(c₊) - ε(c₋)): the slider's target for the neutral prompt.

    The same holds for the velocity v = (ε - √(1 - ᾱ) x_t) / √ᾱ of one noisy image x_t, which is
    linear in ε with a constant that cancels in the difference.

    Source: Gandikota et al. 2023, arXiv:2311.12092, section 4.1.
    """
    return neutral + guidance * (positive - negative)


class _Images:
    """Training images: the base's own images of the target prompts, with noise."""

    def __init__(self, base: Base, targets: Sequence[str], recipe: SliderConfig, seed: int):
        self.base, self.seed, self.samples = base, seed, recipe.samples_per_step
        different = list(dict.fromkeys(targets))
        drawn = generate(base, prompts=different, seeds=range(seed, seed + recipe.images))[0]
        latents = torch.stack([base.encode_images(images) for images in drawn])
        self.latents = latents[[different.index(target) for target in targets]]
        length = recipe.steps * self.samples
        order = shuffled_rounds((seed, "slider"), recipe.images, length)
        self.order = order.view(recipe.steps, self.samples)

    def noisy(self, step: int) -> tuple[Float[Tensor, "k b c h w"], Int[Tensor, " b"]]:
        """Return every slider's noisy latents; all share noise and timesteps."""
        turns = step * self.samples + torch.arange(self.samples, dtype=torch.float64)
        random = generator(self.seed, "slider", step)
        positions = fractions(random, turns, (self.seed, "slider", "first"))
        drawn = draw_noise(self.base, random, turns, positions)
        timesteps, noise = (x.to(self.base.device) for x in (drawn.timesteps, drawn.noise))
        clean = self.latents[:, self.order[step]]
        return torch.stack([self.base.process.noisy(x, noise, timesteps) for x in clean]), timesteps


@torch.no_grad()
def _targets(
    base: Base,
    concepts: Sequence[Concept],
    noisy: Float[Tensor, "k b c h w"],
    timesteps: Int[Tensor, " b"],
    guidance: float,
) -> Float[Tensor, "k b c h w"]:
    """Return what every slider should predict; predictions that several need are made once."""
    rows = {
        (concept.target, prompt): k
        for k, concept in enumerate(concepts)
        for prompt in (concept.target, concept.positive, concept.negative)
    }
    predicted = _denoise(
        base, noisy[list(rows.values())], timesteps, [prompt for _, prompt in rows]
    )
    of = dict(zip(rows, predicted, strict=True))
    return torch.stack(
        [
            moved_target(
                of[c.target, c.target], of[c.target, c.positive], of[c.target, c.negative], guidance
            )
            for c in concepts
        ]
    )


def _denoise(
    base: Base,
    noisy: Float[Tensor, "k b c h w"],
    timesteps: Int[Tensor, " b"],
    prompts: Sequence[str],
) -> Float[Tensor, "k b c h w"]:
    """Return the UNet's prediction for K groups of noisy latents, each with its own prompt."""
    groups, each = noisy.shape[:2]
    text = base.encode_prompts(prompts)[torch.arange(groups).repeat_interleave(each)]
    return base.denoise(noisy.flatten(0, 1), timesteps.repeat(groups), text).view(noisy.shape)
