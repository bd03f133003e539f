"""A drawn population as ordinary files: a folder of images per subject and a table of labels."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .._files import readable_errors, write_atomic
from ..errors import InputError
from . import USER_POPULATIONS, load_world


def write_subjects(
    world: str,
    out: Path,
    *,
    subjects: int,
    images: int,
    size: int = 128,
    seed: int = 0,
    alike: bool = False,
    progress: bool = False,
) -> None:
    """Draw subjects into `out/<world>-<seed>-<number>/<image>.png` and their labels into a table.

    Beside each image `<image>.txt` says what it shows besides the subject.

    Subjects of one seed are always the same, however many are drawn; no seed gives a subject that
    the base or the scorers were trained on. `labels.csv` has a row per subject: its folder's name
    and 0 or 1 for each label. Rows of other subjects that it holds already stay.

    With `alike`, image n of every subject is taken in the same circumstances (those of subject
    0), so that nothing but the subject differs between two folders. Models that learn from them by
    the same chance differ by their subjects alone.

    Raises:
        W2WError: a label table is there that is not of this world.
    """
    drawn = load_world(world)
    population = USER_POPULATIONS + seed
    header = ["subject", *drawn.label_names]
    rows = _read_rows(out / "labels.csv", header)
    for index in tqdm(range(subjects), unit="subject", disable=not progress):
        subject = drawn.subject(population, index)
        folder = out / f"{world}-{seed}-{index:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            image = drawn.image(population, 0 if alike else index, number)
            Image.fromarray(drawn.draw(subject, image, size)).save(folder / f"{number:03d}.png")
            text = drawn.surroundings(image) + "\n"
            (folder / f"{number:03d}.txt").write_text(text, encoding="utf-8")
        held = drawn.labels(subject)
        rows[folder.name] = [folder.name, *(str(int(held[name])) for name in drawn.label_names)]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows.values()])
    write_atomic(out / "labels.csv", [table.getvalue().encode()])


def _read_rows(path: Path, header: Sequence[str]) -> dict[str, list[str]]:
    """Return the rows of a label table by subject; none if there is no table."""
    if not path.exists():
        return {}
    with readable_errors("read", path), path.open(newline="", encoding="utf-8") as file:
        found, *rows = list(csv.reader(file)) or [[]]
    if found != header or any(len(row) != len(header) for row in rows):
        raise InputError(
            f"{path} is no label table of this world, and new labels would not fit into it:"
            " expected none, or one that was drawn before; give another folder"
        )
    return {row[0]: row for row in rows}


def draw_grid(
    world: str,
    *,
    rows: int,
    columns: int,
    size: int = 128,
    seed: int = 0,
    same: bool = False,
    alike: bool = False,
) -> Image.Image:
    """Draw a sheet of images: every cell another subject, or with `same` one subject per row.

    With `alike` all cells of a column are taken in the same circumstances.
    """
    drawn = load_world(world)
    population = USER_POPULATIONS + seed
    lines = []
    for row in range(rows):
        images = []
        for column in range(columns):
            index = row if same else row * columns + column
            number = column if same or alike else 0
            image = drawn.image(population, 0 if alike else index, number)
            images.append(drawn.draw(drawn.subject(population, index), image, size))
        lines.append(np.concatenate(images, axis=1))
    return Image.fromarray(np.concatenate(lines))
