"""Images from models: many models, prompts and seeds in one batch, and delayed injection.

All combinations of K models, P prompts and S seeds run through one UNet, each sample through its
own LoRA (`adapter.adapt`), with deterministic DDIM and classifier-free guidance in one doubled
batch. Noise depends on the seed alone and is that of `torch.Generator("cpu").manual_seed(seed)`, so
an image does not depend on its batch, and is the one that `StableDiffusionPipeline` gives.

Delayed injection (Dravid et al. 2024, appendix I): the first, noisiest steps, which lay out the
scene, run with the original weights and the later ones with the edited ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ._memory import free_memory
from .adapter import adapt
from .bases import Base
from .errors import InputError, ResourceError
from .layout import WeightLayout
from .models import require_one_base
from .opening import Models, stack_models
from .space import WeightSpace

GUIDANCE = 3.0
"""Scale of classifier-free guidance; the paper uses 2.5 to 4."""

STEPS = 20
"""DDIM steps; the paper takes 50, from 20 on the difference is hardly visible."""

# Larger batches are no faster: people UNet on 2 cores, ms per sample and pass at batch 1, 8, 32:
# 15, 5.5, 4.3.
_LARGEST_BATCH = {"cpu": 32, "mps": 16}
_LARGEST_ON_ACCELERATORS = 64


def generate(
    base: Base,
    models: Models | None = None,
    *,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int],
    space: WeightSpace | str | Path | None = None,
    layout: WeightLayout | None = None,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    negative_prompt: str = "",
    inject_at: int | None = None,
    original: Models | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> UInt8[Tensor, "k p s h w 3"]:
    """Draw every prompt with every seed from every model.

    Args:
        base: the model that the LoRAs personalise.
        models: K models: points of `space`, weights of `layout`, `Model`s or paths, see
            `opening.stack_models`; None draws the base itself, with K = 1.
        prompts: P texts, or one.
        seeds: S seeds of the initial noise, or one.
        space: of points; an object, a folder, a hub id or the name of an embedded world.
        layout: of weights that come as an array.
        steps: number of DDIM steps.
        guidance: scale of classifier-free guidance; 1 does without, in half the time.
        negative_prompt: what guidance leads away from.
        inject_at: timestep at and below which `models` act; above, at noisier timesteps, `original`
            does. None, or the number of training timesteps (1000): always.
        original: the models before their edit, one or K, for `inject_at`; None is the plain base.
        batch_size: images at once; None fits the free memory. Where that does not suffice on a
            GPU, the batch is halved until it does.
        progress: show a progress bar on stderr.

    Returns:
        images on the CPU. The same seed gives the same image whatever the batch, up to float
        rounding: at most one grey level in float32.

    Raises:
        InputError: an argument out of its range or of another shape; models of another base.
        ResourceError: not even one image fits into the GPU's memory.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    _check(models, prompts, seeds, steps, inject_at, original, batch_size)
    weights = before = None
    if models is not None:
        layout, weights = _stack(base, models, space, layout)
    if original is not None and weights is not None:
        layout, before = _stack(base, original, space, layout)
        before = _like(before, weights)
    sampler = _Sampler(base, prompts, negative_prompt, seeds, steps, guidance)
    shape = K, P, S = 1 if weights is None else len(weights), len(prompts), len(seeds)
    batch_size = batch_size or _fitting(base, 1 if guidance == 1 else 2)
    images: list[Tensor] = []
    done, total = 0, K * P * S
    with _bar(total * steps, progress) as bar:
        while done < total:
            items = torch.arange(done, min(done + batch_size, total))
            model, prompt, seed = torch.unravel_index(items, shape)
            start = bar.n
            try:
                with _adapted(base, layout, weights, before, inject_at, model) as select:
                    images.append(base.decode(sampler.draw(prompt, seed, select, bar)))
                done += len(items)
                continue
            except torch.OutOfMemoryError as error:
                if len(items) == 1:
                    raise ResourceError(
                        f"one image of {base.size} px does not fit into the memory of"
                        f" {base.device}; load the base with dtype bfloat16, or on another device"
                    ) from error
            # outside of `except`, whose traceback would keep the tensors alive
            bar.n, batch_size = start, (len(items) + 1) // 2
            torch.cuda.empty_cache()
    return torch.cat(images).view(*shape, *images[0].shape[1:])


