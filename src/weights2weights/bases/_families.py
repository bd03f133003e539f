"""The families that the library knows, by the name of their pipeline in diffusers."""

from ..errors import InputError, shown
from ._family import Family
from .flux import Flux
from .sd import StableDiffusion
from .sd3 import StableDiffusion3
from .sdxl import StableDiffusionXL

FAMILIES: dict[str, type[Family]] = {
    kind.pipeline: kind for kind in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux)
}


def family_of(pipeline: str) -> type[Family]:
    """Return the family of a pipeline's class.

    Raises:
        InputError: an unknown one.
    """
    # variants of one pipeline, such as …Img2ImgPipeline, have the same parts
    plain = pipeline.replace("Img2Img", "").replace("Inpaint", "")
    if plain not in FAMILIES:
        raise InputError(f"a {shown(pipeline)}; expected one of {', '.join(FAMILIES)}")
    return FAMILIES[plain]
