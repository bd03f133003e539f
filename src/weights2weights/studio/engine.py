"""The engine: images and inversions of many people at once, in shared batches.

Requests wait a few milliseconds for company. A batch holds requests of one kind (the same steps and
guidance), whoever sent them, oldest first; each sample runs through its own LoRA. The newest
request of an owner replaces the older ones, which fail with `Superseded`. Batches always have the
same size, filled up where requests are few, since a network rounds differently in batches of
another size: the same request gives the same bits, alone or in company.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bases import Base
from ..bases.sd import StableDiffusion
from ..errors import ResourceError, W2WError
from ..generation import generate_each
from ..inversion import PRESETS, invert
from ..space import WeightSpace

WAIT = 0.004
"""Seconds that a first request waits for others: a hundredth of an image."""

MOST_WAITING = 1000
"""Requests that may wait; further ones are refused."""

MOST_OF_ONE = 32
"""Requests of one session that may wait."""


class Superseded(W2WError):
    """A newer request of the same owner came before this one was done."""


@dataclass(frozen=True)
class Drawing:
    """One image to draw.

    Attributes:
        weights: "d", of the model.
        prompt: what to draw.
        seed: of the initial noise.
        steps: sampling steps.
        guidance: scale of classifier-free guidance.
        inject_at: timestep at and below which the model acts, or None: always.
        original: "d", the model before its edit, which acts above `inject_at`.
    """

    weights: Tensor
    prompt: str
    seed: int
    steps: int = StableDiffusion.steps
    guidance: float = StableDiffusion.guidance
    inject_at: int | None = None
    original: Tensor | None = None


@dataclass(frozen=True)
class Photo:
    """One photo to invert.

    Attributes:
        image: PIL image.
        mask: PIL image of its size, white on the subject, or None.
        watch: called with the share that is done and the best point so far.
    """

    image: Any
    mask: Any = None
    watch: Callable[[float, Tensor], object] = lambda share, point: None


class Engine:
    """Draws and inverts for everybody; use as a context manager, or `close` it.

    Args:
        base: the base of the space; kept to this engine's thread until it is closed.
        space: of the inversions.
        batch_size: images in a batch; None is 4 for small images, of which one does not keep a
            processor busy, and else 1.
    """

    def __init__(self, base: Base, space: WeightSpace, batch_size: int | None = None):
        self.base, self.space = base, space
        small = math.prod(base.latent_shape[1:]) <= 1024
        # people base on 2 cores, seconds per image at 1, 4, 16: 0.64, 0.31, 0.30
        self.batch_size = batch_size or (4 if small else 1)
        self.drawing = Batches(self._draw, self.batch_size)
        self.inverting = Batches(self._invert, 8)
        self._inverter = base.twin()

    def draw(
        self, drawings: Sequence[Drawing], session: Hashable = None, slot: str = ""
    ) -> "list[Future[np.ndarray]]":
        """Draw images, uint8 (h, w, 3), in place of what this session's slot asked for before.

        Args:
            drawings: what to draw.
            session: who asks; None replaces nothing.
            slot: what for; another slot of the same session waits its own turn.

        Raises:
            ResourceError: too many requests wait, of all or of this session.
        """
        kinds = [(d.steps, d.guidance, d.inject_at, d.original is None) for d in drawings]
        return self.drawing.submit(drawings, kinds, [d.steps for d in drawings], session, slot)

    def invert(self, photo: Photo, session: Hashable = None) -> "Future[Tensor]":
        """Find the point "m" of the person on a photo, in place of this session's last photo."""
        (found,) = self.inverting.submit([photo], ["photo"], [1], session, "photo")
        return found

    def close(self) -> None:
        """Refuse what waits and end the threads."""
        self.drawing.close()
        self.inverting.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _draw(self, drawings: Sequence[Drawing]) -> list[np.ndarray]:
        rows = [*drawings, *[drawings[0]] * (self.batch_size - len(drawings))]
        first, before = rows[0], [row.original for row in rows if row.original is not None]
        images = generate_each(
            self.base,
            torch.stack([row.weights for row in rows]),
            layout=self.space.layout,
            prompts=[row.prompt for row in rows],
            seeds=[row.seed for row in rows],
            steps=first.steps,
            guidance=first.guidance,
            inject_at=first.inject_at,
            original=torch.stack(before) if before else None,
            batch_size=self.batch_size,
        )
        return list(images[: len(drawings)].numpy())

    def _invert(self, photos: Sequence[Photo]) -> list[Tensor]:
        def watch(step: int, points: Tensor) -> None:
            for photo, point in zip(photos, points, strict=True):
                photo.watch(step / PRESETS["fast"].steps, point)

        images, masks = [photo.image for photo in photos], [photo.mask for photo in photos]
        found = invert(self._inverter, self.space, images, mask=masks, watch=watch)
        return list(found.points)


