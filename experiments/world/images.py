"""Images to train and check the world's networks on, drawn once and kept as arrays.

A population is named by a seed and its people are numbered. The base, the scorers and the checks
use different populations, so that nothing is measured on what it was trained on.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from weights2weights.worlds.people import PEOPLE

from .captions import caption

BASE_POPULATION, SCORER_POPULATION, CHECK_POPULATION = 1, 2, 3
_SUBJECTS_PER_CHUNK = 500


@dataclass(frozen=True)
class Images:
    """Images of one population.

    Attributes:
        images: uint8 (n, size, size, 3).
        subjects: int64 (n,), the index of the person in each image.
        labels: bool (n, labels).
        captions: several captions per image.
    """

    images: np.ndarray
    subjects: np.ndarray
    labels: np.ndarray
    captions: list[list[str]]


def draw_images(
    population: int,
    subjects: int,
    *,
    images: int = 1,
    captions: int = 0,
    size: int = 64,
    folder: Path | None = None,
    workers: int | None = None,
) -> Images:
    """Draw the first people of a population, or load what an earlier call has drawn.

    Args:
        population: different populations share nobody.
        subjects: number of people.
        images: images per person.
        captions: captions per image.
        size: pixels per side.
        folder: where chunks are kept so that an interrupted call can continue; None keeps nothing.
        workers: number of processes; None uses one per core.
    """
    draw = partial(
        _draw_chunk,
        population=population,
        images=images,
        captions=captions,
        size=size,
        folder=folder,
    )
    starts = range(0, subjects, _SUBJECTS_PER_CHUNK)
    counts = [min(_SUBJECTS_PER_CHUNK, subjects - start) for start in starts]
    if len(starts) == 1:
        chunks = [draw(0, subjects)]
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
    population: int,
    images: int,
    captions: int,
    size: int,
    folder: Path | None,
) -> Images:
    path = None
    if folder is not None:
        path = folder / f"people-{population}-{start}-{count}-{images}-{captions}-{size}.npz"
        if path.exists():
            return _load_chunk(path)
    drawn, labels, texts = [], [], []
    for index in range(start, start + count):
        person = PEOPLE.subject(population, index)
        for number in range(images):
            image = PEOPLE.image(population, index, number)
            rng = np.random.default_rng((population, index, number, 99))
            drawn.append(PEOPLE.draw(person, image, size))
            labels.append(list(PEOPLE.labels(person).values()))
            texts.append([caption(person, image, rng) for _ in range(captions)])
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
