"""The loop that trains every network of a world: interruptible, resumable, averaged."""

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

_CHECKPOINT_SECONDS = 240
_LOG_STEPS = 100
_AVERAGE_DECAY = 0.999


def train_networks(
    networks: nn.ModuleDict,
    loss_of: Callable[[torch.Generator], torch.Tensor],
    *,
    folder: Path,
    steps: int,
    learning_rate: float,
    batch: int,
    minutes: float = math.inf,
    weight_decay: float = 1e-3,
) -> nn.ModuleDict | None:
    """Minimise a loss with AdamW and give the exponential moving average of the networks.

    The learning rate warms up over 200 steps, stays for 40 % of the steps and falls by a cosine.
    Batches and noise come from a generator seeded by the step, so an interrupted run goes on as if
    it had never stopped.

    Args:
        networks: what is trained, in place.
        loss_of: generator → scalar loss of one batch; autocast is the loss's own business.
        folder: holds `checkpoint.pt`, `log.jsonl` and, once all steps are done, `average.pt`.
        steps: how many in all.
        learning_rate: the highest.
        batch: samples per step, for the log.
        minutes: stop with a checkpoint after this time.
        weight_decay: of AdamW.

    Returns:
        The averaged networks in evaluation mode, or None when the time was up before the last step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    average = copy.deepcopy(networks).eval().requires_grad_(False)
    if (folder / "average.pt").exists():
        average.load_state_dict(_load(folder / "average.pt"))
        return average
    device = next(networks.parameters()).device
    optimizer = torch.optim.AdamW(
        networks.parameters(),
        lr=learning_rate,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=True,
    )
    first = 0
    if (folder / "checkpoint.pt").exists():
        stored = _load(folder / "checkpoint.pt")
        networks.load_state_dict(stored["networks"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        first = stored["step"]
    generator = torch.Generator(device)
    started = saved = time.monotonic()
    losses = torch.zeros((), device=device)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _share_of_rate(step, steps)
        generator.manual_seed(step)
        loss = loss_of(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        _follow(average, networks, step)
        losses += loss.detach()
        done = step + 1
        if done % _LOG_STEPS == 0:
            rate = (done - first) * batch / (time.monotonic() - started)
            _log(folder, done, steps, losses.item() / _LOG_STEPS, batch, rate)
            losses.zero_()
        now = time.monotonic()
        late = now - started > 60 * minutes
        if late or now - saved > _CHECKPOINT_SECONDS:
            state = {
                "networks": networks.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": done,
            }
            save_whole(state, folder / "checkpoint.pt")
            saved = now
        if late:
            return None
    save_whole(average.state_dict(), folder / "average.pt")
    return average


def _share_of_rate(step: int, steps: int) -> float:
    done = step / steps
    cooled = 1.0 if done < 0.4 else 0.5 * (1 + math.cos(math.pi * (done - 0.4) / 0.6))
    return min(1.0, (step + 1) / 200) * max(cooled, 0.01)


@torch.no_grad()
def _follow(average: nn.Module, networks: nn.Module, step: int) -> None:
    decay = min(_AVERAGE_DECAY, (step + 1) / (step + 10))
    for held, current in zip(average.parameters(), networks.parameters(), strict=True):
        held.lerp_(current, 1 - decay)
    for held, current in zip(average.buffers(), networks.buffers(), strict=True):
        held.copy_(current)


def _log(folder: Path, step: int, steps: int, loss: float, batch: int, rate: float) -> None:
    row = {
        "step": step,
        "loss": round(loss, 5),
        "samples_per_second": round(rate, 1),
        "minutes_left": round((steps - step) * batch / rate / 60, 1),
    }
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def save_whole(state: Any, path: Path) -> None:
    """Write tensors for `torch.load` under another name first: a kill leaves no half of a file."""
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
