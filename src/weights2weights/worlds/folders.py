"""Drawn people as ordinary files: a folder of images for each, and a table of labels."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .._files import readable_errors, write_atomic
from ..errors import InputError
from ..sheets import write_image
from . import USER_POPULATIONS, World, load_world


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
    """Write drawn subjects as `out/<world>-<seed>-<index>/<number>.png`, and their labels.

    Next to each image, `<number>.txt` describes everything in it but the subject. `out/labels.csv`
    has one row per subject: the name of its folder and 0 or 1 per label. Rows of other subjects
    that it already holds are kept. A seed always yields the same subjects, however many are drawn,
    and never one that the base or its scorers were trained on.

    Args:
        world: "people".
        out: the folder to write to.
        subjects: number of subjects.
        images: images per subject.
        size: pixels per side.
        seed: which population to draw.
        alike: draw image n of every subject in the same circumstances (those of subject 0), so
            that two folders differ in nothing but their subjects.
        progress: show a progress bar on stderr.

    Raises:
        InputError: `out/labels.csv` has other columns than this world's labels.
    """
    drawn = load_world(world)
    population = USER_POPULATIONS + seed
    header = ["subject", *drawn.label_names]
    rows = _read_rows(out / "labels.csv", header)
    for index in tqdm(range(subjects), unit="subject", disable=not progress):
        subject = drawn.subject(population, index)
        folder = out / subject_name(world, seed, index)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            image = drawn.image(population, 0 if alike else index, number)
            write_image(folder / f"{number:03d}.png", drawn.draw(subject, image, size))
            text = drawn.surroundings(image) + "\n"
            write_atomic(folder / f"{number:03d}.txt", [text.encode()], flush=False)
        values = drawn.labels(subject)
        rows[folder.name] = [folder.name, *(str(int(values[name])) for name in drawn.label_names)]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows.values()])
    write_atomic(out / "labels.csv", [table.getvalue().encode()])


def subject_name(world: str, seed: int, index: int) -> str:
    """Return the name of a drawn subject and its folder, such as "people-3-00012"."""
    return f"{world}-{seed}-{index:05d}"


def subject_of(world: World, name: str) -> tuple[int, int]:
    """Return the population and index of a drawn subject from its `subject_name`.

    Raises:
        InputError: it is not the name of a drawn subject.
    """
    found = re.fullmatch(rf"{re.escape(world.name)}-(\d+)-(\d+)", name)
    if found is None:
        raise InputError(
            f"{name!r} is not a drawn subject; expected a name such as"
            f" {subject_name(world.name, 0, 12)}, as given by `w2w world`"
        )
    return USER_POPULATIONS + int(found[1]), int(found[2])


def _read_rows(path: Path, header: Sequence[str]) -> dict[str, list[str]]:
    """Return the rows of a label table by subject; none if there is no table."""
    if not path.exists():
        return {}
    with readable_errors("read", path), path.open(newline="", encoding="utf-8") as file:
        found, *rows = list(csv.reader(file)) or [[]]
    if found != header or any(len(row) != len(header) for row in rows):
        raise InputError(
            f"{path} has other columns than this world's labels; write the subjects to another"
            " folder"
        )
    return {row[0]: row for row in rows}


def draw_grid(
    world: str, *, subjects: int, images: int, size: int = 128, seed: int = 0, alike: bool = False
) -> Image.Image:
    """Draw the images that `write_subjects` writes on one sheet, a row per subject."""
    drawn = load_world(world)
    population = USER_POPULATIONS + seed
    rows = []
    for index in range(subjects):
        subject = drawn.subject(population, index)
        shown = [drawn.image(population, 0 if alike else index, n) for n in range(images)]
        rows.append(np.concatenate([drawn.draw(subject, image, size) for image in shown], axis=1))
    return Image.fromarray(np.concatenate(rows))
