"""The training loop: K subjects as K rows of one parameter, for all steps."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._cache import Cache, cache_key
from .._config import learning_rate_at
from .._memory import out_of_memory_explained
from ..adapter import adapt
from ..bases import Base
from ..layout import WeightLayout
from ._batches import Batches
from ._config import DreamBoothConfig
from ._latents import Latents
from ._progress import ProgressLog
from ._start import start_weights

CHECKPOINT_SECONDS = 60.0
"""How much work on a batch of subjects an interruption may cost."""

_FINAL_PART = 0.1  # of the steps, over which a subject's reported loss is averaged

_DIVERGED = "its loss became infinite or NaN; check its images or lower the learning rate"


class Trained(NamedTuple):
    """The outcome of training a batch of subjects.

    Attributes:
        learned: name → weights "d" on the CPU, and the final loss and number of images.
        failed: name → reason of the others.
        run: key of the checkpoint, to be deleted once the weights are stored.
    """

    learned: dict[str, tuple[Tensor, dict[str, Any]]]
    failed: dict[str, str]
    run: str


def train_batch(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    subjects: Mapping[str, Latents],
    prior: Latents | None,
    cache: Cache,
    log: ProgressLog,
) -> Trained:
    """Train K subjects at once, from their last checkpoint in the cache if there is one.

    Raises:
        ResourceError: K subjects do not fit into the device's memory.
    """
    run = _run_key(base, layout, config, subjects, prior)
    state = _State(base, layout, config, list(subjects))
    if found := cache.load(run):
        state.restore(found)
    weights, optimiser = state.weights, state.optimiser
    final_steps = max(1, round(_FINAL_PART * config.steps))
    batches = Batches(base, config, list(subjects.values()), prior)
    log.begin(list(subjects), state.step)
    saved = time.monotonic()
    with (
        out_of_memory_explained(base, f"{len(subjects)} subjects"),
        base.gradient_checkpointing(config.gradient_checkpointing),
        adapt(base.denoiser, layout, weights),
    ):
        for step in range(state.step, config.steps):
            loss, prior_loss = batches.losses(step)
            total = loss if prior_loss is None else loss + config.prior_loss_weight * prior_loss
            (weights.grad,) = torch.autograd.grad(total.sum(), weights)
            state.alive &= torch.isfinite(total.detach())
            state.alive &= _clip_rows(weights.grad, config.max_grad_norm)
            weights.grad.masked_fill_(~state.alive[:, None], 0)  # a diverged row stands still
            optimiser.param_groups[0]["lr"] = learning_rate_at(config, step)
            optimiser.step()
            if step >= config.steps - final_steps:
                state.final_loss += loss.detach() / final_steps
            log.step(step, loss, prior_loss, state.alive)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                cache.save(run, state.checkpoint(step + 1))
                saved = time.monotonic()
    rows = weights.detach().cpu()
    for _, _, B in layout.slices():
        rows[:, B] *= config.scale
    alive = state.alive.cpu() & torch.isfinite(rows).all(1)
    outcome = zip(subjects.items(), rows, alive.tolist(), state.final_loss.tolist(), strict=True)
    done = Trained({}, {}, run)
    for (name, latents), row, good, final_loss in outcome:
        if good:
            info = {"loss": float(f"{final_loss:.6g}"), "images": len(latents.mean)}
            done.learned[name] = (row, info)
        else:
            done.failed[name] = _DIVERGED
    return done


def _clip_rows(gradient: Float[Tensor, "k d"], max_norm: float | None) -> Bool[Tensor, "k"]:
    """Clip the norm of every row, in place; return which rows are finite."""
    norms = gradient.norm(dim=1)
    if max_norm is not None:
        gradient.mul_((max_norm / (norms + 1e-6)).clamp(max=1.0)[:, None])
    return torch.isfinite(norms)


class _State:
    """Everything that a step changes, of K subjects.

    Attributes:
        step: the next one.
        weights: the leaf "k d".
        optimiser: of the weights.
        alive: which rows have not diverged.
        final_loss: mean loss of each row over the last steps.
    """

    def __init__(
        self, base: Base, layout: WeightLayout, config: DreamBoothConfig, names: Sequence[str]
    ):
        K, differing = len(names), names if config.start == "own" else names[:1]
        start = torch.stack([start_weights(base, layout, config, name) for name in differing])
        self.step = 0
        self.weights = start.repeat(K // len(start), 1).to(base.device).requires_grad_()
        self.optimiser = torch.optim.AdamW(
            [self.weights],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=base.device.type != "mps",
        )
        self.alive = torch.ones(K, dtype=torch.bool, device=base.device)
        self.final_loss = torch.zeros(K, device=base.device)

    def checkpoint(self, step: int) -> dict[str, Tensor]:
        moments = self.optimiser.state[self.weights]
        return {
            "step": torch.tensor(step),
            "weights": self.weights,
            "exp_avg": moments["exp_avg"],
            "exp_avg_sq": moments["exp_avg_sq"],
            "alive": self.alive,
            "final_loss": self.final_loss,
        }

    @torch.no_grad()
    def restore(self, found: dict[str, Tensor]) -> None:
        for name in ("weights", "alive", "final_loss"):
            getattr(self, name).copy_(found[name])
        self.step = int(found["step"])
        device, fused = self.weights.device, self.optimiser.defaults["fused"]
        self.optimiser.state[self.weights] = {
            "step": found["step"].to(device if fused else "cpu", torch.float32),
            "exp_avg": found["exp_avg"].to(device),
            "exp_avg_sq": found["exp_avg_sq"].to(device),
        }


def _run_key(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    subjects: Mapping[str, Latents],
    prior: Latents | None,
) -> str:
    """Return the key of a checkpoint: everything the outcome depends on."""
    members = [(name, one.digest, *one.captions) for name, one in subjects.items()]
    prior_digest = "" if prior is None else prior.digest
    network = (base.hash, str(base.dtype), base.device.type, layout.hash)
    return cache_key("runs", network, asdict(config), members, prior_digest)
