"""Images to learn a world from: drawn once, in parallel, and kept as plain arrays.

Subjects of one population are numbered; populations are named by a seed. The base, the scorers and
the evaluations use different populations, so nothing is measured on what it was trained on.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weights2weights.worlds import load_world

BASE_POPULATION, SCORER_POPULATION, CHECK_POPULATION = 1, 2, 3
_SUBJECTS_PER_CHUNK = 500


@dataclass(frozen=True)
class Images:
    """Drawn images of one population.

    Attributes:
        images: uint8 (n, size, size, 3).
        subjects: int64 (n,), the number of the subject in each image.
        labels: bool (n, labels).
        captions: for each image several descriptions.
    """

    images: np.ndarray
    subjects: np.ndarray
    labels: np.ndarray
    captions: list[list[str]]


def draw_images(
    world: str,
    population: int,
    subjects: int,
    *,
    images: int = 1,
    captions: int = 0,
    size: int = 64,
    folder: Path | None = None,
    workers: int | None = None,
) -> Images:
    """Draw the first subjects of a population, or read them where they were drawn before.

    Args:
        world: name of the world.
        population: its number; different populations share no subject.
        subjects: how many subjects, from number 0 on.
        images: images of each subject.
        captions: descriptions of each image.
        size: pixels per side.
        folder: where chunks are kept, so that an interrupted drawing goes on; None keeps nothing.
        workers: processes; None takes one per core.
    """
    starts = range(0, subjects, _SUBJECTS_PER_CHUNK)
    jobs = [
        (
            world,
            population,
            start,
            min(_SUBJECTS_PER_CHUNK, subjects - start),
            images,
            captions,
            size,
            folder,
        )
        for start in starts
    ]
    if len(jobs) == 1:
        chunks = [_draw_chunk(jobs[0])]
    else:
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            chunks = list(pool.map(_draw_chunk, jobs))
    return Images(
        images=np.concatenate([chunk.images for chunk in chunks]),
        subjects=np.concatenate([chunk.subjects for chunk in chunks]),
        labels=np.concatenate([chunk.labels for chunk in chunks]),
        captions=[texts for chunk in chunks for texts in chunk.captions],
    )


def _draw_chunk(job: tuple[str, int, int, int, int, int, int, Path | None]) -> Images:
    name, population, start, count, images, captions, size, folder = job
    path = None
    if folder is not None:
        path = folder / f"{name}-{population}-{start}-{count}-{images}-{captions}-{size}.npz"
        if path.exists():
            return _read_chunk(path)
    world = load_world(name)
    drawn, labels, texts = [], [], []
    for index, number, subject, image in _scenes(name, population, start, count, images):
        rng = np.random.default_rng((population, index, number, 99))
        drawn.append(world.draw(subject, image, size))
        labels.append(list(world.labels(subject).values()))
        texts.append([world.caption(subject, image, rng) for _ in range(captions)])
    chunk = Images(
        images=np.stack(drawn),
        subjects=np.repeat(np.arange(start, start + count), images),
        labels=np.array(labels, dtype=bool),
        captions=texts,
    )
    if path is not None:
        _write_chunk(path, chunk)
    return chunk


def _scenes(name: str, population: int, start: int, count: int, images: int) -> Iterator[tuple]:
    world = load_world(name)
    for index in range(start, start + count):
        subject = world.subject(population, index)
        for number in range(images):
            yield index, number, subject, world.image(population, index, number)


def _write_chunk(path: Path, chunk: Images) -> None:
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


def _read_chunk(path: Path) -> Images:
    with np.load(path, allow_pickle=False) as stored:
        return Images(
            images=stored["images"],
            subjects=stored["subjects"],
            labels=stored["labels"],
            captions=json.loads(stored["captions"].tobytes().decode()),
        )
