"""Subjects: a folder of images each, perhaps with masks, and a table of labels.

    subjects/
      adam/  1.jpg  1.txt  2.png  2.mask.png  3.webp
      eve/   …
      labels.csv          name, Bald, Young, …

Images are PNG, JPEG or WebP of any size and kind: turned as their EXIF says, transparency laid on
white, 16-bit and grey ones scaled, then the largest centred square of them is resized. A mask is a
image beside its image, named `<image>.mask.png`, of the same size: white counts, black does
not. It goes through the very same crop. A caption is a text beside its image, `1.txt` for `1.jpg`
or, where there is no such file, `1.jpg.txt`: what is around the subject, in parts between commas,
such as "smiling, red shirt, on a beach". What cannot be read fails its subject with one line that
says why, and no other.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .errors import InputError, W2WError
from .labels import readable_name

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MASK_SUFFIX = ".mask"

MOST_CAPTION_BYTES = 4096
"""Longer captions are refused: no text encoder reads as much."""

MOST_PIXELS = 100_000_000
"""Larger images are refused unread: a few kilobytes of PNG can unfold into gigabytes."""

LEAST_SIDE = 16
"""Pixels that an image needs per side to show anything."""

_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class Subject:
    """What is to be learned: a name and its images, not read yet.

    Attributes:
        name: of the folder, in Unicode's composed form.
        images: its image files, sorted by name.
        masks: the mask of each image, or None.
        captions: the caption file of each image, or None; fewer than images: the rest has none.
        problem: why it cannot be learned, known without reading an image; "" if nothing is.
    """

    name: str
    images: tuple[Path, ...] = ()
    masks: tuple[Path | None, ...] = ()
    captions: tuple[Path | None, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Images:
    """The images of one subject, read.

    Attributes:
        pixels: uint8 "n size size 3".
        masks: how much each pixel counts, from 0 to 1, or None where nothing is masked.
        digest: SHA-256 of the files and of how they were read, in hex: equal digests, equal pixels
            and masks. Captions have no part in it: who mends a comma need not encode anew.
        captions: what is said about each image, "" for nothing.
    """

    pixels: UInt8[Tensor, "n size size 3"]
    masks: Float[Tensor, "n size size"] | None
    digest: str
    captions: tuple[str, ...] = ()


def find_subjects(*folders: str | Path) -> list[Subject]:
    """Find the subjects in folders of folders, sorted by name; no image is opened.

    A folder that holds images itself and no folders is one subject. Two folders whose names are
    the same text are one subject with a problem, since nobody can say which is meant.

    Raises:
        W2WError: a folder does not exist, or there are no subjects at all.
    """
    found: dict[str, list[Path]] = {}
    for folder in map(Path, folders):
        for path in _subject_folders(folder):
            found.setdefault(readable_name(path.name), []).append(path)
    if not found:
        raise InputError(
            f"{', '.join(map(str, folders)) or 'nothing'} holds no subjects: expected one folder of"
            " PNG, JPEG or WebP images per subject"
        )
    return [_subject(name, paths) for name, paths in sorted(found.items())]


def find_mask(image: Path) -> Path | None:
    """Return the mask next to an image, 1.mask.png for 1.jpg, or None if there is none."""
    names = (image.stem + MASK_SUFFIX + suffix for suffix in PICTURE_SUFFIXES)
    return next((path for name in names if (path := image.with_name(name)).is_file()), None)


def read_images(subject: Subject, size: int) -> Images:
    """Read the images and masks of a subject as squares of one size, and their captions.

    Raises:
        W2WError: the subject has a problem, or one of its files is broken, too large or too small,
            animated, a mask of another shape than its image, or a caption that is no short text.
            The message names the file.
    """
    if subject.problem:
        raise InputError(subject.problem)
    digest = hashlib.sha256(f"centred square, {size} px, 1\n".encode())
    pixels, masks, captions = [], [], []
    written = subject.captions + (None,) * (len(subject.images) - len(subject.captions))
    for image, mask, caption in zip(subject.images, subject.masks, written, strict=True):
        data = _read_file(image)
        digest.update(hashlib.sha256(data).digest())
        decoded = decode_image(data, image.name)
        pixels.append(np.asarray(square(decoded, size)))
        if mask is not None:
            data = _read_file(mask)
            digest.update(b"mask" + hashlib.sha256(data).digest())
            masks.append(_mask_weights(decode_mask(data, mask.name, decoded.size), mask.name, size))
        else:
            masks.append(torch.ones(size, size))
        captions.append("" if caption is None else _read_caption(caption))
    return Images(
        torch.from_numpy(np.stack(pixels)),
        torch.stack(masks) if any(subject.masks) else None,
        digest.hexdigest(),
        tuple(captions),
    )


def decode_image(data: bytes, name: str) -> "Image":
    """Read an image file as upright RGB, whatever it holds.

    Args:
        data: bytes of a PNG, JPEG or WebP.
        name: of the file, for messages.

    Raises:
        W2WError: it is none, is damaged, animated, too large or too small.
    """
    return _decode(data, name, _as_rgb)


def decode_mask(data: bytes, name: str, size: tuple[int, int]) -> "Image":
    """Read a mask file as an upright image of grey levels, 255 where the subject is.

    Args:
        data: bytes of a PNG, JPEG or WebP.
        name: of the file, for messages.
        size: width and height of its image, once upright.

    Raises:
        W2WError: as `decode_image`, or the mask has another size.
    """
    mask = _decode(data, name, _as_grey)
    if mask.size != size:
        raise InputError(
            f"{name} is {mask.width}×{mask.height} px for an image of {size[0]}×{size[1]}:"
            " expected a mask of the same size"
        )
    return mask


def square(image: "Image", size: int) -> "Image":
    """Return the largest centred square, resized: the one crop for images and masks alike."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box)


