"""What items do to images, and measure of them, without a network."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageChops, ImageFilter, ImageOps
from torch import Tensor


def sketch(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Turn an image into a pencil sketch: grey, divided by its blurred negative."""
    grey = ImageOps.grayscale(Image.fromarray(pixels))
    blurred = ImageChops.invert(grey).filter(ImageFilter.GaussianBlur(max(1, grey.width / 24)))
    light = np.asarray(ImageChops.invert(blurred), dtype=np.float32)
    divided = np.clip(np.asarray(grey, dtype=np.float32) * 255 / np.maximum(light, 1), 0, 255)
    drawn = 0.75 * divided + 0.25 * np.asarray(grey, dtype=np.float32)
    return np.repeat(drawn.astype(np.uint8)[..., None], 3, axis=-1)


def colourfulness(images: UInt8[Tensor, "*batch h w 3"]) -> Float[Tensor, "*batch"]:
    """Return the mean range of red, green and blue in a pixel, in grey levels; 0 for grey."""
    values = images.float()
    return (values.amax(-1) - values.amin(-1)).mean((-1, -2))
