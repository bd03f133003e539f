"""Images from models: many models, prompts and seeds in one batch, and delayed injection.

Each sample runs through its own LoRA (`adapter.adapt`), with deterministic DDIM and classifier-free
guidance. Noise depends on the seed alone, so an image does not depend on its batch and is the one
that `StableDiffusionPipeline` gives. Delayed injection (Dravid et al. 2024, appendix I) runs the
first, noisiest steps, which lay out the scene, with the original weights.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from ._memory import free_memory
from .adapter import adapt
from .bases import Base, Conditions
from .errors import InputError, ResourceError
from .layout import WeightLayout
from .opening import Models, Space, stack_models

# Larger batches are no faster: people UNet on 2 cores, ms per sample and pass at batch 1, 8, 32:
# 15, 5.5, 4.3.
_LARGEST_BATCH = {"cpu": 32, "mps": 16}
_LARGEST_ON_ACCELERATORS = 64


def generate(
    base: Base,
    models: Models | None = None,
    *,
    prompts: str | Sequence[str],
    seeds: SupportsIndex | Iterable[SupportsIndex],
    space: Space | None = None,
    layout: WeightLayout | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative_prompt: str = "",
    inject_at: int | None = None,
    original: Models | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> UInt8[Tensor, "k p s h w 3"]:
    """Draw every prompt with every seed from every model.

    Args:
        base: the model that the LoRAs personalise.
        models: K models in any form (`opening.Models`): points of `space`, weights of `layout`,
            `Model`s or paths; None draws the base itself, with K = 1.
        prompts: P texts, or one.
        seeds: S seeds of the initial noise, or one.
        space: of points; an object, a folder, a hub id or the name of an embedded world.
        layout: of weights that come as an array.
        steps: number of sampling steps; None is the family's: 20 for Stable Diffusion 1 and 2, 30
            for SDXL, 28 for SD 3 and FLUX.1 dev, 4 for schnell.
        guidance: scale of guidance; None is the family's: 3, 5, 7 and 3.5. 1 does without
            classifier-free guidance, in half the time; FLUX.1 reads the scale as an input.
        negative_prompt: what guidance leads away from; FLUX.1 has none.
        inject_at: timestep at and below which `models` act; above, at noisier timesteps, `original`
            does. None, or the number of training timesteps (1000): always.
        original: the models before their edit, one or K, for `inject_at`; None is the plain base.
        batch_size: images at once, halved where a GPU's memory does not suffice; None fits it.
        progress: show a progress bar on stderr.

    Returns:
        images on the CPU. The same seed gives the same image whatever the batch, up to float
        rounding: at most one grey level in float32.

    Raises:
        InputError: an argument out of its range or of another shape; models of another base.
        ResourceError: not even one image fits into the GPU's memory.
    """
    prompts, rows, steps, guidance = _checked(base, prompts, seeds, steps, guidance, batch_size)
    options = {"space": space, "layout": layout, "base_hash": base.hash}
    loras = _loras(models, original, inject_at, **options)
    sampler = _Sampler(base, prompts, negative_prompt, rows, steps, guidance)
    shape = len(loras.edited) if loras else 1, len(prompts), len(rows)
    items = torch.unravel_index(torch.arange(math.prod(shape)), shape)
    images = _draw(sampler, loras, items, batch_size, progress)
    return images.view(*shape, *images.shape[1:])


def generate_each(
    base: Base,
    models: Models,
    *,
    prompts: Sequence[str],
    seeds: Sequence[SupportsIndex],
    space: Space | None = None,
    layout: WeightLayout | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative_prompt: str = "",
    inject_at: int | None = None,
    original: Models | None = None,
    batch_size: int | None = None,
) -> UInt8[Tensor, "k h w 3"]:
    """Draw one image from each of K models, with a prompt and a seed of its own.

    Args:
        base: the model that the LoRAs personalise.
        models: K models; these and all others as in `generate`.
        prompts: K texts.
        seeds: K seeds.
        space: of points.
        layout: of weights that come as an array.
        steps: number of sampling steps.
        guidance: scale of guidance.
        negative_prompt: what guidance leads away from.
        inject_at: timestep at and below which `models` act.
        original: the models before their edit, one or K, for `inject_at`.
        batch_size: images at once.

    Returns:
        images on the CPU. In batches of one size, an image has the same bits wherever it stands and
        whatever else the batch holds.

    Raises:
        InputError: not as many prompts and seeds as models; as `generate`.
    """
    prompts, rows, steps, guidance = _checked(base, prompts, seeds, steps, guidance, batch_size)
    loras = _loras(models, original, inject_at, space=space, layout=layout, base_hash=base.hash)
    K = len(loras.edited) if loras else 0
    if not len(prompts) == len(rows) == K:
        raise InputError(f"{len(prompts)} prompts, {len(rows)} seeds, {K} models: expected as many")
    sampler = _Sampler(base, prompts, negative_prompt, rows, steps, guidance)
    return _draw(sampler, loras, (torch.arange(K),) * 3, batch_size)


def _checked(
    base: Base | str | Path,
    prompts: Any,
    seeds: Any,
    steps: int | None,
    guidance: float | None,
    batch_size: int | None,
) -> tuple[list[str], list[int], int, float]:
    """Return prompts and seeds as lists, steps and guidance, once everything is in its range."""
    if isinstance(base, str | Path):
        raise InputError(f"expected a Base; w2w.load_base({str(base)!r}) loads one")
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    try:
        rows = [*map(operator.index, seeds if isinstance(seeds, Iterable) else [seeds])]
    except TypeError as error:
        raise InputError(f"seeds {seeds!r}: expected an integer or several") from error
    if not prompts or not rows:
        raise InputError(
            f"{len(prompts)} prompts and {len(rows)} seeds: expected at least one of each"
        )
    if not 0 <= min(rows) <= max(rows) < 2**64:
        raise InputError(f"seeds from {min(rows)} to {max(rows)}: expected 0 to 2^64 - 1")
    steps = base.family.steps if steps is None else steps
    guidance = base.family.guidance if guidance is None else guidance
    if not math.isfinite(guidance):
        raise InputError(f"guidance {guidance}: expected a finite number")
    if steps > base.num_timesteps:
        raise InputError(f"{steps} steps: expected at most {base.num_timesteps}")
    if steps < 1 or (batch_size is not None and batch_size < 1):
        raise InputError(f"{steps} steps, batch_size {batch_size}: expected at least 1 of each")
    return prompts, rows, steps, guidance


def _draw(
    sampler: "_Sampler",
    loras: "_LoRAs | None",
    items: tuple[Tensor, ...],
    batch_size: int | None,
    progress: bool = False,
) -> UInt8[Tensor, "n h w 3"]:
    """Draw items (model, prompt, seed), models in rising order, in batches that fit."""
    base, total, done = sampler.base, len(items[0]), 0
    batch_size = batch_size or _fitting(base, _passes(base, sampler.guidance))
    steps = sampler.steps
    images: list[Tensor] = []
    with tqdm(disable=not progress, total=total * steps, unit=" image-steps", leave=False) as bar:
        while done < total:
            model, prompt, seed = (item[done : done + batch_size] for item in items)
            start = bar.n
            try:
                with loras.on(base, model) if loras else nullcontext(id) as select:
                    images.append(base.decode(sampler.draw(prompt, seed, select, bar)))
                done += len(model)
                continue
            except torch.OutOfMemoryError as error:
                if len(model) == 1:
                    raise ResourceError(
                        f"one image of {base.size} px does not fit into the memory of"
                        f" {base.device}; load the base with dtype bfloat16, or on another device"
                    ) from error
            # outside of `except`, whose traceback would keep the tensors alive
            bar.n, batch_size = start, (len(model) + 1) // 2
            torch.cuda.empty_cache()
    return torch.cat(images)


def initial_noise(base: Base, seed: int) -> Float[Tensor, "1 c h w"]:
    """Return the noise that a seed stands for, on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, *base.latent_shape), generator=generator)