def _subject_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: expected one that holds a folder per subject")
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    inner = [entry for entry in entries if entry.is_dir()]
    return inner or ([folder.resolve()] if any(map(_is_image, entries)) else [])


def _subject(name: str, paths: Sequence[Path]) -> Subject:
    if len(paths) > 1:
        folders = ", ".join(str(path) for path in paths)
        return Subject(name, problem=f"{len(paths)} folders have this name ({folders}); rename one")
    try:
        files = sorted(path for path in paths[0].iterdir() if path.is_file())
    except OSError as error:
        return Subject(name, problem=f"{paths[0]} cannot be listed: {error.strerror}")
    masks = {path.stem.removesuffix(MASK_SUFFIX): path for path in files if _is_mask(path)}
    images = [path for path in files if _is_image(path)]
    if orphans := masks.keys() - {path.stem for path in images}:
        orphan = masks[min(orphans)].name
        return Subject(name, problem=f"{orphan} is the mask of no image; rename or remove it")
    if not images:
        others = sorted({path.suffix for path in files if path.suffix}) if files else []
        seen = f" (there are files of {', '.join(others)})" if others else ""
        return Subject(name, problem=f"no images{seen}: expected PNG, JPEG or WebP")
    texts = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    return Subject(
        name,
        tuple(images),
        tuple(masks.get(path.stem) for path in images),
        tuple(texts.get(path.stem, texts.get(path.name)) for path in images),
    )


def _is_mask(path: Path) -> bool:
    return path.stem.endswith(MASK_SUFFIX) and path.suffix.lower() in PICTURE_SUFFIXES


def _is_image(path: Path) -> bool:
    visible = not path.name.startswith(".")
    return visible and path.suffix.lower() in PICTURE_SUFFIXES and not _is_mask(path)


def _read_caption(path: Path) -> str:
    data = _read_file(path, MOST_CAPTION_BYTES + 1)
    size = f"{len(data):,} bytes"
    try:
        if len(data) <= MOST_CAPTION_BYTES:
            return " ".join(data.decode("utf-8-sig").split())
        size = f"more than {MOST_CAPTION_BYTES:,} bytes"
    except UnicodeDecodeError:
        pass
    raise InputError(
        f"{path.name} of {size} is no caption: expected UTF-8 text of up to"
        f" {MOST_CAPTION_BYTES:,} bytes beside the image of its name"
    )


def _read_file(path: Path, most: int = -1) -> bytes:
    """Read a file, or its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}") from error


def _decode(data: bytes, name: str, convert: Callable[["Image"], "Image"]) -> "Image":
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; what matters is checked below
            with Image.open(BytesIO(data), formats=_FORMATS) as image:
                _require_usable(image, name)
                image.load()
                return convert(ImageOps.exif_transpose(image))
    except W2WError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        why = "no image" if isinstance(error, UnidentifiedImageError) else "far too large"
        raise InputError(
            f"{name} is {why}: expected a PNG, JPEG or WebP of up to {MOST_PIXELS:,} pixels"
        ) from error
    except Exception as error:  # decoders meet damage with nearly any exception there is
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{name} is damaged ({reason}): expected a whole image") from error


def _require_usable(image: "Image", name: str) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{name} has {width}×{height} pixels: expected at most {MOST_PIXELS:,}; scale it down"
        )
    if min(width, height) < LEAST_SIDE:
        raise InputError(
            f"{name} has {width}×{height} pixels: expected at least {LEAST_SIDE} a side"
        )
    # MPO is what phones write as JPEG with a second view; the first is the image
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise InputError(f"{name} is animated: expected a still image; save one frame of it")


def _as_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I"):
        return _from_16_bits(image).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def _as_grey(image: "Image") -> "Image":
    return _from_16_bits(image) if image.mode.startswith("I") else _as_rgb(image).convert("L")


def _from_16_bits(image: "Image") -> "Image":
    from PIL import Image

    levels = np.asarray(image).astype(np.float32) / 257  # 65,535 becomes 255
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


def _mask_weights(mask: "Image", name: str, size: int) -> Tensor:
    weights = torch.from_numpy(np.array(square(mask, size), dtype=np.float32)) / 255
    if weights.max() == 0:
        raise InputError(
            f"{name} is black within the centred square: expected white where the subject is"
        )
    return weights
