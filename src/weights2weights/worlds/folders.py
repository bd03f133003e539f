"""A drawn population as ordinary files: a folder of pictures per subject and a table of labels."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from . import load_world
from .pictures import USER_POPULATIONS


def write_subjects(
    world: str, out: Path, *, subjects: int, pictures: int, size: int = 128, seed: int = 0
) -> Iterable[int]:
    """Draw subjects into `out/<world>-<seed>-<number>/<picture>.png` and their labels into a table.

    Beside each picture `<picture>.txt` says what it shows besides the subject.

    Subjects of one seed are always the same, however many are drawn; no seed gives a subject that
    the base or the scorers were trained on. `labels.csv` has a row per subject: its folder's name
    and 0 or 1 for each label.

    Yields:
        how many subjects are written so far, for a progress bar.
    """
    drawn = load_world(world)
    population = USER_POPULATIONS + seed
    rows = []
    for index in range(subjects):
        subject = drawn.subject(population, index)
        folder = out / f"{world}-{seed}-{index:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(pictures):
            picture = drawn.picture(population, index, number)
            Image.fromarray(drawn.draw(subject, picture, size)).save(folder / f"{number:03d}.png")
            text = drawn.surroundings(picture) + "\n"
            (folder / f"{number:03d}.txt").write_text(text, encoding="utf-8")
        held = drawn.labels(subject)
        rows.append([folder.name, *(int(held[name]) for name in drawn.label_names)])
        yield index + 1
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["subject", *drawn.label_names], *rows])


def draw_grid(
    world: str, *, rows: int, columns: int, size: int = 128, seed: int = 0, same: bool = False
) -> Image.Image:
    """Draw a sheet of pictures: every cell another subject, or with `same` one subject per row."""
    drawn = load_world(world)
    population = USER_POPULATIONS + seed
    lines = []
    for row in range(rows):
        cells = [
            (row, column) if same else (row * columns + column, 0) for column in range(columns)
        ]
        images = [
            drawn.draw(drawn.subject(population, index), drawn.picture(population, index, n), size)
            for index, n in cells
        ]
        lines.append(np.concatenate(images, axis=1))
    return Image.fromarray(np.concatenate(lines))
