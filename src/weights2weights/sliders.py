"""Text-based Concept Sliders: edits learned from words alone, a baseline for directions.

A slider (Gandikota et al. 2023, arXiv:2311.12092) is a LoRA that makes the denoiser answer a
neutral prompt as it would answer a wanted one. It is trained on no image of anybody: the base
itself says where the words lead, and the LoRA learns to go there without being told. Beside a
subject's LoRA (`merging.merge_weights`, with the strength as weight) it edits the subject.

Several sliders are trained at once, as K stacked LoRAs (`adapter.adapt`) that meet the same noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._noise import draw_noise, fractions, generator, initial_weights, shuffled_rounds
from .adapter import adapt
from .bases import Base, add_noise
from .errors import InputError
from .generation import generate
from .layout import WeightLayout


@dataclass(frozen=True)
class Concept:
    """What a slider should change, in words.

    Attributes:
        positive: a prompt that asks for the attribute ("a photo of a bald person").
        negative: one that asks for its opposite ("a photo of a person with hair").
        target: the prompt that the slider acts on ("a photo of a person").
        preserve: words that stand in for `noun` in all three prompts, one after the other over the
            steps ("man", "woman"), so that what they say is not dragged along.
        noun: what they stand in for.
    """

    positive: str
    negative: str
    target: str = "a photo of a person"
    preserve: tuple[str, ...] = ()
    noun: str = "person"

    def prompts(self, step: int) -> tuple[str, str, str]:
        """Return target, positive and negative prompt of a step."""
        prompts = (self.target, self.positive, self.negative)
        if not self.preserve:
            return prompts
        word = self.preserve[step % len(self.preserve)]
        target, positive, negative = (text.replace(self.noun, word) for text in prompts)
        return target, positive, negative


@dataclass(frozen=True)
class SliderConfig:
    """How sliders are trained.

    Attributes:
        steps: of the optimiser.
        samples_per_step: noisy images per step and slider.
        learning_rate: at its height; it falls linearly to a tenth.
        warmup: steps in which it rises from 0.
        guidance: η, how far the target is moved along the wanted difference.
        images: that the base draws of the target prompt, once; noise is added to these.
        betas: of Adam.
        clip: largest norm of a slider's gradient; None does not clip.
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

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.learning_rate * rise * (1 - 0.9 * step / self.steps)


PAPER = SliderConfig()
"""For Stable Diffusion 1.5; rate and steps of the sliders' authors."""

PEOPLE = SliderConfig(steps=300, samples_per_step=4, learning_rate=1e-2, guidance=3.0)
"""The embedded world's: a base this small wants larger steps, and fewer of them.

Rates from 3e-3 to 2e-2 do equally well, guidance below 2 is weak. Strengths that show: 0.5 to 1 on
the base itself, beside a subject's LoRA 1.5 to 3 with `preserve` ("man", "woman"), 1 to 2 without,
which drags more along. Takes about 25 s per slider on one core in bfloat16.
"""

RECIPES = {"paper": PAPER, "people": PEOPLE}


