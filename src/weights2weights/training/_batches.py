"""The batch of every training step, and what is random in it."""

from collections.abc import Sequence
from itertools import accumulate, compress

import torch
from jaxtyping import Int
from torch import Tensor

from .._noise import Noise, draw_noise, fractions, generator, shuffled_rounds
from ..bases import Base, Conditions
from ._config import DreamBoothConfig
from ._latents import Latents, concatenate


class Batches:
    """The losses of K subjects, step by step, from latents that stay on the device."""

    def __init__(
        self,
        base: Base,
        config: DreamBoothConfig,
        subjects: Sequence[Latents],
        prior: Latents | None,
    ):
        self.base, self.config, self.K = base, config, len(subjects)
        self.latents = concatenate(subjects).to(base.device)
        counts = [len(latents.mean) for latents in subjects]
        first = accumulate(counts, initial=0)  # image of each subject
        orders = [
            image_order(config, "subject", n) + i for n, i in zip(counts, first, strict=False)
        ]
        self.order_on_cpu = torch.stack(orders)  # to look up captions without a device sync
        self.order = self.order_on_cpu.to(base.device)
        self.prior, self.class_prompts = None, []
        if prior is not None:
            self.prior = prior.to(base.device)
            self.prior_order = image_order(config, "class", len(prior.mean)).to(base.device)
            self.class_prompts = [config.class_prompt] * config.train_batch_size
        prompts = [config.instance_prompt] * config.train_batch_size + self.class_prompts
        self.plain_text = base.encode_prompts(prompts * self.K)

    def losses(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return every subject's loss "k" on its own images, and on those of the class."""
        noise = step_noise(self.base, self.config, "subject", step)
        parts: list[tuple[Tensor, ...]] = [self.latents.select(self.order[:, step], noise)]
        if self.prior is not None:
            noise = step_noise(self.base, self.config, "class", step)
            shared = self.prior.select(self.prior_order[step], noise)
            parts.append(tuple(x.expand(self.K, *x.shape) for x in shared))
        # "k 2b …", a subject's samples together: the order that is cheapest for the adapter
        latents, noise, timesteps, masks = (
            torch.cat(tensors, dim=1).flatten(0, 1) for tensors in zip(*parts, strict=True)
        )
        mask, text = None if self.latents.mask is None else masks, self._text(step)
        losses = self.base.denoising_loss(latents, noise, timesteps, text, mask=mask)
        own, of_class = losses.view(self.K, -1).tensor_split([self.config.train_batch_size], dim=1)
        return own.mean(1), None if self.prior is None else of_class.mean(1)

    def _text(self, step: int) -> Conditions:
        """Return the encoded prompts of a step's batch; without captions always the same."""
        if not self.latents.captions:
            return self.plain_text
        prompts = []
        for images in self.order_on_cpu[:, step].tolist():
            captions = [self.latents.captions[image] for image in images]
            prompts += draw_prompts(self.config, step, captions) + self.class_prompts
        return self.base.encode_prompts(prompts)


def step_noise(base: Base, config: DreamBoothConfig, kind: str, step: int) -> Noise:
    """Draw the noise of one step, the same for every subject; `kind` is "subject" or "class"."""
    b = config.train_batch_size
    random = generator(config.seed, kind, step)
    turns = step * b + torch.arange(b, dtype=torch.float64)
    evenly = (config.seed, kind, "first") if config.timesteps == "even" else None
    return draw_noise(base, random, turns, fractions(random, turns, evenly))


def image_order(config: DreamBoothConfig, kind: str, images: int) -> Int[Tensor, "steps b"]:
    """Return which images each step uses: all of them in shuffled rounds, one after the other."""
    steps, b = config.steps, config.train_batch_size
    return shuffled_rounds((config.seed, kind), images, steps * b).view(steps, b)


def draw_prompts(config: DreamBoothConfig, step: int, captions: Sequence[str]) -> list[str]:
    """Return the instance prompt and some parts of the caption for each of a step's images."""
    random = generator(config.seed, "caption", step)
    prompts = []
    for caption in captions:
        parts = list(filter(None, map(str.strip, caption.split(","))))
        kept = torch.rand(len(parts), generator=random) < 1 - config.caption_dropout
        prompts.append(", ".join([config.instance_prompt, *compress(parts, kept)]))
    return prompts
