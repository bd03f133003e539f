"""Image files of any kind, as upright RGB or grey levels, and the one crop for all of them."""

import warnings
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, W2WError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 100_000_000
"""Larger images are refused before decoding: a few kilobytes of PNG can unfold into gigabytes."""

LEAST_SIDE = 16
"""Pixels that an image needs per side to show anything."""

_FORMATS = ("PNG", "JPEG", "WEBP")


def decode_image(data: bytes, name: str) -> "Image":
    """Decode a PNG, JPEG or WebP file as upright RGB.

    EXIF orientation is applied, transparency laid on white, 16-bit and grey levels scaled.

    Args:
        data: bytes of the file.
        name: file name for error messages.

    Raises:
        InputError: another format, or an image that is damaged, animated, too large or too small.
    """
    return _decode(data, name, _as_rgb)


def decode_mask(data: bytes, name: str, size: tuple[int, int]) -> "Image":
    """Decode a mask file as upright grey levels, 255 where the subject is.

    Args:
        data: bytes of the file.
        name: file name for error messages.
        size: width and height of its upright image.

    Raises:
        InputError: as `decode_image`, or the mask has another size.
    """
    mask = _decode(data, name, _as_grey)
    if mask.size != size:
        sizes = f"{mask.width}×{mask.height} px for an image of {size[0]}×{size[1]}"
        raise InputError(f"{name} is {sizes}; expected a mask of the same size")
    return mask


def square(image: "Image", size: int) -> "Image":
    """Return the largest centred square, resized; images and masks are cropped alike."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box)


def _decode(data: bytes, name: str, convert: Callable[["Image"], "Image"]) -> "Image":
    from PIL import Image, ImageOps, UnidentifiedImageError

    kinds = f"expected a PNG, JPEG or WebP of up to {MOST_PIXELS:,} pixels"

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; what matters is checked below
            with Image.open(BytesIO(data), formats=_FORMATS) as image:
                _require_usable(image, name)
                image.load()
                return convert(ImageOps.exif_transpose(image))
    except W2WError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image; {kinds}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is far too large; {kinds}") from error
    except Exception as error:  # damage can make a decoder raise nearly anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{name} is damaged ({reason})") from error


def _require_usable(image: "Image", name: str) -> None:
    pixels = f"{image.width}×{image.height} pixels"
    if image.width * image.height > MOST_PIXELS:
        raise InputError(f"{name} has {pixels}: expected at most {MOST_PIXELS:,}; scale it down")
    if min(image.size) < LEAST_SIDE:
        raise InputError(f"{name} has {pixels}: expected at least {LEAST_SIDE} a side")
    # MPO is what phones write as JPEG with a second view; the first is the image
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise InputError(f"{name} is animated; save one frame of it")


def _as_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I"):
        return _from_16_bits(image).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _as_grey(image: "Image") -> "Image":
    return _from_16_bits(image) if image.mode.startswith("I") else _as_rgb(image).convert("L")


def _from_16_bits(image: "Image") -> "Image":
    from PIL import Image

    levels = np.asarray(image).astype(np.float32) / 257  # 65,535 becomes 255
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