def train_slider(
    base: Base,
    layout: WeightLayout,
    positive: str,
    negative: str,
    target: str = "a photo of a person",
    preserve: Sequence[str] = (),
    recipe: SliderConfig | None = None,
    *,
    seed: int = 0,
    progress: bool = False,
    **changes: Any,
) -> Float[Tensor, " d"]:
    """Train one slider: `train_sliders` with a single concept.

    Example:
        >>> def bald(base):
        ...     return train_slider(base, base.layout(alpha=1.0), "a photo of a bald person",
        ...                         "a photo of a person with hair", preserve=["man", "woman"])
    """
    concept = Concept(positive, negative, target, tuple(preserve))
    return train_sliders(base, layout, [concept], recipe, seed=seed, progress=progress, **changes)[
        0
    ]


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

    A step of one slider costs `samples_per_step` passes forth and back, and twice as many forth
    alone for what the base says; its answers to the neutral prompt are shared by sliders that have
    one in common.

    Args:
        base: is asked what the prompts mean; left as it was.
        layout: of the sliders: any rank and alpha; that of the subjects lets both be compared.
        concepts: K of them.
        recipe: None takes that of the base's world, for any other base the paper's.
        seed: of the initial A, the images, the noise and the timesteps.
        progress: a bar on stderr.
        **changes: fields of the recipe to change.

    Returns:
        one weight vector per concept, on the CPU. Row k is the same, up to float rounding, whatever
        the other concepts are.

    Raises:
        W2WError: no concepts, preserved words whose noun is in none of the prompts, or a loss that
            became infinite or NaN.
    """
    recipe = replace(recipe or RECIPES.get(base.id, PAPER), **changes)
    _check(concepts)
    images = _Images(base, [concept.target for concept in concepts], recipe, seed)
    weights = initial_weights(layout, seed).repeat(len(concepts), 1).to(base.device)
    weights.requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=recipe.learning_rate, betas=recipe.betas)
    with adapt(base.unet, layout, weights) as adapter, _bar(recipe.steps, progress) as bar:
        for step in range(recipe.steps):
            noisy, timesteps = images.noisy(step)
            adapter.enabled = False
            wanted = _wanted(base, concepts, step, noisy, timesteps, recipe.guidance)
            adapter.enabled = True
            targets = [concept.prompts(step)[0] for concept in concepts]
            predicted = _denoise(base, noisy, timesteps, targets)
            loss = (predicted - wanted).square().flatten(1).mean(1)
            (weights.grad,) = torch.autograd.grad(loss.sum(), weights)
            if recipe.clip is not None:
                norms = weights.grad.norm(dim=1, keepdim=True)
                weights.grad.mul_((recipe.clip / (norms + 1e-6)).clamp(max=1.0))
            optimiser.param_groups[0]["lr"] = recipe.rate(step)
            optimiser.step()
            bar.set_postfix(loss=f"{float(loss.detach().mean()):.3g}", refresh=False)
            bar.update()
    learned = weights.detach().cpu()
    for concept, row in zip(concepts, learned, strict=True):
        if not torch.isfinite(row).all():
            raise InputError(
                f"the slider for {concept.positive!r} became infinite or NaN: give a lower learning"
                " rate or less guidance"
            )
    return learned


def moved_target(
    neutral: Float[Tensor, "*batch"],
    positive: Float[Tensor, "*batch"],
    negative: Float[Tensor, "*batch"],
    guidance: float,
) -> Float[Tensor, "*batch"]:
    """Return ε(c_t) + η (ε(c₊) - ε(c₋)): what the slider should predict for the neutral prompt.

    The same holds for the velocity v = (ε - √(1 - ᾱ) x_t) / √ᾱ of one noisy image x_t, which is
    linear in ε with a constant that cancels in the difference.

    Source: Gandikota et al. 2023, arXiv:2311.12092, section 4.1.
    """
    return neutral + guidance * (positive - negative)


def scale_slider(
    weights: Float[Tensor, "*batch d"], layout: WeightLayout, strength: float
) -> Float[Tensor, "*batch d"]:
    """Return the slider whose update on every layer is `strength` times as large: B scaled, A kept.

    0 is the base, a negative strength leads towards the negative prompt.
    """
    scaled = weights.clone()
    for _, _, B in layout.slices():
        scaled[..., B] *= strength
    return scaled


class _Images:
    """What sliders learn from: the base's own images of their target prompts, with noise."""

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
        """Return every slider's noisy latents; noise and timesteps are the same for all."""
        turns = step * self.samples + torch.arange(self.samples, dtype=torch.float64)
        random = generator(self.seed, "slider", step)
        positions = fractions(random, turns, (self.seed, "slider", "first"))
        schedule = len(self.base.alphas_cumprod)
        drawn = draw_noise(random, self.base.latent_shape, positions, schedule)
        timesteps, noise = (x.to(self.base.device) for x in (drawn.timesteps, drawn.noise))
        alpha_bar = self.base.alphas_cumprod[timesteps]
        clean = self.latents[:, self.order[step]]
        return torch.stack([add_noise(x, noise, alpha_bar) for x in clean]), timesteps


@torch.no_grad()
def _wanted(
    base: Base,
    concepts: Sequence[Concept],
    step: int,
    noisy: Float[Tensor, "k b c h w"],
    timesteps: Int[Tensor, " b"],
    guidance: float,
) -> Float[Tensor, "k b c h w"]:
    """Ask the base what every slider should predict; what several want to know is asked once."""
    rows = {
        (concept.target, prompt): k
        for k, concept in enumerate(concepts)
        for prompt in concept.prompts(step)
    }
    said = _denoise(base, noisy[list(rows.values())], timesteps, [prompt for _, prompt in rows])
    answers = dict(zip(rows, said, strict=True))
    wanted = []
    for concept in concepts:
        neutral, positive, negative = (answers[concept.target, p] for p in concept.prompts(step))
        wanted.append(moved_target(neutral, positive, negative, guidance))
    return torch.stack(wanted)


def _denoise(
    base: Base,
    noisy: Float[Tensor, "k b c h w"],
    timesteps: Int[Tensor, " b"],
    prompts: Sequence[str],
) -> Float[Tensor, "k b c h w"]:
    """Return the UNet's prediction for K groups of noisy latents, each with its own prompt."""
    groups, each = noisy.shape[:2]
    text = base.encode_prompts(prompts).repeat_interleave(each, dim=0)
    return base.denoise(noisy.flatten(0, 1), timesteps.repeat(groups), text).view(noisy.shape)


def _check(concepts: Sequence[Concept]) -> None:
    if not concepts:
        raise InputError(
            "no concepts: expected at least one, with a positive and a negative prompt"
        )
    for concept in concepts:
        if concept.preserve and concept.noun not in concept.target:
            raise InputError(
                f"{', '.join(concept.preserve)} should stand in for {concept.noun!r}, which the"
                f" target {concept.target!r} does not hold: expected a noun of the prompts"
            )


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=" steps", disable=not progress, leave=False)
