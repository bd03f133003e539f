"""Figures 8 and 24: images unlike all training images lead to people of the space.

One image of each person is distorted and inverted with the preset for what the space never saw.
The model must draw a whole person of the world, with the traits that the distortion left visible.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ..errors import InputError
from ..inversion import PRESETS
from ..metrics.attributes import SEEN
from ..sheets import image_grid
from ._edits import same_person
from ._estimates import above_zero, estimate, mean
from ._images import colourfulness, sketch
from ._inversions import draw_people, inverted
from ._report import Result, Sheet, Table
from ._setting import HeldOut, Setting

QUICK = {"people": 6}

COLOURS = {
    "Black_Hair",
    "Brown_Hair",
    "Blond_Hair",
    "Red_Hair",
    "Gray_Hair",
    "Pale_Skin",
    "Dark_Skin",
    "Blue_Eyes",
    "Wearing_Lipstick",
    "Rosy_Cheeks",
}
"""Labels that cannot be read off an image without its colours."""

Pixels = UInt8[np.ndarray, "h w 3"]


def invert_colours(pixels: Pixels) -> Pixels:
    """Return the negative of an image."""
    return 255 - pixels


def pixelate(pixels: Pixels, across: int = 16) -> Pixels:
    """Show an image as that many flat squares from side to side, or more where they must fit."""
    height, width = pixels.shape[:2]
    wanted = range(max(1, width // across), 0, -1)
    side = next(side for side in wanted if height % side == 0 and width % side == 0)
    blocks = pixels.reshape(height // side, side, width // side, side, 3)
    flat = blocks.mean((1, 3), keepdims=True).round().astype(np.uint8)
    return np.broadcast_to(flat, blocks.shape).reshape(pixels.shape)


def cover_half(pixels: Pixels) -> Pixels:
    """Lay grey paper on the right half of an image."""
    covered = pixels.copy()
    covered[:, covered.shape[1] // 2 :] = 128
    return covered


DISTORTIONS: dict[str, tuple[Callable[[Pixels], Pixels], bool]] = {
    "pencil sketch": (sketch, False),
    "inverted colours": (invert_colours, False),
    "pixelated": (pixelate, True),
    "half covered": (cover_half, True),
}
"""What is done to the images, and whether their colours still tell something."""


def figure8(
    setting: Setting,
    *,
    people: int = 24,
    prompts: int = 1,
    seeds: int = 2,
    steps: int | None = None,
    shown: int = 4,
) -> Result:
    """Invert distorted images, and the undistorted ones beside them.

    Args:
        setting: with held-out people.
        people: of the setting's.
        prompts: of the images, all new to the models.
        seeds: of the images.
        steps: of the search; None takes the preset's.
        shown: people on the sheet.
    """
    chosen = setting.people.first(people)
    names = list(chosen.names)
    recipe = PRESETS["ood"]
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    photos = setting.images_of(names, 1)[:, 0]
    references = setting.references(names)
    labels = _known_labels(setting, chosen)
    truth = torch.tensor(chosen.labels[labels].to_numpy(bool))
    columns = [setting.scorer.label_names.index(label) for label in labels]
    shapes = torch.tensor([label not in COLOURS for label in labels])
    kinds = {"undistorted": (np.array, True), **DISTORTIONS}
    figures, sheet = {}, []
    for name, (distort, colours) in kinds.items():
        images = np.stack([distort(photo) for photo in photos])
        weights = inverted(setting, names, images=torch.from_numpy(images), recipe=recipe)
        drawn = draw_people(setting, weights, prompts, seeds)
        visible = shapes | colours
        right, chance = agreements(drawn.attributes[..., columns][..., visible], truth[:, visible])
        figures[name] = {
            "agreement": estimate(right),
            "chance": estimate(chance),
            "gain": estimate(right.mean(1) - chance),
            "labels": int(visible.sum()),
            "id_score": estimate(setting.likeness(drawn, references)),
            "same_person": estimate(same_person(drawn)),
            "colour": estimate(colourfulness(drawn.images)),
        }
        sheet += [torch.from_numpy(images[:shown]), drawn.images[:shown, 0, 0]]
    plain = figures["undistorted"]
    checks = {
        f"{name.capitalize()}: the visible traits stay, beyond chance": above_zero(f["gain"])
        for name, f in figures.items()
        if f["gain"] is not None
    }
    usual, least = mean(plain["colour"]), min(mean(f["colour"]) for f in figures.values())
    checks["Whatever is shown, people come out in colour: at least 0.8 of the usual"] = (
        least >= 0.8 * usual > 0
    )
    measures = ("agreement", "chance", "id_score", "same_person", "colour")
    rows = [[name, f["labels"], *(f[m] for m in measures)] for name, f in figures.items()]
    captions = [text for name in kinds for text in (name, "its model draws")]
    return Result(
        "figure8",
        "Figures 8 and 24: projecting what the space never saw",
        "inverting a painting, a cartoon, a sketch or an animal gives a realistic person with its"
        " features.",
        checks,
        figures,
        [
            Table(
                f"{len(names)} people, one image each, preset ood",
                [
                    "the image",
                    "labels that it shows",
                    "seen as they are",
                    "as those of others",
                    "ID score",
                    "two images of a model",
                    "colour, grey levels",
                ],
                rows,
            )
        ],
        [
            Sheet(
                "people",
                image_grid(torch.stack(sheet, 1), (), captions),
                "Each row one person.",
                760,
            )
        ],
        "Sketches and negatives tell nothing of hair and skin colour: only labels of shape count.",
    )


def _known_labels(setting: Setting, people: HeldOut) -> list[str]:
    """Return the labels that are known of all people."""
    complete = set(people.labels.columns[people.labels.notna().all()])
    known = [name for name in setting.scorer.label_names if name in complete]
    if not known:
        raise InputError(
            "no label is known of all held-out people: expected a dataset with labels, as w2w train"
            " keeps those of w2w world"
        )
    return known


def agreements(
    seen: Float[Tensor, "k p s labels"], truth: Bool[Tensor, "k labels"]
) -> tuple[Float[Tensor, "k images"], Float[Tensor, " k"]]:
    """Return the share of labels seen as they are for each image, and as those of the others."""
    read = (seen > SEEN).flatten(1, 2)
    right = (read == truth[:, None]).float().mean(-1)
    with_all = (read[:, :, None] == truth[None, None]).float().mean((1, 3))  # models × people
    others = with_all.sum(1) - with_all.diagonal()
    return right, others / max(len(truth) - 1, 1)
