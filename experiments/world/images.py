"""Images to train and check the world's networks on, drawn once and kept as arrays.

A population is named by a seed and its subjects are numbered. The base, the scorers and the checks
use different populations, so that nothing is measured on what it was trained on.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .kinds import KINDS

BASE_POPULATION, SCORER_POPULATION, CHECK_POPULATION = 1, 2, 3
_SUBJECTS_PER_CHUNK = 500


@dataclass(frozen=True)
class Images:
    """Images of one population.

    Attributes:
        images: uint8 (n, size, size, 3).
        subjects: int64 (n,), the index of the subject in each image.
        labels: bool (n, labels).
        captions: several captions per image.
    """

    images: np.ndarray
    subjects: np.ndarray
    labels: np.ndarray
    captions: list[list[str]]


def draw_images(
    kind: str,
    population: int,
    subjects: int,
    *,
    first: int = 0,
    images: int = 1,
    captions: int = 0,
    size: int = 64,
    folder: Path | None = None,
    workers: int | None = None,
) -> Images:
    """Draw subjects of a population, or load what an earlier call has drawn.

    Args:
        kind: "people" or "dogs".
        population: different populations share nobody.
        subjects: number of subjects.
        first: index of the first one.
        images: images per subject.
        captions: captions per image.
        size: pixels per side.
        folder: where chunks are kept so that an interrupted call can continue; None keeps nothing.
        workers: number of processes; None uses one per core.
    """
    draw = partial(
        _draw_chunk,
        kind=kind,
        population=population,
        images=images,
        captions=captions,
        size=size,
        folder=folder,
    )
    end = first + subjects
    starts = range(first, end, _SUBJECTS_PER_CHUNK)
    counts = [min(_SUBJECTS_PER_CHUNK, end - start) for start in starts]
    if len(starts) == 1:
        chunks = [draw(first, subjects)]
    else:
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            chunks = list(pool.map(draw, starts, counts))
    return Images(
        images=np.concatenate([chunk.images for chunk in chunks]),
        subjects=np.concatenate([chunk.subjects for chunk in chunks]),
        labels=np.concatenate([chunk.labels for chunk in chunks]),
        captions=[texts for chunk in chunks for texts in chunk.captions],
    )


def _draw_chunk(
    start: int,
    count: int,
    *,
    kind: str,
    population: int,
    images: int,
    captions: int,
    size: int,
    folder: Path | None,
) -> Images:
    path = None
    if folder is not None:
        path = folder / f"{kind}-{population}-{start}-{count}-{images}-{captions}-{size}.npz"
        if path.exists():
            return _load_chunk(path)
    world, caption = KINDS[kind].world, KINDS[kind].caption
    drawn, labels, texts = [], [], []
    for index in range(start, start + count):
        subject = world.subject(population, index)
        for number in range(images):
            image = world.image(population, index, number)
            rng = np.random.default_rng((population, index, number, 99))
            drawn.append(world.draw(subject, image, size))
            labels.append(list(world.labels(subject).values()))
            texts.append([caption(subject, image, rng) for _ in range(captions)])
    chunk = Images(
        images=np.stack(drawn),
        subjects=np.repeat(np.arange(start, start + count), images),
        labels=np.array(labels, dtype=bool),
        captions=texts,
    )
    if path is not None:
        _save_chunk(path, chunk)
    return chunk


def _save_chunk(path: Path, chunk: Images) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with draft.open("wb") as file:
        np.savez(
            file,
            images=chunk.images,
            subjects=chunk.subjects,
            labels=chunk.labels,
            captions=np.frombuffer(json.dumps(chunk.captions).encode(), dtype=np.uint8),
        )
    draft.replace(path)


def _load_chunk(path: Path) -> Images:
    with np.load(path, allow_pickle=False) as stored:
        return Images(
            images=stored["images"],
            subjects=stored["subjects"],
            labels=stored["labels"],
            captions=json.loads(stored["captions"].tobytes().decode()),
        )
