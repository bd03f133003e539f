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

from weights2weights.errors import InputError
from weights2weights.inversion import PRESETS
from weights2weights.metrics.attributes import SEEN
from weights2weights.sheets import image_grid

from .edits import same_person
from .estimates import above_zero, estimate, mean
from .held_out import HeldOut
from .images import colourfulness, sketch
from .inversions import generate_people, inverted
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting

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
"""Labels that an image without colours does not show."""

Pixels = UInt8[np.ndarray, "h w 3"]


def invert_colours(pixels: Pixels) -> Pixels:
    """Return the negative of an image."""
    return 255 - pixels


def pixelate(pixels: Pixels, across: int = 16) -> Pixels:
    """Replace an image by about that many flat squares from side to side."""
    height, width = pixels.shape[:2]
    wanted = range(max(1, width // across), 0, -1)
    side = next(side for side in wanted if height % side == 0 and width % side == 0)
    blocks = pixels.reshape(height // side, side, width // side, side, 3)
    flat = blocks.mean((1, 3), keepdims=True).round().astype(np.uint8)
    return np.broadcast_to(flat, blocks.shape).reshape(pixels.shape)


def cover_half(pixels: Pixels) -> Pixels:
    """Cover the right half of an image in grey."""
    covered = pixels.copy()
    covered[:, covered.shape[1] // 2 :] = 128
    return covered


DISTORTIONS: dict[str, tuple[Callable[[Pixels], Pixels], bool]] = {
    "pencil sketch": (sketch, False),
    "inverted colours": (invert_colours, False),
    "pixelated": (pixelate, True),
    "half covered": (cover_half, True),
}
"""The distortions of the images, and whether colours survive them."""


def figure8(
    setting: ExperimentSetting,
    *,
    people: int = 24,
    prompts: int = 1,
    seeds: int = 2,
    steps: int | None = None,
    shown: int = 4,
) -> Result:
    """Invert distorted images, and the undistorted ones for comparison.

    Args:
        setting: with held-out people.
        people: number of people.
        prompts: prompts of the images, none used in training.
        seeds: seeds of the images.
        steps: inversion steps; None takes the preset's.
        shown: people on the sheet.
    """
    chosen = setting.people.first(people)
    names = list(chosen.names)
    recipe = PRESETS["ood"]
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    photos = setting.drawings(names, 1)[:, 0]
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
        drawn = generate_people(setting, weights, prompts, seeds)
        visible = shapes | colours
        right, chance = agreements(drawn.attributes[..., columns][..., visible], truth[:, visible])
        figures[name] = {
            "agreement": estimate(right),
            "chance": estimate(chance),
            "gain": estimate(right.mean(1) - chance),
            "labels": int(visible.sum()),
            "id_score": estimate(setting.id_scores(drawn, references)),
            "same_person": estimate(same_person(drawn)),
            "colour": estimate(colourfulness(drawn.images)),
        }
        sheet += [torch.from_numpy(images[:shown]), drawn.images[:shown, 0, 0]]
    plain = figures["undistorted"]
    checks = [
        Check(
            f"{name.capitalize()}: the visible attributes are preserved above chance",
            above_zero(f["gain"]),
            f["gain"],
        )
        for name, f in figures.items()
        if f["gain"] is not None
    ]
    usual, least = mean(plain["colour"]), min(mean(f["colour"]) for f in figures.values())
    checks.append(
        Check(
            "Every inversion generates people in colour: at least 0.8 of the usual colourfulness",
            least >= 0.8 * usual > 0,
            [least, usual],
        )
    )
    measures = ("agreement", "chance", "id_score", "same_person", "colour")
    rows = [[name, f["labels"], *(f[m] for m in measures)] for name, f in figures.items()]
    captions = [text for name in kinds for text in (name, "generated")]
    return Result(
        "figure8",
        "Figures 8 and 24: inverting out-of-distribution images",
        "inverting a painting, a cartoon, a sketch or an animal gives a realistic person with its"
        " features.",
        checks,
        figures,
        [
            Table(
                f"{len(names)} people, one image each, preset ood",
                [
                    "the image",
                    "labels it shows",
                    "labels that agree",
                    "with another person",
                    "ID score",
                    "two images of a model",
                    "colourfulness, grey levels",
                ],
                rows,
            )
        ],
        [
            Sheet(
                "people",
                image_grid(torch.stack(sheet, 1), (), captions),
                "One person per row.",
                760,
            )
        ],
        "Sketches and negatives do not show hair and skin colour, so only labels of shape count.",
    )


def _known_labels(setting: ExperimentSetting, people: HeldOut) -> list[str]:
    """Return the labels that are known for all people."""
    complete = set(people.labels.columns[people.labels.notna().all()])
    known = [name for name in setting.scorer.label_names if name in complete]
    if not known:
        raise InputError(
            "no label is known for all held-out people: expected a dataset with the labels that w2w"
            " world writes"
        )
    return known


def agreements(
    seen: Float[Tensor, "k p s labels"], truth: Bool[Tensor, "k labels"]
) -> tuple[Float[Tensor, "k images"], Float[Tensor, " k"]]:
    """Return the share of labels that agree with the person, and with the other people."""
    read = (seen > SEEN).flatten(1, 2)
    right = (read == truth[:, None]).float().mean(-1)
    with_all = (read[:, :, None] == truth[None, None]).float().mean((1, 3))  # models × people
    others = with_all.sum(1) - with_all.diagonal()
    return right, others / max(len(truth) - 1, 1)
