"""Figure 33: a person merged with a style, a LoRA of another kind."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from weights2weights.merging import cosine, merge_weights
from weights2weights.metrics.verification import verification_auc
from weights2weights.sheets import image_grid
from weights2weights.subjects import find_subjects
from weights2weights.worlds import USER_POPULATIONS

from .estimates import estimate, mean
from .held_out import HELD_OUT
from .images import colourfulness, sketch, write_image
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting

QUICK = {"people": 6, "images": 12}

STYLE = "pencil sketch"


def figure33(
    setting: ExperimentSetting,
    *,
    weights: Sequence[float] = (0.0, 0.5, 1.0),
    people: int = 24,
    seeds: int = 1,
    images: int = 24,
    shown: int = 4,
) -> Result:
    """Train a style on sketches of other people, and merge it with people of the space.

    Args:
        setting: with held-out people.
        weights: merge weights of the style.
        people: number of people.
        seeds: seeds of the images.
        images: training images of the style, each of another person.
        shown: people on the sheet.
    """
    space, noises = setting.space, list(range(seeds))
    rows = space.to_weights(space.project(setting.people.first(people).weights))
    style = _style(setting, images)
    texts = setting.prompts[:1]
    before = setting.generate(rows, texts, noises)
    sketches = setting.score(_as_sketches(before.images))
    who = torch.arange(len(rows)).repeat_interleave(seeds)
    figures, columns = {}, []
    for weight in weights:
        merged, layout = [], setting.layout
        for row in rows:
            layout, one = merge_weights(setting.layout, row, setting.layout, style, weight=weight)
            merged.append(one.float())
        after = setting.generate(torch.stack(merged), texts, noises, layout=layout)
        columns.append(after.images[:shown, 0, 0])
        figures[f"{weight:g}"] = {
            "colour": estimate(colourfulness(after.images)),
            # identification against the sketch of each person
            "verification_auc": verification_auc(
                after.identity.flatten(0, 2), who, sketches.identity.flatten(0, 2), who
            ),
            "id_score_to_sketch": estimate((after.identity * sketches.identity).sum(-1)),
        }
    cosines = estimate(
        torch.tensor([cosine(setting.layout, row, setting.layout, style) for row in rows]).abs()
    )
    first, last = (figures[f"{weight:g}"] for weight in (weights[0], weights[-1]))
    table = [
        [f"weight {w}", f["colour"], f["id_score_to_sketch"], f["verification_auc"]]
        for w, f in figures.items()
    ]
    drawn = torch.stack([*columns, sketches.images[:shown, 0, 0]], 1)
    captions = [*(f"style × {weight:g}" for weight in weights), "the image, sketched"]
    return Result(
        "figure33",
        f"Figure 33: people merged with a style, {STYLE}",
        "a model of the space can be merged with a LoRA of another kind, such as a style, which is"
        " near-orthogonal to it; both remain visible.",
        [
            Check(
                "The style is visible: less than half of the colour is left",
                mean(last["colour"]) < mean(first["colour"]) / 2,
                [mean(first["colour"]), mean(last["colour"])],
            ),
            Check(
                "The person is recognisable: verification AUC against sketches above 0.9",
                last["verification_auc"] > 0.9,
                last["verification_auc"],
            ),
            Check(
                "Person and style are near-orthogonal: mean absolute cosine below 0.1",
                mean(cosines) < 0.1,
                cosines,
            ),
        ],
        {"weights": figures, "cosine": cosines, "people": len(rows)},
        [
            Table(
                f"{len(rows)} people; cosine of person and style {mean(cosines):.3f}",
                ["", "colour, grey levels", "ID score to the sketched image", "AUC"],
                table,
            )
        ],
        [Sheet("people", image_grid(drawn, (), captions), "One person per row.", 420)],
        "The references are the unmerged images, turned into sketches by a filter.",
    )


def _as_sketches(images: UInt8[Tensor, "k p s h w 3"]) -> UInt8[Tensor, "k p s h w 3"]:
    flat = images.flatten(0, 2).numpy()
    return torch.from_numpy(np.stack([sketch(one) for one in flat])).view_as(images)


def _style(setting: ExperimentSetting, images: int) -> Float[Tensor, " d"]:
    """Train the style's LoRA: DreamBooth for the class prompt, without prior preservation."""
    recipe = replace(
        setting.recipe, instance_prompt=setting.recipe.class_prompt, prior_loss_weight=0.0
    )
    inputs = {"style": STYLE, "images": images, **setting.inputs}

    def learn() -> dict[str, Tensor]:
        population = USER_POPULATIONS + HELD_OUT + 10 + setting.seed
        with TemporaryDirectory() as place:
            folder = Path(place) / "style"
            folder.mkdir()
            for i in range(images):
                subject = setting.world.subject(population, i)
                image = setting.world.image(population, i, 0)
                pixels = setting.world.draw(subject, image, setting.base.size)
                said = setting.world.surroundings(image)
                write_image(folder / f"{i:03d}.png", sketch(pixels), said)
            weights, cache = Path(place) / "weights", Path(place) / "cache"
            learner = replace(setting, recipe=recipe)
            dataset = learner.train(find_subjects(folder), weights, cache=cache)
            return {"weights": dataset[0]}

    return setting.cache.tensors(inputs, learn)["weights"]
