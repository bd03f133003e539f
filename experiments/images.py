"""Images as pixels: writing drawn subjects, sketching, measuring colour."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageChops, ImageFilter, ImageOps
from torch import Tensor

from weights2weights.evaluate.setting import Setting
from weights2weights.worlds.folders import subject_of


def write_images(setting: Setting, names: Sequence[str], count: int, folder: Path) -> None:
    """Write the first images of drawn subjects with their captions, as `worlds.folders` does."""
    world = setting.world
    for name, images in zip(names, setting.drawings(names, count), strict=True):
        (folder / name).mkdir(parents=True, exist_ok=True)
        population, index = subject_of(world, name)
        for number, pixels in enumerate(images):
            caption = world.surroundings(world.image(population, index, number))
            write_image(folder / name / f"{number:03d}.png", pixels, caption)


def write_image(path: Path, pixels: UInt8[np.ndarray, "h w 3"], caption: str) -> None:
    """Write an image, and its caption next to it."""
    Image.fromarray(pixels).save(path)
    path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def sketch(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Turn an image into a pencil sketch: grey, divided by its blurred negative."""
    grey = ImageOps.grayscale(Image.fromarray(pixels))
    blurred = ImageChops.invert(grey).filter(ImageFilter.GaussianBlur(max(1, grey.width / 24)))
    light = np.asarray(ImageChops.invert(blurred), dtype=np.float32)
    divided = np.clip(np.asarray(grey, dtype=np.float32) * 255 / np.maximum(light, 1), 0, 255)
    drawn = 0.75 * divided + 0.25 * np.asarray(grey, dtype=np.float32)
    return np.repeat(drawn.astype(np.uint8)[..., None], 3, axis=-1)


def colourfulness(images: UInt8[Tensor, "*batch h w 3"]) -> Float[Tensor, "*batch"]:
    """Return the mean difference between the largest and smallest channel, in grey levels."""
    values = images.float()
    return (values.amax(-1) - values.amin(-1)).mean((-1, -2))
