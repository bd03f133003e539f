"""Drawn people as ordinary files: a folder of images for each, and a table of labels."""

import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .._files import write_atomic
from ..errors import InputError
from ..labels import read_labels
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
    grid: bool = False,
    progress: bool = False,
) -> None:
    """Write drawn subjects as `out/<world>-<seed>-<index>/<number>.png`, and their labels.

    Next to each image, `<number>.txt` describes everything in it but the subject. `out/labels.csv`
    has one row of 0 and 1 per subject; rows of others that it already holds are kept. A seed always
    yields the same subjects, and never one that the base or its scorers were trained on.

    Args:
        world: "people".
        out: the folder to write to.
        subjects: number of subjects.
        images: images per subject.
        size: pixels per side.
        seed: which population to draw.
        alike: draw image n of every subject in the same circumstances, those of subject 0.
        grid: also write all images on one sheet, `out/grid.png`, a row per subject.
        progress: show a progress bar on stderr.

    Raises:
        InputError: `out/labels.csv` has other columns than this world's labels.
    """
    import pandas

    drawn = load_world(world)
    population = USER_POPULATIONS + seed
    table, rows, sheet = out / "labels.csv", {}, []
    known = read_labels(table) if table.exists() else None
    if known is not None and tuple(known.columns) != drawn.label_names:
        raise InputError(f"{table} has other columns than this world's labels; use another folder")
    for index in tqdm(range(subjects), unit="subject", disable=not progress):
        subject = drawn.subject(population, index)
        folder = out / subject_name(world, seed, index)
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [drawn.image(population, 0 if alike else index, n) for n in range(images)]
        for number, image in enumerate(scenes):
            write_image(folder / f"{number:03d}.png", drawn.draw(subject, image, size))
            text = drawn.surroundings(image) + "\n"
            write_atomic(folder / f"{number:03d}.txt", [text.encode()], flush=False)
        rows[folder.name] = drawn.labels(subject)
        if grid:
            small = [drawn.draw(subject, image, min(size, 128)) for image in scenes]
            sheet.append(np.concatenate(small, axis=1))
    if grid:
        write_image(out / "grid.png", np.concatenate(sheet))
    labels = pandas.DataFrame.from_dict(rows, orient="index", dtype="boolean")
    labels = labels if known is None else labels.combine_first(known)
    write_atomic(table, [labels.astype("Int8").to_csv(index_label="subject").encode()])


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
        expected = f"expected a name such as {subject_name(world.name, 0, 12)}"
        raise InputError(f"{name!r} is not a drawn subject; {expected}, as given by `w2w world`")
    return USER_POPULATIONS + int(found[1]), int(found[2])
