"""Inversions of held-out people's first images, and the images of the models found."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from weights2weights.inversion import InversionConfig
from weights2weights.sheets import image_grid
from weights2weights.space import WeightSpace

from .cache import digest, digest_of_fields
from .result import Sheet
from .setting import ExperimentSetting, Scored


def inverted(
    setting: ExperimentSetting,
    names: Sequence[str],
    *,
    images: UInt8[Tensor, "n h w 3"] | None = None,
    space: WeightSpace | None = None,
    components: int | None = None,
    recipe: InversionConfig | None = None,
) -> Float[Tensor, "n d"]:
    """Invert one image of each person and return the weights of the models.

    Args:
        setting: setting of the people.
        names: names of the people.
        images: one image of each; None takes the first of each person.
        space: space to invert into; None takes the setting's.
        components: optimise the first this many; None leaves it to the configuration.
        recipe: inversion configuration; None takes the setting's.
    """
    space = space or setting.space
    recipe = recipe or setting.inversion
    recipe = recipe if components is None else replace(recipe, components=components)
    if images is None:
        images = torch.from_numpy(setting.drawings(names, 1)[:, 0])
    inputs = {
        "inverted": digest([images, space.mean, space.coefficients, space.components.shape[0]]),
        **setting.inputs,
        "inversion": digest_of_fields(recipe),
    }

    def compute() -> dict[str, Tensor]:
        return {
            "coefficients": replace(setting, space=space, inversion=recipe).invert(images).points
        }

    return space.to_weights(setting.cache.tensors(inputs, compute)["coefficients"])


def people_sheet(
    setting: ExperimentSetting,
    names: Sequence[str],
    columns: Mapping[str, UInt8[Tensor, "k h w 3"]],
) -> Sheet:
    """Lay out the one image of each person next to those that several models generate."""
    photos = torch.from_numpy(setting.drawings(names, 1)[:, 0])
    drawn = [images[: len(names)] for images in columns.values()]
    return Sheet(
        "people",
        image_grid(torch.stack([photos, *drawn], 1), (), ["the image", *columns]),
        "One person per row: the one image, then what each model generates in a new scene.",
        560,
    )


def generate_people(
    setting: ExperimentSetting, weights: Float[Tensor, "n d"], prompts: int, seeds: int
) -> Scored:
    """Generate images in scenes that neither training nor inversion used."""
    return setting.generate(weights, setting.prompts[1 : 1 + prompts], list(range(seeds)))
