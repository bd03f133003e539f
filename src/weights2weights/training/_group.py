"""The training loop: K subjects, one leaf, all steps."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._cpu import keep_freed_memory
from ..adapter import adapt
from ..bases import Base
from ..errors import InputError
from ..layout import WeightLayout
from ._chance import draw_chance, draw_prompts, image_order
from ._journal import Journal
from ._latents import Cache, Latents, cache_key, concatenate
from ._optimiser import optimiser_for
from ._recipe import DreamBoothConfig
from ._start import start_weights

CHECKPOINT_SECONDS = 60.0
"""How much work on a group an interruption may cost."""

_FINAL_PART = 0.1  # of the steps, over which a subject's loss is averaged and told

_BROKEN = "its loss became infinite or NaN: give a lower learning rate, or look at its images"


@dataclass(frozen=True)
class Learner:
    """A subject whose images are encoded, and the seed of all that chance decides for it."""

    name: str
    seed: int
    latents: Latents


@dataclass(frozen=True)
class Trained:
    """What became of a group.

    Attributes:
        names: of the subjects that were learned.
        weights: their rows, on the CPU.
        info: for each its loss at the end and its number of images.
        failed: name → reason of the others.
        run: key of the group's checkpoint, which is of no use any more once the rows are stored.
    """

    names: list[str]
    weights: Float[Tensor, "n d"]
    info: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)
    run: str = ""


def train_group(
    base: Base,
    layout: WeightLayout,
    recipe: DreamBoothConfig,
    learners: Sequence[Learner],
    prior: Latents | None,
    cache: Cache,
    journal: Journal,
) -> Trained:
    """Train K subjects in one batch, from their last checkpoint if there is one.

    Args:
        base: to be fine-tuned; left as it was.
        layout: of the weights.
        recipe: how.
        learners: K subjects.
        prior: latents of the class, or None to do without prior preservation.
        cache: keeps checkpoints.
        journal: is told of every step.

    Raises:
        W2WError: K subjects do not fit into the device's memory.
    """
    if base.device.type == "cpu":
        keep_freed_memory()
    run = _run_key(base, layout, recipe, learners, prior)
    first_step, weights, optimiser, alive, final_loss = _begin(base, layout, recipe, learners)
    if found := cache.load(run):
        first_step = _restore(found, weights, optimiser, alive, final_loss)
    final_steps = max(1, round(_FINAL_PART * recipe.steps))
    batches = _Batches(base, recipe, learners, prior)
    journal.begin([learner.name for learner in learners], first_step)
    saved = time.monotonic()
    with adapt(base.unet, layout, weights), told_if_too_large(base, f"{len(learners)} subjects"):
        for step in range(first_step, recipe.steps):
            loss, prior_loss = batches.losses(step)
            total = loss if prior_loss is None else loss + recipe.prior_weight * prior_loss
            (weights.grad,) = torch.autograd.grad(total.sum(), weights)
            alive &= torch.isfinite(total.detach()) & clip_rows(weights.grad, recipe.clip)
            weights.grad.masked_fill_(~alive[:, None], 0)  # a broken row stands still
            optimiser.param_groups[0]["lr"] = recipe.rate(step)
            optimiser.step()
            if step >= recipe.steps - final_steps:
                final_loss += loss.detach() / final_steps
            journal.step(step, loss, prior_loss, alive)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                cache.save(run, _checkpoint(step + 1, weights, optimiser, alive, final_loss))
                saved = time.monotonic()
    alive &= torch.isfinite(weights).all(1)
    rows = overshoot(layout, weights.detach().cpu(), recipe.overshoot)
    return _settle(learners, rows, alive.tolist(), final_loss.tolist(), run)


def overshoot(
    layout: WeightLayout, weights: Float[Tensor, "k d"], factor: float
) -> Float[Tensor, "k d"]:
    """Multiply every B, and so the update of every layer, in place."""
    if factor != 1:
        for _, _, B in layout.slices():
            weights[:, B] *= factor
    return weights


def clip_rows(gradient: Float[Tensor, "k d"], clip: float | None) -> Bool[Tensor, "k"]:
    """Scale rows down to a norm of at most `clip`, in place; give which of them are finite."""
    norms = gradient.norm(dim=1)
    if clip is not None:
        gradient.mul_((clip / (norms + 1e-6)).clamp(max=1.0)[:, None])
    return torch.isfinite(norms)


class _Batches:
    """The batch of every step, assembled from latents that stay on the device."""

    def __init__(
        self,
        base: Base,
        recipe: DreamBoothConfig,
        learners: Sequence[Learner],
        prior: Latents | None,
    ):
        self.base, self.recipe, self.K = base, recipe, len(learners)
        # The images of all subjects in one tensor, each subject's from its offset on.
        self.latents = concatenate([learner.latents for learner in learners]).to(base.device)
        counts = [len(learner.latents.mean) for learner in learners]
        offsets = torch.tensor([0, *counts]).cumsum(0)[:-1]
        orders = [
            image_order(recipe, learner.seed, "subject", count) + offset
            for learner, count, offset in zip(learners, counts, offsets, strict=True)
        ]
        self.order_here = torch.stack(orders)  # to look captions up without waiting for the device
        self.order = self.order_here.to(base.device)
        self.seeds = sorted({learner.seed for learner in learners})
        self.every_seed = [learner.seed for learner in learners]
        self.seed_of = torch.tensor([self.seeds.index(seed) for seed in self.every_seed])
        prompts = [recipe.prompt] * recipe.train_batch_size
        self.prior = None
        if prior is not None:
            self.prior = prior.to(base.device)
            order = image_order(recipe, recipe.seed, "class", len(prior.mean))
            self.prior_order = order.to(base.device)
            prompts += [recipe.class_prompt] * recipe.train_batch_size
        self.plain_text = base.encode_prompts(prompts).repeat(self.K, 1, 1)

    def losses(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return every subject's loss "k" on its own images, and on those of the class."""
        b = self.recipe.train_batch_size
        parts = [self._of_subjects(step)]
        if self.prior is not None:
            shared = self._of_class(self.prior, step)
            parts.append(tuple(x.expand(self.K, *x.shape) for x in shared))
        # "k 2b …", a subject's samples together: the order that the adapter likes best
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
        b = self.recipe.train_batch_size
        others = [self.recipe.class_prompt] * (0 if self.prior is None else b)
        prompts = []
        for seed, images in zip(self.every_seed, self.order_here[:, step].tolist(), strict=True):
            captions = [self.latents.captions[image] for image in images]
            prompts += [*draw_prompts(self.recipe, seed, step, captions), *others]
        return self.base.encode_prompts(prompts)

    def _of_subjects(self, step: int) -> tuple[Tensor, ...]:
        """Return latents, noise, timesteps and masks "k b …" of the subjects' own images."""
        drawn = [draw_chance(self.base, self.recipe, s, "subject", step) for s in self.seeds]
        chance = [
            torch.stack([getattr(c, name) for c in drawn])[self.seed_of].to(self.base.device)
            for name in ("timesteps", "noise", "posterior")
        ]
        return self.latents.select(self.order[:, step], *chance)

    def _of_class(self, prior: Latents, step: int) -> tuple[Tensor, ...]:
        """Return the same "b …" of the class, which is the same for all subjects."""
        c = draw_chance(self.base, self.recipe, self.recipe.seed, "class", step)
        chance = (x.to(self.base.device) for x in (c.timesteps, c.noise, c.posterior))
        return prior.select(self.prior_order[step], *chance)