_Select = Callable[[float], Any]
"""Lets the edited or the original weights act at a timestep."""


class _Sampler:
    """Guided sampling for any subset of (prompt, seed); everything shared is made once."""

    def __init__(
        self,
        base: Base,
        prompts: Sequence[str],
        negative_prompt: str,
        seeds: Sequence[int],
        steps: int,
        guidance: float,
    ):
        self.base, self.steps, self.guidance = base, steps, guidance
        self.prompts = base.encode_prompts(prompts)
        self.negative = base.encode_negative(negative_prompt)
        self.noise = torch.cat([initial_noise(base, seed) for seed in seeds])

    @torch.no_grad()
    def draw(self, prompt: Tensor, seed: Tensor, select: _Select, bar: Any) -> Tensor:
        """Return the latents of some (prompt, seed); `select` is called before every step."""
        device = self.base.device
        latents, text = self.noise[seed].to(device), self.prompts[prompt.to(device)]
        passes = _passes(self.base, self.guidance)
        if passes == 2:
            text = Conditions.cat([self.negative.expand(len(text)), text])
        scheduler = self.base.sampler(self.steps)  # a new one, as some count their steps
        for timestep in scheduler.timesteps:
            select(float(timestep))
            times = timestep.to(device).expand(len(text))
            repeated = latents.repeat(passes, 1, 1, 1)
            predicted = self.base.denoise(repeated, times, text, self.guidance)
            if passes == 2:
                plain, prompted = predicted.chunk(2)
                predicted = plain + self.guidance * (prompted - plain)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
            bar.update(len(seed))
        return latents


