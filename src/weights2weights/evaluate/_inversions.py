"""Inversions of held-out people's first images, and how like them their models draw."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..inversion import Inversion, InversionConfig, invert
from ..sheets import image_grid
from ..space import WeightSpace
from ._keep import digest, digest_of_fields
from ._report import Sheet
from ._setting import Seen, Setting


def inverted(
    setting: Setting,
    names: Sequence[str],
    *,
    images: UInt8[Tensor, "n h w 3"] | None = None,
    space: WeightSpace | None = None,
    components: int | None = None,
    recipe: InversionConfig | None = None,
) -> Float[Tensor, "n d"]:
    """Return the weights of the models that one image of each person leads to.

    Args:
        setting: of the people.
        names: of them.
        images: one of each; None takes the first of each person.
        space: where to look; None is the setting's.
        components: how many of the first are sought; None leaves it to the recipe.
        recipe: of the search; None is the setting's.
    """
    space = space or setting.space
    recipe = recipe or setting.inversion
    recipe = recipe if components is None else replace(recipe, components=components)
    if images is None:
        images = torch.from_numpy(setting.images_of(names, 1)[:, 0])
    inputs = {
        "inverted": digest([images, space.mean, space.coefficients, space.components.shape[0]]),
        **setting.inputs,
        "inversion": digest_of_fields(recipe),
    }

    def search() -> dict[str, Tensor]:
        return {"coefficients": seek(setting, space, images, recipe).points}

    return space.to_weights(setting.keep.tensors(inputs, search)["coefficients"])


def people_sheet(
    setting: Setting, names: Sequence[str], columns: Mapping[str, UInt8[Tensor, "k h w 3"]]
) -> Sheet:
    """Lay out the one image of each person beside what several models of the person draw."""
    photos = torch.from_numpy(setting.images_of(names, 1)[:, 0])
    drawn = [images[: len(names)] for images in columns.values()]
    return Sheet(
        "people",
        image_grid(torch.stack([photos, *drawn], 1), (), ["the image", *columns]),
        "Each row one person: the one image, then what each model draws in a new scene.",
        560,
    )


def seek(
    setting: Setting,
    space: WeightSpace,
    images: UInt8[Tensor, "n h w 3"],
    recipe: InversionConfig,
) -> Inversion:
    """Invert images with the setting's prompt and seed; an interruption goes on to the caller."""
    found = invert(
        setting.base,
        space,
        images,
        config=recipe,
        prompt=setting.recipe.instance_prompt,
        seed=setting.seed,
        progress=setting.progress,
    )
    if found.interrupted:
        raise KeyboardInterrupt
    return found


def draw_people(setting: Setting, weights: Float[Tensor, "n d"], prompts: int, seeds: int) -> Seen:
    """Draw models in scenes that no image of the training or the inversion was asked for."""
    return setting.draw(weights, setting.prompts[1 : 1 + prompts], list(range(seeds)))
