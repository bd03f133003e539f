"""Images as users have them, as one uint8 tensor."""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..errors import InputError


def as_pixels(images: Any, factor: int) -> UInt8[Tensor, "n h w 3"]:
    """Return arrays or PIL images as a tensor, with sides that are multiples of a factor.

    Raises:
        InputError: images of another kind, shape or size.
    """
    if not isinstance(images, Tensor):
        if not isinstance(images, np.ndarray):
            rows = [np.asarray(image.convert("RGB")) for image in images]
            if not rows or len({row.shape for row in rows}) > 1:
                sizes = sorted({f"{row.shape[1]}×{row.shape[0]}" for row in rows})
                raise InputError(
                    f"images of {', '.join(sizes) or 'no size'}: expected one or more of one size"
                )
            images = np.stack(rows)
        images = torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
        raise InputError(
            f"images came as {images.dtype} of shape {tuple(images.shape)}: expected uint8 of"
            " shape (n, height, width, 3)"
        )
    height, width = images.shape[1:3]
    if not len(images) or not height or not width or height % factor or width % factor:
        raise InputError(
            f"{len(images)} images of {width}×{height} px: expected at least one, and sides that"
            f" are multiples of {factor}"
        )
    return images