@dataclass(frozen=True)
class _LoRAs:
    """Edited weights "k d", and those before the edit, which act at timesteps above `inject_at`."""

    layout: WeightLayout
    edited: Tensor
    original: Tensor | None  # None is the plain base
    inject_at: int | None

    @contextmanager
    def on(self, base: Base, model: Tensor) -> Iterator[_Select]:
        """Adapt a base by the rows that a batch needs: one for each sample, in rising order."""
        rows = slice(int(model[0]), int(model[-1]) + 1)
        edited = self.edited[rows].to(base.device)
        original = None if self.original is None else self.original[rows].to(base.device)
        index = (model - model[0]).to(base.device)

        def select(timestep: float) -> None:
            late = self.inject_at is None or timestep <= self.inject_at
            if original is None:
                adapter.enabled = late
            else:
                adapter.weights = edited if late else original

        with adapt(base.denoiser, self.layout, edited, index) as adapter:
            yield select


def _loras(
    models: Models | None, original: Models | None, inject_at: int | None, **options: Any
) -> _LoRAs | None:
    if models is None:
        if inject_at is not None or original is not None:
            raise InputError("delayed injection without models: expected the models to inject")
        return None
    if original is not None and inject_at is None:
        raise InputError("original without inject_at: expected the timestep of the injection")
    options["layout"], edited = stack_models(models, **options)
    if original is None:
        return _LoRAs(options["layout"], edited.detach(), None, inject_at)
    _, before = stack_models(original, **options)
    if len(before) not in (1, len(edited)):
        raise InputError(
            f"{len(before)} original models for {len(edited)} edited ones: expected one or as many"
        )
    return _LoRAs(options["layout"], edited.detach(), before.detach().expand_as(edited), inject_at)


def _passes(base: Base, guidance: float) -> int:
    """Return how often the denoiser runs per step: guidance compares two predictions."""
    return 1 if guidance == 1 or base.family.reads_guidance else 2


def _fitting(base: Base, passes: int) -> int:
    """Return the number of images that fit at once into half of the memory at hand, by estimate.

    A pass keeps about 24 maps of the first level (skip connections, the block at work) and, where
    attention is not fused, two tokens × tokens matrices per head.
    """
    _, height, width = base.latent_shape
    tokens, channels = height * width // base.family.patch**2, base.family.width
    values = 24 * tokens * channels
    if base.device.type == "cpu" and tokens <= 1024:
        values += 2 * max(1, channels // 32) * tokens**2
    most = _LARGEST_BATCH.get(base.device.type, _LARGEST_ON_ACCELERATORS)
    return max(1, min(most, free_memory(base.device) // 2 // (passes * 4 * values)))
