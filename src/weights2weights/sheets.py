"""Contact sheets: images laid out as a table with captions, and image files that are whole."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._files import make_folder, write_atomic
from .errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP"}
"""File name extensions of the images that can be written."""


def image_grid(
    images: Any,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    cell: int | None = None,
) -> "Image":
    """Lay images out as a table with captions.

    Args:
        images: what `generate` returns, uint8 (models, prompts, seeds, h, w, 3), a row per model;
            or a table (rows, columns, h, w, 3) or one row of them (columns, h, w, 3), torch or
            NumPy; or PIL images, a list of one row or of lists.
        rows: a caption for every row, or none; long lines are wrapped.
        columns: a caption for every column, or none.
        cell: width of a cell in pixels; None enlarges small images by a whole factor to at least
            128 px.

    Returns:
        a PIL image, which notebooks display.

    Raises:
        InputError: images of another shape, captions that are not one per row or column.
    """
    from PIL import Image, ImageDraw, ImageFont

    table = _table(images)
    R, C, height, width = table.shape[:4]
    for captions, count, what in ((rows, R, "rows"), (columns, C, "columns")):
        if captions and len(captions) != count:
            raise InputError(f"{len(captions)} captions for {count} {what}: expected one each")
    wide = cell or width * max(1, -(-128 // width))
    tall, gap = round(wide * height / width), max(2, wide // 64)
    font = ImageFont.load_default(size=max(11, wide // 11))
    beside, above = _wrap(rows, wide - gap, font), _wrap(columns, wide - gap, font)
    left = max((_extent(text, font)[0] for text in beside), default=-2 * gap) + 2 * gap
    top = max((_extent(text, font)[1] for text in above), default=-2 * gap) + 2 * gap
    sheet = Image.new("RGB", (left + C * (wide + gap) - gap, top + R * (tall + gap) - gap), "white")
    for r in range(R):
        for c in range(C):
            image = Image.fromarray(table[r, c])
            if image.size != (wide, tall):
                image = image.resize((wide, tall), Image.Resampling.BICUBIC)
            sheet.paste(image, (left + c * (wide + gap), top + r * (tall + gap)))
    pen = ImageDraw.Draw(sheet)
    for r, text in enumerate(beside):
        place = gap, top + r * (tall + gap) + tall // 2
        pen.multiline_text(place, text, "black", font, anchor="lm")
    for c, text in enumerate(above):
        place = left + c * (wide + gap) + wide // 2, gap
        pen.multiline_text(place, text, "black", font, anchor="ma", align="center")
    return sheet


def write_image(path: str | Path, image: Any) -> Path:
    """Write an image file, whole or not at all; its folder is made if absent.

    Images are cheap to make again: they are not flushed to the disk, which would take longer than
    drawing them.

    Args:
        path: a name ending in .png, .jpg or .webp.
        image: a PIL image, or uint8 (h, w, 3), torch or NumPy.

    Raises:
        InputError: another extension.
        W2WError: the file cannot be written.
    """
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: expected a name ending in .png, .jpg or .webp")
    if not hasattr(image, "save"):
        image = Image.fromarray(_pixels(image))
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[path.suffix.lower()])
    make_folder(path.parent)
    write_atomic(path, [buffer.getvalue()], flush=False)
    return path


def write_images(
    folder: str | Path, images: Any, names: Sequence[str], seeds: Sequence[int]
) -> list[Path]:
    """Write every image of `generate` as a PNG file, ROW-NAME-PROMPT-SEED.png.

    Args:
        folder: made if absent.
        images: uint8 (models, prompts, seeds, h, w, 3).
        names: of the models.
        seeds: of the images.

    Raises:
        W2WError: a file cannot be written.
    """
    return [
        write_image(Path(folder) / f"{row:03d}-{Path(name).name}-{prompt}-{seed}.png", image)
        for row, (name, of_model) in enumerate(zip(names, images, strict=True))
        for prompt, of_prompt in enumerate(of_model)
        for seed, image in zip(seeds, of_prompt, strict=True)
    ]


def _table(images: Any) -> np.ndarray:
    """Return images as uint8 (rows, columns, h, w, 3)."""
    if isinstance(images, Sequence):
        try:
            images = np.stack(
                [
                    np.stack([_pixels(image) for image in row])
                    if isinstance(row, Sequence)
                    else _pixels(row)
                    for row in images
                ]
            )
        except ValueError as error:
            raise InputError(f"images that do not make a table ({error})") from error
    table = _pixels(images)
    if table.ndim == 4:
        table = table[None]
    if table.ndim == 6:
        table = table.reshape(len(table), -1, *table.shape[3:])
    if table.ndim != 5 or table.shape[-1] != 3 or table.dtype != np.uint8 or not table.size:
        raise InputError(
            f"images as {table.dtype} of shape {list(table.shape)}: expected uint8 (rows, columns,"
            " h, w, 3), (models, prompts, seeds, h, w, 3) or one row, (columns, h, w, 3)"
        )
    return table


def _pixels(images: Any) -> np.ndarray:
    if hasattr(images, "convert"):  # PIL
        return np.asarray(images.convert("RGB"))
    return np.asarray(images.cpu() if hasattr(images, "cpu") else images)


def _wrap(captions: Sequence[str], width: int, font: Any) -> list[str]:
    letters = max(8, int(width / font.getlength("n")))
    return [
        "\n".join(textwrap.fill(line, letters) for line in caption.splitlines())
        for caption in captions
    ]


def _extent(text: str, font: Any) -> tuple[int, int]:
    from PIL import Image, ImageDraw

    pen = ImageDraw.Draw(Image.new("1", (1, 1)))
    box = pen.multiline_textbbox((0, 0), text, font=font)
    return int(box[2]), int(box[3])