@dataclass(eq=False)
class _Job:
    item: Any
    kind: Hashable
    cost: int
    session: Hashable
    slot: str
    future: "Future[Any]" = field(default_factory=Future)


class Batches:
    """A queue of jobs that one thread runs in batches of one kind.

    Args:
        run: items → results, at most `size` at a time, all of one kind.
        size: of a batch, at most.
    """

    def __init__(self, run: Callable[[list[Any]], list[Any]], size: int):
        self._run, self._size = run, size
        self._changed, self._closed = threading.Condition(), False
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._seconds = 0.0  # for one unit of cost, a running mean
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(
        self,
        items: Sequence[Any],
        kinds: Sequence[Hashable],
        costs: Sequence[int],
        session: Hashable,
        slot: str,
    ) -> "list[Future[Any]]":
        """Add jobs; those of the same session and slot before them fail with `Superseded`."""
        jobs = [_Job(*row, session, slot) for row in zip(items, kinds, costs, strict=True)]
        with self._changed:
            if session is not None:
                self._drop(lambda job: (job.session, job.slot) == (session, slot))
            own = sum(job.session == session for job in self._waiting) if session else 0
            full = len(self._waiting) + len(jobs) > MOST_WAITING
            if self._closed or full or own + len(jobs) > MOST_OF_ONE:
                why = "the studio is closing" if self._closed else "too many requests are waiting"
                raise ResourceError(f"{why}; try again in a minute")
            self._waiting += jobs
            self._changed.notify_all()
        return [job.future for job in jobs]

    def forget(self, session: Hashable) -> None:
        """Drop all jobs of a session."""
        with self._changed:
            self._drop(lambda job: job.session == session)

    def seconds_left(self) -> float:
        """Estimate how long a request that comes now would wait."""
        with self._changed:
            return self._seconds * sum(job.cost for job in [*self._waiting, *self._running])

    def close(self) -> None:
        """Drop all jobs and end the thread."""
        with self._changed:
            self._closed = True
            self._drop(lambda job: True)
            self._changed.notify_all()
        self._thread.join()

    def _drop(self, which: Callable[[_Job], bool]) -> None:
        """Fail jobs; the batch that runs is not stopped, its result is not used."""
        for job in filter(which, [*self._waiting, *self._running]):
            _settle(job, Superseded("a newer request came"))
        self._waiting = [job for job in self._waiting if not which(job)]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._changed.wait_for(lambda: len(self._next()) == self._size, WAIT)
                self._running = self._next()
                self._waiting = [job for job in self._waiting if job not in self._running]
            if self._running:
                began = time.perf_counter()
                self._do(self._running)
                taken = time.perf_counter() - began
                each = taken / sum(job.cost for job in self._running)
                self._seconds += (each - self._seconds) * (0.2 if self._seconds else 1)
            self._running = []

    def _next(self) -> list[_Job]:
        return [job for job in self._waiting if job.kind == self._waiting[0].kind][: self._size]

    def _do(self, jobs: list[_Job]) -> None:
        try:
            results = self._run([job.item for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                _settle(jobs[0], error)
            else:  # so that only those fail that cannot be done
                for job in jobs:
                    self._do([job])
            return
        for job, result in zip(jobs, results, strict=True):
            _settle(job, result)


def _settle(job: _Job, result: Any) -> None:
    with suppress(Exception):  # it was superseded, or its client left
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