def initial_noise(base: Base, seed: int) -> Float[Tensor, "1 c h w"]:
    """Return the noise that a seed stands for, on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, *base.latent_shape), generator=generator)


_Select = Callable[[int], None]
"""Lets the edited or the original weights act at a timestep."""


class _Sampler:
    """DDIM with guidance for any subset of (prompt, seed); everything shared is made once."""

    def __init__(
        self,
        base: Base,
        prompts: Sequence[str],
        negative_prompt: str,
        seeds: Sequence[int],
        steps: int,
        guidance: float,
    ):
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        self.base, self.guidance = base, guidance
        self.prompts = base.encode_prompts(prompts)
        self.negative = base.encode_prompts([negative_prompt])
        self.noise = torch.cat([initial_noise(base, seed) for seed in seeds])
        # Latents have no range to be clipped to, whatever another scheduler's settings leave open.
        self.scheduler: Any = DDIMScheduler.from_config(base.scheduler_config, clip_sample=False)
        self.scheduler.set_timesteps(steps)

    @torch.no_grad()
    def draw(self, prompt: Tensor, seed: Tensor, select: _Select, bar: Any) -> Tensor:
        """Return the latents of some (prompt, seed); `select` is called before every step."""
        device = self.base.device
        latents = self.noise[seed].to(device)
        text = self.prompts[prompt.to(device)]
        if self.guidance != 1:
            text = torch.cat([self.negative.expand_as(text), text])
        for timestep in self.scheduler.timesteps:
            select(int(timestep))
            predicted = self._predict(latents, timestep, text)
            latents = self.scheduler.step(predicted, timestep, latents).prev_sample
            bar.update(len(seed))
        return latents

    def _predict(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        batch = latents.repeat(text.shape[0] // latents.shape[0], 1, 1, 1)
        timesteps = timestep.to(batch.device).expand(batch.shape[0])
        predicted = self.base.denoise(batch, timesteps, text)
        if self.guidance == 1:
            return predicted
        plain, prompted = predicted.chunk(2)
        return plain + self.guidance * (prompted - plain)


@contextmanager
def _adapted(
    base: Base,
    layout: WeightLayout | None,
    weights: Tensor | None,
    original: Tensor | None,
    inject_at: int | None,
    model: Tensor,
) -> Iterator[_Select]:
    """Put the models of one batch on the base; only their rows are on the device.

    `model` holds the row of `weights` of every sample, in rising order.
    """
    if weights is None or layout is None:
        yield lambda timestep: None
        return
    rows = slice(int(model[0]), int(model[-1]) + 1)
    edited = weights[rows].to(base.device)
    before = None if original is None else original[rows].to(base.device)
    index = (model - model[0]).to(base.device)

    def select(timestep: int) -> None:
        late = inject_at is None or timestep <= inject_at
        if before is None:
            adapter.enabled = late
        else:
            adapter.weights = edited if late else before

    with adapt(base.unet, layout, edited, index) as adapter:
        yield select


def _stack(
    base: Base, models: Models, space: WeightSpace | str | Path | None, layout: WeightLayout | None
) -> tuple[WeightLayout, Tensor]:
    stack = stack_models(models, space=space, layout=layout)
    what = ", ".join(filter(None, stack.names)) or "the model"
    require_one_base(base.hash, stack.base_hash, what)
    return stack.layout, stack.weights.detach()


def _like(original: Tensor, weights: Tensor) -> Tensor:
    if len(original) not in (1, len(weights)):
        raise InputError(
            f"{len(original)} original models for {len(weights)} edited ones: expected one, or one"
            " each"
        )
    return original.expand_as(weights)


def _check(
    models: Models | None,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    inject_at: int | None,
    original: Models | None,
    batch_size: int | None,
) -> None:
    if not prompts or not seeds:
        raise InputError(
            f"{len(prompts)} prompts and {len(seeds)} seeds: expected at least one of each"
        )
    if models is None and (inject_at is not None or original is not None):
        raise InputError("delayed injection without models: expected the models to inject")
    if original is not None and inject_at is None:
        raise InputError("original without inject_at: expected the timestep of the injection")
    if steps < 1 or (batch_size is not None and batch_size < 1):
        raise InputError(f"{steps} steps, batch_size {batch_size}: expected at least 1 of each")


def _fitting(base: Base, passes: int) -> int:
    """Return the number of images that fit at once into half of the memory at hand, by estimate.

    A pass keeps about 24 maps of the widest level (skip connections, the block at work) and, where
    attention is not fused, two tokens × tokens matrices per head.
    """
    _, height, width = base.latent_shape
    config = base.unet.config
    maps = 24 * height * width * config.block_out_channels[0]
    attention = 0
    if base.device.type == "cpu" and height * width <= 1024:
        attention = 2 * max(1, config.block_out_channels[0] // 32) * (height * width) ** 2
    bytes_each = passes * 4 * (maps + attention)
    most = _LARGEST_BATCH.get(base.device.type, _LARGEST_ON_ACCELERATORS)
    return max(1, min(most, free_memory(base.device) // 2 // bytes_each))


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=" image-steps", disable=not progress, leave=False)
