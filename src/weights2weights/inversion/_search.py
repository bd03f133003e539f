"""The search: Adam on the rows of z, from look to look at the loss on held-out noise."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..adapter import Adapter, adapt
from ..bases import Base
from ._chance import draw_held_out, draw_step
from ._coordinates import Coordinates
from ._photos import Photos
from ._recipe import InversionConfig


class Search:
    """Where the search for each of K subjects stands; a Ctrl-C may come at any moment.

    Attributes:
        best: z of the best look; of the last point where the recipe does not look.
        loss: of that point on held-out noise, "k" on the CPU.
        start_loss: of z = 0.
        steps: that each subject took.
    """

    def __init__(
        self,
        base: Base,
        coordinates: Coordinates,
        photos: Photos,
        recipe: InversionConfig,
        seed: int,
        bar: Any,
    ):
        self.base, self.coordinates, self.photos = base, coordinates, photos
        self.recipe, self.seed, self.bar = recipe, seed, bar
        self.held_out = draw_held_out(base, recipe, seed)
        K = len(photos)
        self.z = torch.zeros(K, coordinates.components, device=base.device)
        self.moments = torch.zeros(2, *self.z.shape, device=base.device)
        self.best = torch.zeros_like(self.z)
        self.best_objective = torch.full((K,), math.inf)
        self.loss = torch.full((K,), math.nan)
        self.start_loss = torch.full((K,), math.nan)
        self.steps = torch.zeros(K, dtype=torch.int64)
        self.misses = torch.zeros(K, dtype=torch.int64)

    def run(self, rows: Tensor) -> None:
        """Search for the subjects of these rows together, until all are done."""
        recipe, members = self.recipe, rows
        weights = self.coordinates.weights(self.z[rows])
        try:
            with adapt(self.base.unet, self.coordinates.layout, weights) as adapter:
                self._look(adapter, rows)
                self.start_loss[rows] = self.loss[rows]
                for step in range(recipe.steps):
                    going_on = self._step(adapter, rows, step)
                    if self._is_time(step):
                        self._look(adapter, going_on)
                        going_on = going_on[self.misses[going_on] < recipe.patience]
                    spared = (len(rows) - len(going_on)) * (recipe.steps - 1 - step)
                    self.bar.update(len(rows) + spared)
                    rows = going_on
                    if not len(rows):
                        break
        except KeyboardInterrupt:
            if not recipe.check_every:
                moved = members[self.steps[members] > 0]
                self.best[moved] = self.z[moved]
                self.loss[moved] = math.nan
            raise

    def _is_time(self, step: int) -> bool:
        every = self.recipe.check_every
        return step == self.recipe.steps - 1 or (every > 0 and (step + 1) % every == 0)

    def _step(self, adapter: Adapter, rows: Tensor, step: int) -> Tensor:
        """Move some subjects' points; give the rows whose gradient was finite."""
        z = self.z[rows].requires_grad_()
        adapter.weights = self.coordinates.weights(z)
        loss = self.photos.losses(rows, draw_step(self.base, self.recipe, self.seed, step)).mean(1)
        (gradient,) = torch.autograd.grad((loss + self.coordinates.prior(z)).sum(), z)
        finite = gradient.isfinite().all(1).cpu()
        if not finite.all():
            self.loss[rows[~finite]] = math.nan
            rows, gradient = rows[finite], gradient[finite.to(gradient.device)]
        moments = self.moments[:, rows]
        self.z[rows] += move(self.z[rows], gradient, moments, step, self.recipe)
        self.moments[:, rows] = moments
        self.steps[rows] += 1
        return rows

    @torch.no_grad()
    def _look(self, adapter: Adapter, rows: Tensor) -> None:
        """Measure the held-out loss of some subjects' points, and keep those that gained."""
        if not len(rows):
            return
        z = self.z[rows]
        adapter.weights = self.coordinates.weights(z)
        parts = self.held_out.split(self.recipe.samples_per_step)  # what surely fits the memory
        loss = torch.cat([self.photos.losses(rows, part) for part in parts], 1).mean(1)
        objective = (loss + self.coordinates.prior(z)).cpu()
        before = self.best_objective[rows]
        gained = objective < before * (1 - self.recipe.least_gain)
        self.misses[rows] = torch.where(gained, 0, self.misses[rows] + 1)
        better = objective < before
        if not self.recipe.check_every:
            better = torch.ones_like(better)
        kept = rows[better]
        self.best[kept] = z[better.to(z.device)]
        self.best_objective[kept] = objective[better]
        self.loss[kept] = loss.cpu()[better]
        self.bar.set_postfix_str(f"loss {float(self.loss[rows].mean()):.4g}", refresh=False)


def move(
    z: Float[Tensor, "k j"],
    gradient: Float[Tensor, "k j"],
    moments: Float[Tensor, "2 k j"],
    step: int,
    recipe: InversionConfig,
) -> Float[Tensor, "k j"]:
    """Return the step of Adam (Kingma and Ba 2015), row by row, and bring the moments up to date.

    Weight decay is that of `torch.optim.Adam`, a part of the gradient. With `normalise` "photo" the
    second moment is the mean over a row, which keeps the ratios of its gradients.
    """
    gradient = gradient + recipe.weight_decay * z
    square = gradient.square()
    if recipe.normalise == "photo":
        square = square.mean(1, keepdim=True).expand_as(square)
    first, second = recipe.betas
    moments[0].lerp_(gradient, 1 - first)
    moments[1].lerp_(square, 1 - second)
    mean = moments[0] / (1 - first ** (step + 1))
    scale = (moments[1] / (1 - second ** (step + 1))).sqrt() + 1e-8
    return -recipe.rate(step) * mean / scale
