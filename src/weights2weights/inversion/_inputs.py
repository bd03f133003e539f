"""Images and masks as users have them: paths, PIL images or arrays, one or several."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .._files import read_regular
from ..errors import InputError
from ..images import decode_image, decode_mask, square


def read_images(
    images: Any, masks: Any, size: int
) -> tuple[UInt8[Tensor, "n h w 3"], Float[Tensor, "n h w"] | None, list[dict[str, str]]]:
    """Return images and masks, given as to `invert`, as centred squares of one size.

    The name and SHA-256 of each image's file are last, empty for an image that is not a file.
    """
    read = [_image(value, i) for i, value in enumerate(_as_list(images, 3))]
    if not read:
        raise InputError("no images: expected at least one")
    whole, files = [image for image, _ in read], [file for _, file in read]
    pixels = torch.from_numpy(np.stack([np.asarray(square(image, size)) for image in whole]))
    of_each = [] if masks is None else _as_list(masks, 2)
    if all(mask is None for mask in of_each):
        return pixels, None, files
    if len(of_each) != len(whole):
        raise InputError(f"{len(of_each)} masks for {len(whole)} images: expected one for each")
    weights = [
        np.ones((size, size), np.float32) if mask is None else _mask(mask, i, image.size, size)
        for i, (mask, image) in enumerate(zip(of_each, whole, strict=True))
    ]
    return pixels, torch.from_numpy(np.stack(weights)), files


def _as_list(values: Any, dimensions: int) -> list[Any]:
    """Return several images as a list of them, and one as a list of one."""
    if isinstance(values, str | Path) or hasattr(values, "convert"):
        return [values]
    if isinstance(values, Tensor | np.ndarray):
        return [values] if values.ndim in (2, dimensions) else list(values)
    if isinstance(values, Sequence):
        return list(values)
    raise InputError(
        f"{'images' if dimensions == 3 else 'masks'} of type {type(values).__name__}: expected one"
        " or several paths, PIL images or arrays"
    )


def _image(value: Any, number: int) -> tuple[Any, dict[str, str]]:
    """Return one image as upright RGB, and its file."""
    from PIL import Image

    if isinstance(value, str | Path):
        data, name = _read(value), Path(value).name
        file = {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
        return decode_image(data, name), file
    if hasattr(value, "convert"):
        return value.convert("RGB"), {}
    array = np.asarray(value)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise InputError(
            f"image {number} of {array.dtype} and shape {list(array.shape)}: expected uint8 of"
            " [height, width, 3]"
        )
    return Image.fromarray(np.ascontiguousarray(array)), {}


def _mask(value: Any, number: int, of: tuple[int, int], size: int) -> np.ndarray:
    """Return the loss weight, from 0 to 1, of every pixel of an image's square."""
    from PIL import Image

    called = f"mask {number}"
    if isinstance(value, str | Path):
        called = Path(value).name
        value = decode_mask(_read(value), called, of)
    levels = np.asarray(value.convert("L") if hasattr(value, "convert") else value)
    levels = levels / 255 if levels.dtype == np.uint8 else levels.astype(np.float64)
    shape, expected = list(levels.shape), [of[1], of[0]]
    if shape != expected:
        raise InputError(f"{called} of shape {shape}: expected that of its image, {expected}")
    if not (levels.min() >= 0 and levels.max() <= 1):
        raise InputError(f"{called} has values outside 0 to 1: expected 0 to 1, or uint8")
    grey = Image.fromarray(levels.astype(np.float32))  # mode F, so that nothing is rounded
    weights = np.asarray(square(grey, size)).clip(0, 1)
    if weights.max() == 0:
        raise InputError(
            f"{called} is empty within the centred square: expected white, or 1, where the"
            " subject is"
        )
    return weights


def _read(path: str | Path) -> bytes:
    try:
        return read_regular(Path(path).expanduser(), 1 << 29)
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
