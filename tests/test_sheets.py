"""Contact sheets place images and captions; image files are whole or absent."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from weights2weights.errors import W2WError
from weights2weights.sheets import image_grid, write_image, write_images


@pytest.fixture
def cells() -> torch.Tensor:
    return torch.arange(6).view(2, 3, 1, 1, 1).expand(2, 3, 16, 16, 3).to(torch.uint8) * 40


def test_grid_places_images_and_captions(cells):
    bare = image_grid(cells, cell=16)
    assert bare.size == (3 * 18 - 2, 2 * 18 - 2)
    assert [bare.getpixel((c * 18 + 8, 26))[0] for c in range(3)] == [120, 160, 200]
    captioned = image_grid(cells, ["Adam", "Eve"], ["on a beach", "0", "1"])
    assert captioned.size[0] > 3 * 128
    assert captioned.size[1] > 2 * 128


def test_grid_takes_tables_of_every_form(cells):
    expected = image_grid(cells).tobytes()
    pictures = [[Image.fromarray(np.asarray(cell)) for cell in row] for row in cells]
    for images in (cells[:, :, None], cells[:, None], cells.numpy(), list(cells), pictures):
        assert image_grid(images).tobytes() == expected
    row = image_grid(cells[:1]).tobytes()
    for images in (cells[0], list(cells[0]), pictures[0]):
        assert image_grid(images).tobytes() == row


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3),
        torch.zeros(2, 3, 16, 16, 3),
        [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)],
        [],
    ],
)
def test_what_is_not_a_table_of_images_is_refused(images):
    with pytest.raises(W2WError, match="image"):
        image_grid(images)


def test_captions_are_as_many_as_what_they_name(cells):
    with pytest.raises(W2WError, match="1 captions for 2 rows"):
        image_grid(cells, ["Adam"])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_files_hold_the_image(tmp_path, cells, suffix):
    path = write_image(tmp_path / "new" / f"a{suffix}", cells[1, 2])
    with Image.open(path) as image:
        assert image.size == (16, 16)
        assert abs(image.convert("RGB").getpixel((8, 8))[0] - 200) < 8
    with pytest.raises(W2WError, match=r"ending in \.png"):
        write_image(tmp_path / "a.gif", cells[0, 0])


def test_every_image_has_its_name(tmp_path, cells):
    written = write_images(tmp_path, cells[:, None], ["loras/ada", "eve"], [7, 8, 9])
    assert len(written) == 6
    assert (tmp_path / "000-ada-0-8.png").is_file()
    assert (tmp_path / "001-eve-0-9.png").is_file()


def test_a_failed_write_leaves_the_old_image(tmp_path, cells, monkeypatch):
    path = write_image(tmp_path / "a.png", cells[0, 0])
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(W2WError, match="No space left"):
        write_image(path, cells[1, 1])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
