"""Figure 10: identity of inversions against the number of models that the space is made of."""

from collections.abc import Sequence
from typing import Any

import torch

from ._estimates import estimate, mean, rises
from ._inversions import draw_people, inverted
from ._plots import identity_plot
from ._report import Estimate, Result, Table
from ._setting import Setting
from ._subspace import draw_subset, sizes_up_to, subspace

QUICK = {"people": 4, "resamplings": 2, "seeds": 1}


def figure10(
    setting: Setting,
    *,
    sizes: Sequence[int] | None = None,
    resamplings: int = 5,
    people: int = 12,
    prompts: int = 2,
    seeds: int = 2,
) -> Result:
    """Invert one image of each person in spaces of more and more models.

    Args:
        setting: with held-out people.
        sizes: numbers of models; None takes 10, 30, 100, 300, …, and all.
        resamplings: of each number; of all models there is only one.
        people: of the setting's.
        prompts: of the images, all new to the models.
        seeds: of the images.
    """
    space = setting.space
    sizes = sizes_up_to(len(space.names)) if sizes is None else list(sizes)
    chosen = setting.people.first(people)
    references = setting.references(chosen.names)
    scores: dict[int, Estimate | None] = {}
    for size in sizes:
        of_size = []
        for resampling in range(1 if size == len(space.names) else resamplings):
            smaller = subspace(space, draw_subset(space, size, resampling, setting.seed))
            weights = inverted(setting, chosen.names, space=smaller)
            drawn = draw_people(setting, weights, prompts, seeds)
            of_size.append(setting.likeness(drawn, references))
        # a row for each person, so that the interval is over people and all their resamplings
        scores[size] = estimate(torch.stack(of_size, 1))
    many = draw_people(setting, chosen.weights, prompts, seeds)
    dreambooth = estimate(setting.likeness(many, references))
    means = [mean(scores[size]) for size in sizes]
    figures: dict[str, Any] = {
        "people": len(chosen),
        "resamplings": resamplings,
        "sizes": sizes,
        "id_score": [scores[size] for size in sizes],
        "dreambooth_on_ten": dreambooth,
    }
    rows = [[f"{size:,}", scores[size]] for size in sizes]
    rows.append(["DreamBooth on ten images", dreambooth])
    return Result(
        "figure10",
        "Figure 10: identity of inversions against the number of models",
        "the ID score of inversion grows with the number of models, towards that of DreamBooth on"
        " many images.",
        {
            f"The ID score grows from {sizes[0]} to {sizes[-1]:,} models"
            f" (here from {means[0]:.3f} to {means[-1]:.3f})": means[-1] > means[0],
            "It grows from each number of models to the next": rises(means),
        },
        figures,
        [Table(f"ID score of {len(chosen)} people", ["models in the space", "ID score"], rows)],
        [identity_plot(sizes, figures["id_score"], dreambooth, "models in the space")],
        "Each number of models is drawn anew for every resampling, and the space fitted to them;"
        " all of its components are sought.",
    )
