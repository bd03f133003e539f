"""The batch of every training step, assembled from latents that stay on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bases import Base
from ._config import DreamBoothConfig
from ._latents import Latents, concatenate
from ._samples import draw_prompts, image_order, step_noise


@dataclass(frozen=True)
class Learner:
    """A subject whose images are encoded."""

    name: str
    latents: Latents


class Batches:
    """The losses of K subjects, step by step.

    Args:
        base: the model to fine-tune.
        config: the settings.
        learners: K subjects.
        prior: latents of the class, or None to train without prior preservation.
    """

    def __init__(
        self,
        base: Base,
        config: DreamBoothConfig,
        learners: Sequence[Learner],
        prior: Latents | None,
    ):
        self.base, self.config, self.K = base, config, len(learners)
        # The images of all subjects in one tensor, each subject's from its offset on.
        self.latents = concatenate([learner.latents for learner in learners]).to(base.device)
        counts = [len(learner.latents.mean) for learner in learners]
        offsets = torch.tensor([0, *counts]).cumsum(0)[:-1].tolist()
        orders = [
            image_order(config, "subject", count) + offset
            for count, offset in zip(counts, offsets, strict=True)
        ]
        self.order_on_cpu = torch.stack(orders)  # to look up captions without a device sync
        self.order = self.order_on_cpu.to(base.device)
        prompts = [config.instance_prompt] * config.train_batch_size
        self.prior = None
        if prior is not None:
            self.prior = prior.to(base.device)
            self.prior_order = image_order(config, "class", len(prior.mean)).to(base.device)
            prompts += [config.class_prompt] * config.train_batch_size
        self.plain_text = base.encode_prompts(prompts).repeat(self.K, 1, 1)

    def losses(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return every subject's loss "k" on its own images, and on those of the class."""
        b = self.config.train_batch_size
        own_noise = step_noise(self.base, self.config, "subject", step)
        parts: list[tuple[Tensor, ...]] = [self.latents.select(self.order[:, step], own_noise)]
        if self.prior is not None:
            noise = step_noise(self.base, self.config, "class", step)
            shared = self.prior.select(self.prior_order[step], noise)
            parts.append(tuple(x.expand(self.K, *x.shape) for x in shared))
        # "k 2b …", a subject's samples together: the order that is cheapest for the adapter
        latents, noise, timesteps, masks = (
            torch.cat(tensors, dim=1).flatten(0, 1) for tensors in zip(*parts, strict=True)
        )
        mask = None if self.latents.mask is None else masks
        text = self._text(step)
        losses = self.base.denoising_loss(latents, noise, timesteps, text, mask=mask)
        own, of_class = losses.view(self.K, -1).tensor_split([b], dim=1)
        return own.mean(1), None if self.prior is None else of_class.mean(1)

    def _text(self, step: int) -> Tensor:
        """Return the encoded prompts of a step's batch; without captions always the same."""
        if not self.latents.captions:
            return self.plain_text
        b = self.config.train_batch_size
        others = [self.config.class_prompt] * (0 if self.prior is None else b)
        prompts = []
        for images in self.order_on_cpu[:, step].tolist():
            captions = [self.latents.captions[image] for image in images]
            prompts += [*draw_prompts(self.config, step, captions), *others]
        return self.base.encode_prompts(prompts)
