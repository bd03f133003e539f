"""Drawn people as files: image folders, captions and the table of labels."""

import csv

import numpy as np
import pytest
from PIL import Image

from weights2weights.errors import W2WError
from weights2weights.labels import read_labels
from weights2weights.subjects import find_subjects
from weights2weights.worlds.folders import subject_name, subject_of, write_subjects
from weights2weights.worlds.people import PEOPLE


def test_subject_folders_and_label_table(tmp_path):
    write_subjects("people", tmp_path, subjects=3, images=2, size=24)
    with (tmp_path / "labels.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3
    assert set(table[0]) > {"subject", "Male", "Bald"}
    assert {row["Male"] for row in table} <= {"0", "1"}
    for row in table:
        files = sorted((tmp_path / row["subject"]).iterdir())
        assert [file.name for file in files] == ["000.png", "000.txt", "001.png", "001.txt"]
        with Image.open(files[0]) as image:
            assert image.size == (24, 24)
        expression, clothes, _ = files[1].read_text().split(", ")
        assert expression and clothes.endswith(" shirt")
    more = tmp_path / "more"
    write_subjects("people", more, subjects=4, images=1, size=24)
    first = (tmp_path / table[0]["subject"] / "000.png").read_bytes()
    assert (more / table[0]["subject"] / "000.png").read_bytes() == first


def test_subjects_of_another_seed_join_the_label_table(tmp_path):
    for seed in (0, 1, 0):
        write_subjects("people", tmp_path, subjects=2, images=1, size=16, seed=seed)
    table = read_labels(tmp_path / "labels.csv")
    assert table.index.tolist() == [f"people-{seed}-0000{i}" for seed in (0, 1) for i in (0, 1)]
    assert table.index.tolist() == [subject.name for subject in find_subjects(tmp_path)]
    assert table.isin([0, 1]).all(axis=None)


def test_subjects_alike_differ_in_nothing_else(tmp_path):
    """Image n of all of them has the same caption and the same background."""
    settings = {"subjects": 4, "images": 2, "size": 32, "grid": True}
    for folder, alike in ((tmp_path / "alike", True), (tmp_path / "each", False)):
        write_subjects("people", folder, alike=alike, **settings)
    folders = sorted(path for path in (tmp_path / "alike").iterdir() if path.is_dir())
    for number in range(2):
        captions = {(folder / f"{number:03d}.txt").read_text() for folder in folders}
        assert len(captions) == 1
        pixels = [np.asarray(Image.open(folder / f"{number:03d}.png")) for folder in folders]
        assert all(np.array_equal(other[0, 0], pixels[0][0, 0]) for other in pixels)
        assert len({one.tobytes() for one in pixels}) == 4
    first, second = ((folders[0] / f"00{n}.png").read_bytes() for n in range(2))
    assert first != second
    for name in ("people-0-00000", "people-0-00001"):
        same = [(tmp_path / k / name / "000.png").read_bytes() for k in ("alike", "each")]
        assert (same[0] == same[1]) == (name == "people-0-00000")
    sheet = np.asarray(Image.open(tmp_path / "alike" / "grid.png"))
    expected = [
        np.concatenate([np.asarray(Image.open(f / f"00{n}.png")) for n in range(2)], axis=1)
        for f in folders
    ]
    np.testing.assert_array_equal(sheet, np.concatenate(expected))


def test_names_of_subjects_lead_back_to_them():
    assert subject_name("people", 3, 12) == "people-3-00012"
    assert subject_of(PEOPLE, "people-3-00012") == (1003, 12)
    with pytest.raises(W2WError, match="'adam' is not a drawn subject"):
        subject_of(PEOPLE, "adam")


def test_a_foreign_label_table_is_not_overwritten(tmp_path):
    (tmp_path / "labels.csv").write_text("subject,Bald\nadam,1\n")
    with pytest.raises(W2WError, match="has other columns than this world's labels"):
        write_subjects("people", tmp_path, subjects=1, images=1, size=16)
    assert (tmp_path / "labels.csv").read_text() == "subject,Bald\nadam,1\n"
