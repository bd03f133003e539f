"""What a run reports while it runs: a progress bar for people, lines of JSON for programs."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .._files import make_folder, readable_errors
from .._json import plain

_STEPS_PER_LINE = 20


class ProgressLog:
    """Progress of one call, counted in subject-steps; use it as a context manager.

    Args:
        path: file to append lines of JSON to, or None.
        total: number of subject-steps, from which the bar estimates the time left.
        progress: show a bar on stderr.
    """

    def __init__(self, path: str | Path | None, total: int, progress: bool):
        self._path = Path(path) if path else None
        if self._path:
            make_folder(self._path.parent)
            self._append("")  # fails now rather than after the first steps
        self._bar = tqdm(total=total, unit=" subject-steps", unit_scale=True, disable=not progress)
        self._losses: list[Tensor] = []

    def __enter__(self) -> "ProgressLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, names: Sequence[str], step: int) -> None:
        """Report that a batch of subjects starts at, or resumes from, a step."""
        self._losses, self._since = [], time.perf_counter()
        self._bar.unpause()  # encoding and class images do not count towards the rate
        self._bar.update(step * len(names))
        self._write("begin", subjects=names, step=step)

    def step(self, step: int, loss: Tensor, prior_loss: Tensor | None, alive: Tensor) -> None:
        """Report the losses "k" of a step; they are read from the device once in 20 steps."""
        losses = {"loss": loss} | ({} if prior_loss is None else {"prior_loss": prior_loss})
        self._losses.append(torch.stack([*losses.values()]).detach())
        self._bar.update(len(loss))
        if (step + 1) % _STEPS_PER_LINE:
            return
        means = torch.stack(self._losses)[..., alive].mean((0, 2)).tolist()
        rate = len(self._losses) * len(loss) / (time.perf_counter() - self._since)
        facts = dict(zip(losses, means, strict=True)) | {"failed": int((~alive).sum())}
        self._bar.set_postfix(loss=f"{means[0]:.4f}", refresh=False)
        self._write("step", step=step + 1, **facts, subject_steps_per_second=rate)
        self._losses, self._since = [], time.perf_counter()

    def failed(self, reasons: Mapping[str, str], skipped: int = 0) -> None:
        """Report why subjects failed, and how many subject-steps were not needed for that."""
        self._bar.update(skipped)
        for name, reason in reasons.items():
            if not self._bar.disable:
                self._bar.write(f"{name}: {reason}", file=self._bar.fp)
            self._write("failed", subject=name, reason=reason)

    def stored(self, names: Sequence[str]) -> None:
        """Report that the models of a batch were stored."""
        self._write("stored", subjects=names)

    def _write(self, event: str, **facts: Any) -> None:
        facts = plain({"event": event, **facts, "time": round(time.time(), 3)})
        self._append(json.dumps(facts, ensure_ascii=False) + "\n")

    def _append(self, text: str) -> None:
        if self._path:
            with readable_errors("write", self._path), self._path.open("a", encoding="utf-8") as f:
                f.write(text)
