"""The training loop: K subjects as K rows of one parameter, for all steps."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._cache import Cache, cache_key
from .._config import learning_rate_at
from .._memory import out_of_memory_explained
from ..adapter import adapt
from ..bases import Base
from ..layout import WeightLayout
from ._batches import Batches, Learner
from ._config import DreamBoothConfig
from ._latents import Latents
from ._progress import ProgressLog
from ._start import start_weights

CHECKPOINT_SECONDS = 60.0
"""How much work on a batch of subjects an interruption may cost."""

_FINAL_PART = 0.1  # of the steps, over which a subject's reported loss is averaged

_DIVERGED = "its loss became infinite or NaN; check its images or lower the learning rate"


@dataclass(frozen=True)
class Trained:
    """The outcome of training a batch of subjects.

    Attributes:
        names: of the subjects that were learned.
        weights: their rows, on the CPU.
        info: for each its final loss and number of images.
        failed: name → reason of the others.
        run: key of the checkpoint, to be deleted once the rows are stored.
    """

    names: list[str]
    weights: Float[Tensor, "n d"]
    info: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)
    run: str = ""


def train_batch(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    learners: Sequence[Learner],
    prior: Latents | None,
    cache: Cache,
    log: ProgressLog,
) -> Trained:
    """Train K subjects at once, from their last checkpoint if there is one.

    Args:
        base: the model to fine-tune; left unchanged.
        layout: of the weights.
        config: the settings.
        learners: K subjects.
        prior: latents of the class, or None to train without prior preservation.
        cache: keeps checkpoints.
        log: receives every step.

    Raises:
        ResourceError: K subjects do not fit into the device's memory.
    """
    run = _run_key(base, layout, config, learners, prior)
    state = _State.begin(base, layout, config, len(learners))
    if found := cache.load(run):
        state.restore(found)
    weights, optimiser = state.weights, state.optimiser
    final_steps = max(1, round(_FINAL_PART * config.steps))
    batches = Batches(base, config, learners, prior)
    log.begin([learner.name for learner in learners], state.step)
    saved = time.monotonic()
    with (
        out_of_memory_explained(base, f"{len(learners)} subjects"),
        base.gradient_checkpointing(config.gradient_checkpointing),
        adapt(base.unet, layout, weights),
    ):
        for step in range(state.step, config.steps):
            loss, prior_loss = batches.losses(step)
            total = loss if prior_loss is None else loss + config.prior_loss_weight * prior_loss
            (weights.grad,) = torch.autograd.grad(total.sum(), weights)
            state.alive &= torch.isfinite(total.detach())
            state.alive &= clip_rows(weights.grad, config.max_grad_norm)
            weights.grad.masked_fill_(~state.alive[:, None], 0)  # a diverged row stands still
            optimiser.param_groups[0]["lr"] = learning_rate_at(config, step)
            optimiser.step()
            if step >= config.steps - final_steps:
                state.final_loss += loss.detach() / final_steps
            log.step(step, loss, prior_loss, state.alive)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                cache.save(run, state.checkpoint(step + 1))
                saved = time.monotonic()
    rows = scale_updates(layout, weights.detach().cpu(), config.scale)
    return _outcome(learners, rows, state, run)


def scale_updates(
    layout: WeightLayout, weights: Float[Tensor, "k d"], factor: float
) -> Float[Tensor, "k d"]:
    """Multiply every B, and so the update of every layer, in place."""
    if factor != 1:
        for _, _, B in layout.slices():
            weights[:, B] *= factor
    return weights


def clip_rows(gradient: Float[Tensor, "k d"], max_norm: float | None) -> Bool[Tensor, "k"]:
    """Clip the norm of every row, in place; return which rows are finite."""
    norms = gradient.norm(dim=1)
    if max_norm is not None:
        gradient.mul_((max_norm / (norms + 1e-6)).clamp(max=1.0)[:, None])
    return torch.isfinite(norms)


@dataclass
class _State:
    """Everything that a step changes.

    Attributes:
        step: the next one.
        weights: the leaf "k d".
        optimiser: of the weights.
        alive: which rows have not diverged.
        final_loss: mean loss of each row over the last steps.
    """

    step: int
    weights: Tensor
    optimiser: torch.optim.Optimizer
    alive: Tensor
    final_loss: Tensor

    @classmethod
    def begin(cls, base: Base, layout: WeightLayout, config: DreamBoothConfig, K: int) -> "_State":
        start = start_weights(base, layout, config)
        weights = start.repeat(K, 1).to(base.device).requires_grad_()
        optimiser = torch.optim.AdamW(
            [weights],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=base.device.type != "mps",
        )
        alive = torch.ones(K, dtype=torch.bool, device=base.device)
        return cls(0, weights, optimiser, alive, torch.zeros(K, device=base.device))

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

    def restore(self, found: dict[str, Tensor]) -> None:
        with torch.no_grad():
            self.weights.copy_(found["weights"])
        self.alive.copy_(found["alive"])
        self.final_loss.copy_(found["final_loss"])
        self.step = int(found["step"])
        fused = self.optimiser.defaults["fused"]
        self.optimiser.state[self.weights] = {
            "step": found["step"].to(self.weights.device if fused else "cpu", torch.float32),
            "exp_avg": found["exp_avg"].to(self.weights.device),
            "exp_avg_sq": found["exp_avg_sq"].to(self.weights.device),
        }


def _outcome(learners: Sequence[Learner], rows: Tensor, state: _State, run: str) -> Trained:
    learned = (state.alive.cpu() & torch.isfinite(rows).all(1)).tolist()
    kept = [i for i, good in enumerate(learned) if good]
    final_loss = state.final_loss.tolist()
    info = [
        {"loss": float(f"{final_loss[i]:.6g}"), "images": len(learners[i].latents.mean)}
        for i in kept
    ]
    names = [learner.name for learner in learners]
    failed = {name: _DIVERGED for name, good in zip(names, learned, strict=True) if not good}
    return Trained([names[i] for i in kept], rows[kept], info, failed, run)


def _run_key(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    learners: Sequence[Learner],
    prior: Latents | None,
) -> str:
    """Return the key of a checkpoint: everything the outcome depends on."""
    members = [(one.name, one.latents.digest, *one.latents.captions) for one in learners]
    prior_digest = "" if prior is None else prior.digest
    network = (base.hash, str(base.dtype), base.device.type, layout.hash)
    return cache_key("runs", network, asdict(config), members, prior_digest)
