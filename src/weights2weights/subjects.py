"""Subjects: one folder of images each, optionally with masks and captions.

    subjects/
      adam/  1.jpg  1.txt  2.png  2.mask.png  3.webp
      eve/   …
      labels.csv          name, Bald, Young, …      (see `labels`)

Images are PNG, JPEG or WebP of any size; the largest centred square of each is resized. A mask is
an image named `<image>.mask.png` of the same size, white where the subject is; it is cropped alike.
A caption is a text file, `1.txt` for `1.jpg` or else `1.jpg.txt`, that describes everything but the
subject, separated by commas: "smiling, red shirt, on a beach". A file that cannot be read fails
only its own subject.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .errors import InputError
from .images import decode_image, decode_mask, square
from .labels import readable_name

_KINDS = "PNG, JPEG or WebP"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MASK = ".mask"

MOST_CAPTION_BYTES = 4096  # no text encoder reads more


@dataclass(frozen=True)
class Subject:
    """What a model is trained on: a name and its image files, not yet read.

    Attributes:
        name: folder name, in Unicode's composed form.
        images: image files, sorted by name.
        masks: the mask of each image, or None.
        captions: the caption file of each image, or None; may be shorter than `images`.
        problem: why it cannot be trained on, as far as known without reading images, or "".
    """

    name: str
    images: tuple[Path, ...] = ()
    masks: tuple[Path | None, ...] = ()
    captions: tuple[Path | None, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Images:
    """The decoded images of one subject.

    Attributes:
        pixels: uint8 "n size size 3".
        masks: weight of each pixel from 0 to 1, or None if no image has a mask.
        digest: SHA-256 of the image and mask files and the way they were read, in hex.
        captions: of each image, "" for none.
    """

    pixels: UInt8[Tensor, "n size size 3"]
    masks: Float[Tensor, "n size size"] | None
    digest: str
    captions: tuple[str, ...] = ()


def find_subjects(*folders: str | Path) -> list[Subject]:
    """Find the subjects in folders of folders, sorted by name; no image is opened.

    A folder of images without subfolders is one subject. Two folders with the same name are one
    subject with a problem.

    Raises:
        InputError: a folder does not exist, or there are no subjects at all.
    """
    found: dict[str, list[Path]] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a directory; expected one subdirectory per subject")
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        inner = [entry for entry in entries if entry.is_dir()]
        own = [folder.resolve()] if any(map(_is_image, entries)) else []
        for path in sorted(inner) or own:
            found.setdefault(readable_name(path.name), []).append(path)
    if not found:
        where = ", ".join(map(str, folders))
        raise InputError(f"no subjects in {where}; expected one folder of {_KINDS} images for each")
    return [_subject(name, paths) for name, paths in sorted(found.items())]


def find_mask(image: Path) -> Path | None:
    """Return the mask next to an image, 1.mask.png for 1.jpg, or None if there is none."""
    paths = (image.with_name(image.stem + _MASK + suffix) for suffix in _SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def read_images(subject: Subject, size: int) -> Images:
    """Read the images and masks of a subject as squares of one size, and their captions.

    Raises:
        InputError: the subject has a problem, or one of its files is damaged, too large or too
            small, animated, a mask of another size than its image, or not a short caption.
    """
    if subject.problem:
        raise InputError(subject.problem)
    digest = hashlib.sha256(f"centred square, {size} px, 1\n".encode())
    pixels, masks, captions = [], [], []
    for image, mask, caption in zip_longest(subject.images, subject.masks, subject.captions):
        data = _read_file(image)
        digest.update(hashlib.sha256(data).digest())
        decoded = decode_image(data, image.name)
        pixels.append(np.asarray(square(decoded, size)))
        masks.append(torch.ones(size, size))
        if mask is not None:
            data = _read_file(mask)
            digest.update(b"mask" + hashlib.sha256(data).digest())
            levels = np.array(square(decode_mask(data, mask.name, decoded.size), size))
            if not levels.any():
                raise InputError(
                    f"{mask.name} is black within the centred square: paint the subject white"
                )
            masks[-1] = torch.from_numpy(levels) / 255
        captions.append("" if caption is None else _read_caption(caption))
    return Images(
        torch.from_numpy(np.stack(pixels)),
        torch.stack(masks) if any(subject.masks) else None,
        digest.hexdigest(),
        tuple(captions),
    )


def _subject(name: str, paths: Sequence[Path]) -> Subject:
    if len(paths) > 1:
        folders = ", ".join(str(path) for path in paths)
        return Subject(name, problem=f"{len(paths)} folders have this name ({folders}); rename one")
    try:
        files = sorted(path for path in paths[0].iterdir() if path.is_file())
    except OSError as error:
        return Subject(name, problem=f"{paths[0]} cannot be listed: {error.strerror}")
    masks = {path.stem.removesuffix(_MASK): path for path in files if _is_mask(path)}
    images = [path for path in files if _is_image(path)]
    if orphans := masks.keys() - {path.stem for path in images}:
        orphan = masks[min(orphans)].name
        return Subject(name, problem=f"{orphan} is a mask without an image; rename or remove it")
    if not images:
        others = sorted({path.suffix for path in files if path.suffix})
        seen = f" (there are files of {', '.join(others)})" if others else ""
        return Subject(name, problem=f"no images{seen}: expected {_KINDS}")
    texts = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    return Subject(
        name,
        tuple(images),
        tuple(masks.get(path.stem) for path in images),
        tuple(texts.get(path.stem, texts.get(path.name)) for path in images),
    )


def _is_mask(path: Path) -> bool:
    return path.stem.endswith(_MASK) and path.suffix.lower() in _SUFFIXES


def _is_image(path: Path) -> bool:
    visible = not path.name.startswith(".")
    return visible and path.suffix.lower() in _SUFFIXES and not _is_mask(path)


def _read_caption(path: Path) -> str:
    data = _read_file(path, MOST_CAPTION_BYTES + 1)
    if len(data) > (most := MOST_CAPTION_BYTES):
        raise InputError(f"{path.name} is too long for a caption: over {most:,} bytes")
    try:
        return " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not a caption; expected UTF-8 text") from error


def _read_file(path: Path, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}") from error
