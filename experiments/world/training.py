"""The training loop of all networks of the world: resumable, with averaged weights."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_CHECKPOINT_SECONDS = 240
_LOG_STEPS = 100
_AVERAGE_DECAY = 0.999


class TimeIsUp(Exception):
    """The time limit of a call was reached; the next call continues."""


def train_networks(
    networks: nn.ModuleDict,
    loss_of: Callable[[torch.Generator], Tensor],
    *,
    folder: Path,
    steps: int,
    learning_rate: float,
    batch: int,
    minutes: float = math.inf,
    weight_decay: float = 1e-3,
) -> Any:
    """Minimise a loss with AdamW and return the exponential moving average of the networks.

    The learning rate warms up over 200 steps, stays constant for 40 % of the steps, then decays
    along a cosine. Batches and noise come from a generator seeded by the step, so an interrupted
    run ends as if it had never stopped.

    Args:
        networks: the networks to train, in place.
        loss_of: generator → scalar loss of one batch; it applies autocast itself.
        folder: holds `checkpoint.pt`, `log.jsonl` and, after the last step, `average.pt`.
        steps: number of steps in total.
        learning_rate: peak learning rate.
        batch: samples per step, for the log.
        minutes: stop with a checkpoint after this time.
        weight_decay: weight decay of AdamW.

    Returns:
        The averaged networks in evaluation mode, by name.

    Raises:
        TimeIsUp: before the last step; the same call continues.
    """
    folder.mkdir(parents=True, exist_ok=True)
    average = AveragedModel(networks, multi_avg_fn=_follow).eval().requires_grad_(False)
    averaged: Any = average.module
    if (folder / "average.pt").exists():
        averaged.load_state_dict(_load(folder / "average.pt"))
        return averaged
    device = next(networks.parameters()).device
    optimizer = torch.optim.AdamW(
        networks.parameters(),
        lr=learning_rate,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=True,
    )
    stateful = {"networks": networks, "average": average, "optimizer": optimizer}
    first = _resume(folder / "checkpoint.pt", stateful)
    generator = torch.Generator(device)
    started = saved = time.monotonic()
    losses = torch.zeros((), device=device)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        generator.manual_seed(step)
        loss = loss_of(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(networks)
        losses += loss.detach()
        done = step + 1
        if done % _LOG_STEPS == 0:
            speed = (done - first) * batch / (time.monotonic() - started)
            _log(folder, done, steps, losses.item() / _LOG_STEPS, batch, speed)
            losses.zero_()
        now = time.monotonic()
        late = now - started > 60 * minutes
        if late or now - saved > _CHECKPOINT_SECONDS:
            state = {name: part.state_dict() for name, part in stateful.items()}
            save_atomically({**state, "step": done}, folder / "checkpoint.pt")
            saved = now
        if late:
            raise TimeIsUp
    save_atomically(averaged.state_dict(), folder / "average.pt")
    return averaged


def _resume(checkpoint: Path, stateful: dict[str, Any]) -> int:
    """Load a checkpoint if there is one, and return the step to begin with."""
    if not checkpoint.exists():
        return 0
    stored = _load(checkpoint)
    for name, part in stateful.items():
        part.load_state_dict(stored[name])
    return stored["step"]


def _schedule(step: int, steps: int) -> float:
    done = step / steps
    decay = 1.0 if done < 0.4 else 0.5 * (1 + math.cos(math.pi * (done - 0.4) / 0.6))
    return min(1.0, (step + 1) / 200) * max(decay, 0.01)


def _follow(averages: Sequence[Tensor], networks: Sequence[Tensor], step: Tensor | int) -> None:
    """Move averages towards the networks, faster in early steps, which are soon forgotten."""
    step = int(step)
    decay = min(_AVERAGE_DECAY, (step + 1) / (step + 10))
    for average, current in zip(averages, networks, strict=True):
        average.lerp_(current, 1 - decay)


def _log(folder: Path, step: int, steps: int, loss: float, batch: int, speed: float) -> None:
    row = {
        "step": step,
        "loss": round(loss, 5),
        "samples_per_second": round(speed, 1),
        "minutes_left": round((steps - step) * batch / speed / 60, 1),
    }
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def save_atomically(state: Any, path: Path) -> None:
    """Write tensors for `torch.load` to a temporary file, then rename it."""
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
