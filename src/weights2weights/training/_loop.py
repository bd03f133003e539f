"""The training loop: K subjects as K rows of one parameter, for all steps."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._cache import Cache, cache_key
from .._config import learning_rate_at
from .._memory import out_of_memory_explained
from .._noise import derive_seed, initial_weights
from ..adapter import adapt
from ..bases import Base, find_start_file
from ..errors import InputError
from ..layout import WeightLayout
from ..models import load_model
from ._batches import Batches
from ._config import DreamBoothConfig
from ._latents import Latents
from ._progress import ProgressLog

CHECKPOINT_SECONDS = 60.0
"""How much work on a batch of subjects an interruption may cost."""

_FINAL_PART = 0.1  # of the steps, over which a subject's reported loss is averaged


def train_batch(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    subjects: Mapping[str, Latents],
    prior: Latents | None,
    cache: Cache,
    log: ProgressLog,
) -> dict[str, tuple[Float[Tensor, " d"], dict[str, Any]]]:
    """Train K subjects at once, from their last checkpoint in the cache if there is one.

    Returns:
        name → weights on the CPU, and the final loss and number of images; without the subjects
        whose loss became infinite or NaN.

    Raises:
        ResourceError: K subjects do not fit into the device's memory.
    """
    K, device, run = len(subjects), base.device, run_key(base, layout, config, subjects, prior)
    differing = list(subjects) if config.start == "own" else [""]
    starts = torch.stack([start_weights(base, layout, config, name) for name in differing])
    weights = starts.to(device).repeat(K // len(starts), 1).requires_grad_()
    optimiser = torch.optim.AdamW(
        [weights],
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=device.type != "mps",
    )
    alive = torch.ones(K, dtype=torch.bool, device=device)
    final_loss = torch.zeros(K, device=device)
    state = {"weights": weights.detach(), "alive": alive, "final_loss": final_loss}
    first_step = 0
    if moments := cache.load(run):
        for name, tensor in state.items():
            tensor.copy_(moments.pop(name))
        optimiser.load_state_dict(optimiser.state_dict() | {"state": {0: moments}})
        first_step = int(moments["step"])
    final_steps = max(1, round(_FINAL_PART * config.steps))
    batches = Batches(base, config, list(subjects.values()), prior)
    log.begin(list(subjects), first_step)
    saved = time.monotonic()
    with (
        out_of_memory_explained(base, f"{K} subjects"),
        base.gradient_checkpointing(config.gradient_checkpointing),
        adapt(base.denoiser, layout, weights),
    ):
        for step in range(first_step, config.steps):
            loss, prior_loss = batches.losses(step)
            total = loss if prior_loss is None else loss + config.prior_loss_weight * prior_loss
            (weights.grad,) = torch.autograd.grad(total.sum(), weights)
            alive &= torch.isfinite(total.detach()) & _clip_rows(weights.grad, config.max_grad_norm)
            weights.grad.masked_fill_(~alive[:, None], 0)  # a diverged row stands still
            optimiser.param_groups[0]["lr"] = learning_rate_at(config, step)
            optimiser.step()
            if step >= config.steps - final_steps:
                final_loss += loss.detach() / final_steps
            log.step(step, loss, prior_loss, alive)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                cache.save(run, state | optimiser.state[weights])
                saved = time.monotonic()
    rows = weights.detach().cpu()
    for _, _, B in layout.slices():
        rows[:, B] *= config.scale
    sound = (alive.cpu() & torch.isfinite(rows).all(1)).tolist()
    return {
        name: (row, {"loss": float(f"{loss:.6g}"), "images": len(latents.mean)})
        for (name, latents), row, loss, good in zip(
            subjects.items(), rows, final_loss.tolist(), sound, strict=True
        )
        if good
    }


def _clip_rows(gradient: Float[Tensor, "k d"], max_norm: float | None) -> Bool[Tensor, "k"]:
    """Clip the norm of every row, in place; return which rows are finite."""
    norms = gradient.norm(dim=1)
    if max_norm is not None:
        gradient.mul_((max_norm / (norms + 1e-6)).clamp(max=1.0)[:, None])
    return torch.isfinite(norms)


def run_key(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    subjects: Mapping[str, Latents],
    prior: Latents | None,
) -> str:
    """Return the key of a batch's checkpoint: everything the outcome depends on."""
    members = [(name, one.digest, *one.captions) for name, one in subjects.items()]
    network = (base.hash, str(base.dtype), base.device.type, layout.hash)
    return cache_key("runs", network, asdict(config), members, prior.digest if prior else "")


def start_weights(
    base: Base, layout: WeightLayout, config: DreamBoothConfig, name: str = ""
) -> Float[Tensor, " d"]:
    """Return the weights that the training of a subject starts with; B is zero.

    Raises:
        InputError: the settings ask for the base's own start, and it has none of this layout.
    """
    if config.start != "base":
        own = config.start == "own"
        return initial_weights(layout, derive_seed(config.seed, name) if own else config.seed)
    path = find_start_file(base)
    if path is None:
        raise InputError(
            f"base {base.id!r} has no LoRA to start from: expected start.safetensors in its folder;"
            " set start to random"
        )
    model = load_model(path)
    layout.require_equal(model.layout, f"{path}, where training starts; set start to random if not")
    if model.weights is None or model.base_hash != base.hash:
        raise InputError(f"{path} was made for another base than {base.id}; set start to random")
    return model.weights
