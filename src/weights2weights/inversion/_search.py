"""The search: Adam on the rows of z, with evaluations of the loss on held-out noise."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._config import learning_rate_at
from .._noise import Noise, draw_noise, fractions, generator
from ..adapter import Adapter, adapt
from ..bases import Base
from ._config import InversionConfig
from ._coordinates import Coordinates
from ._images import TargetImages


class Search:
    """The state of the search for K subjects, valid whenever Ctrl-C may strike.

    Between evaluations nothing is read from the device: a subject whose gradient is not finite
    stands still until the next evaluation ends its search.

    `best` is z of the best evaluation; without evaluations, of the last point.
    """

    def __init__(
        self,
        base: Base,
        coordinates: Coordinates,
        images: TargetImages,
        config: InversionConfig,
        seed: int,
        bar: Any,
        watch: Callable[[int], object] | None = None,
    ):
        self.base, self.coordinates, self.images = base, coordinates, images
        self.config, self.seed, self.bar, self.watch = config, seed, bar, watch
        self.held_out = held_out_samples(base, config, seed)
        K = len(images)
        self.z = torch.zeros(K, coordinates.components, device=base.device)
        self.moments = torch.zeros(2, *self.z.shape, device=base.device)
        self.finite = torch.ones(K, dtype=torch.bool, device=base.device)
        self.best = torch.zeros_like(self.z)
        self.best_objective = torch.full((K,), math.inf)
        self.loss, self.start_loss = torch.full((2, K), math.nan)
        self.steps, self.misses = torch.zeros(2, K, dtype=torch.int64)

    def run(self, rows: Tensor) -> None:
        """Search for the subjects of these rows together, until all are done."""
        config, members = self.config, rows
        weights = self.coordinates.weights(self.z[rows])
        try:
            with (
                self.base.gradient_checkpointing(config.gradient_checkpointing),
                adapt(self.base.denoiser, self.coordinates.layout, weights) as adapter,
            ):
                self._evaluate(adapter, rows)
                self.start_loss[rows] = self.loss[rows]
                for step in range(config.steps):
                    self._step(adapter, rows.to(self.base.device), step)
                    self.steps[rows] += 1
                    left, unfinished = config.steps - 1 - step, rows
                    if not left or (config.eval_every and (step + 1) % config.eval_every == 0):
                        unfinished = self._evaluate(adapter, rows)
                        if self.watch:
                            self.watch(step + 1)
                    self.bar.update(len(rows) + (len(rows) - len(unfinished)) * left)
                    rows = unfinished
                    if not len(rows):
                        break
        except KeyboardInterrupt:
            if not config.eval_every:
                moved = members[self.steps[members] > 0]
                self.best[moved] = self.z[moved]
                self.loss[moved] = math.nan
            raise

    def _step(self, adapter: Adapter, rows: Tensor, step: int) -> None:
        """Move the points of some subjects; `rows` are on the device."""
        z = self.z[rows].requires_grad_()
        adapter.weights = self.coordinates.weights(z)
        samples = step_samples(self.base, self.config, self.seed, step)
        loss = self.images.losses(rows, samples).mean(1)
        (gradient,) = torch.autograd.grad((loss + self.coordinates.prior(z)).sum(), z)
        finite = self.finite[rows] & gradient.isfinite().all(1)
        self.finite[rows] = finite
        gradient = gradient.masked_fill(~finite[:, None], 0)
        moments = self.moments[:, rows]
        moved = move(z.detach(), gradient, moments, step, self.config)
        self.z[rows] += moved.masked_fill(~finite[:, None], 0)
        self.moments[:, rows] = moments

    @torch.no_grad()
    def _evaluate(self, adapter: Adapter, rows: Tensor) -> Tensor:
        """Measure the held-out loss of some subjects, keep what improved, return who continues."""
        here = rows.to(self.base.device)
        z = self.z[here]
        adapter.weights = self.coordinates.weights(z)
        # in parts as large as a step, which are known to fit into memory
        parts = self.held_out.split(self.config.samples_per_step)
        loss = torch.cat([self.images.losses(here, part) for part in parts], 1).mean(1)
        finite = self.finite[here].cpu()
        objective = (loss + self.coordinates.prior(z)).cpu()
        better = (objective < self.best_objective[rows]) & finite
        self.misses[rows] = torch.where(better, 0, self.misses[rows] + 1)
        if not self.config.eval_every:
            better = finite
        kept = rows[better]
        self.best[kept] = z[better.to(z.device)]
        self.best_objective[kept] = objective[better]
        self.loss[kept] = loss.cpu()[better]
        self.loss[rows[~finite]] = math.nan
        self.bar.set_postfix_str(f"loss {float(self.loss[rows].mean()):.4g}", refresh=False)
        return rows[finite & (self.misses[rows] < self.config.patience)]


def step_samples(base: Base, config: InversionConfig, seed: int, step: int) -> Noise:
    """Draw the samples of one step, the same for all images."""
    turns = step * config.samples_per_step + torch.arange(config.samples_per_step)
    random = generator("inversion", seed, "step", step)
    evenly = ("inversion", seed, "first") if config.timesteps == "even" else None
    return draw_noise(base, random, turns, fractions(random, turns, evenly), config.timestep_range)


def held_out_samples(base: Base, config: InversionConfig, seed: int) -> Noise:
    """Draw the samples that every evaluation uses and no step, at evenly spaced timesteps."""
    turns = torch.arange(config.eval_samples)
    # Shuffled, so that the images of one subject each get all kinds of timesteps.
    order = torch.randperm(len(turns), generator=generator("inversion", seed, "held-out order"))
    positions = ((turns.double() + 0.5) / len(turns))[order]
    random = generator("inversion", seed, "held out")
    return draw_noise(base, random, turns, positions, config.timestep_range)


def move(
    z: Float[Tensor, "k j"],
    gradient: Float[Tensor, "k j"],
    moments: Float[Tensor, "2 k j"],
    step: int,
    config: InversionConfig,
) -> Float[Tensor, "k j"]:
    """Return the update of Adam (Kingma and Ba 2015), row by row; updates the moments in place.

    Weight decay is part of the gradient, as in `torch.optim.Adam`. With `normalize` "image" the
    second moment is the mean over a row, which preserves the ratios of its gradients.
    """
    gradient = gradient + config.weight_decay * z
    square = gradient.square()
    if config.normalize == "image":
        square = square.mean(1, keepdim=True).expand_as(square)
    first, second = config.betas
    moments[0].lerp_(gradient, 1 - first)
    moments[1].lerp_(square, 1 - second)
    mean = moments[0] / (1 - first ** (step + 1))
    scale = (moments[1] / (1 - second ** (step + 1))).sqrt() + 1e-8
    return -learning_rate_at(config, step) * mean / scale
