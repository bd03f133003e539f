"""What a run reports while it runs: a progress bar for people, lines of JSON for programs."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._files import make_folder, readable_errors

_STEPS_PER_LINE = 20


class ProgressLog:
    """Progress of one call, counted in subject-steps; use it as a context manager.

    Args:
        path: file to append lines of JSON to, or None.
        subject_steps: total number, from which the bar estimates the time left.
        progress: show a bar on stderr.
    """

    def __init__(self, path: str | Path | None, subject_steps: int, progress: bool):
        from tqdm import tqdm

        self._path = None if path is None else Path(path)
        if self._path:
            make_folder(self._path.parent)
            with readable_errors("write", self._path):
                self._path.touch()
        self._bar = tqdm(
            total=subject_steps,
            unit=" subject-steps",
            unit_scale=True,
            disable=not progress,
            mininterval=0.5,
        )
        self._names: Sequence[str] = ()
        self._losses: list[Tensor] = []

    def __enter__(self) -> "ProgressLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, names: Sequence[str], step: int) -> None:
        """Report that a batch of subjects starts at, or resumes from, a step."""
        self._names, self._losses, self._since = names, [], time.perf_counter()
        self._bar.unpause()  # encoding and class images do not count towards the rate
        self._bar.update(step * len(names))
        self._write(event="begin", subjects=list(names), step=step)

    def step(self, step: int, loss: Tensor, prior_loss: Tensor | None, alive: Tensor) -> None:
        """Report the losses "k" of a step; they are read from the device once in 20 steps."""
        prior = torch.zeros_like(loss) if prior_loss is None else prior_loss
        self._losses.append(torch.stack([loss.detach(), prior.detach()]))
        self._bar.update(len(self._names))
        if (step + 1) % _STEPS_PER_LINE:
            return
        own, of_class = torch.stack(self._losses)[..., alive].mean((0, 2)).tolist()
        seconds = time.perf_counter() - self._since
        facts: dict[str, Any] = {"loss": _finite(own)}
        if prior_loss is not None:
            facts["prior_loss"] = _finite(of_class)
        facts["failed"] = int((~alive).sum())
        facts["subject_steps_per_second"] = len(self._losses) * len(self._names) / seconds
        self._bar.set_postfix(loss=f"{own:.4f}", refresh=False)
        self._write(event="step", step=step + 1, **facts)
        self._losses, self._since = [], time.perf_counter()

    def end(self, stored: Sequence[str], failed: Mapping[str, str], skipped: int) -> None:
        """Report the outcome of a batch, and how many subject-steps were not needed."""
        self._bar.update(skipped)
        for name, reason in failed.items():
            if not self._bar.disable:
                self._bar.write(f"{name}: {reason}", file=self._bar.fp)
            self._write(event="failed", subject=name, reason=reason)
        self._write(event="stored", subjects=list(stored))

    def _write(self, **facts: Any) -> None:
        if self._path:
            line = json.dumps({**facts, "time": round(time.time(), 3)}, ensure_ascii=False)
            with readable_errors("write", self._path), self._path.open("a", encoding="utf-8") as f:
                f.write(line + "\n")


def _finite(value: float) -> float | None:
    """Return null for NaN, the mean loss of a batch in which every subject failed."""
    return value if math.isfinite(value) else None