def _begin(
    base: Base, layout: WeightLayout, recipe: DreamBoothConfig, learners: Sequence[Learner]
) -> tuple[int, Tensor, torch.optim.Optimizer, Tensor, Tensor]:
    """Return the state before the first step: step, weights, optimiser, alive, loss at the end."""
    seeds = {learner.seed for learner in learners}
    rows = {seed: start_weights(base, layout, recipe, seed) for seed in seeds}
    weights = torch.stack([rows[learner.seed] for learner in learners]).to(base.device)
    weights.requires_grad_()
    optimiser = optimiser_for(weights, layout, recipe)
    alive = torch.ones(len(learners), dtype=torch.bool, device=base.device)
    return 0, weights, optimiser, alive, torch.zeros(len(learners), device=base.device)


def _checkpoint(
    step: int, weights: Tensor, optimiser: torch.optim.Optimizer, alive: Tensor, final_loss: Tensor
) -> dict[str, Tensor]:
    moments = optimiser.state[weights]
    return {
        "step": torch.tensor(step),
        "weights": weights.detach(),
        "exp_avg": moments["exp_avg"],
        "exp_avg_sq": moments["exp_avg_sq"],
        "alive": alive,
        "final_loss": final_loss,
    }


def _restore(
    found: dict[str, Tensor],
    weights: Tensor,
    optimiser: torch.optim.Optimizer,
    alive: Tensor,
    final_loss: Tensor,
) -> int:
    """Put a checkpoint back into the state; give the step to go on with."""
    with torch.no_grad():
        weights.copy_(found["weights"])
        alive.copy_(found["alive"])
        final_loss.copy_(found["final_loss"])
    device = "cpu" if optimiser.defaults.get("fused") is False else weights.device
    optimiser.state[weights] = {
        "step": found["step"].to(device, torch.float32),
        "exp_avg": found["exp_avg"].to(weights.device),
        "exp_avg_sq": found["exp_avg_sq"].to(weights.device),
    }
    return int(found["step"])


def _settle(
    learners: Sequence[Learner],
    rows: Tensor,
    alive: Sequence[bool],
    final_loss: Sequence[float],
    run: str,
) -> Trained:
    kept = [i for i in range(len(learners)) if alive[i]]
    info = [
        {"loss": float(f"{final_loss[i]:.6g}"), "images": len(learners[i].latents.mean)}
        for i in kept
    ]
    failed = {learners[i].name: _BROKEN for i in range(len(learners)) if not alive[i]}
    return Trained([learners[i].name for i in kept], rows[kept], info, failed, run)


def _run_key(
    base: Base,
    layout: WeightLayout,
    recipe: DreamBoothConfig,
    learners: Sequence[Learner],
    prior: Latents | None,
) -> str:
    """Return the key of a group's checkpoint: all that the outcome depends on."""
    members = [(one.name, one.latents.digest, *one.latents.captions) for one in learners]
    prior_digest = "" if prior is None else prior.digest
    network = (base.hash, str(base.dtype), base.device.type, layout.hash)
    return cache_key("runs", network, asdict(recipe), members, prior_digest)


@contextmanager
def told_if_too_large(base: Base, what: str) -> Iterator[None]:
    """Turn a full memory inside into a W2WError about what is worked on at once: "8 subjects"."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{what} at once do not fit into the memory of {base.device}; give a smaller group,"
            " fewer samples or images per step, or load the base with dtype bfloat16"
        ) from error
