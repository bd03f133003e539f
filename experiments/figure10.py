"""Figure 10: identity of inversions against the number of models of the space."""

from collections.abc import Sequence
from typing import Any

import torch

from .estimates import Estimate, estimate, mean, rises
from .inversions import generate_people, inverted
from .plots import identity_plot
from .result import Check, Result, Table
from .setting import ExperimentSetting
from .subspace import draw_subset, sizes_up_to, subspace

QUICK = {"people": 4, "resamplings": 2, "seeds": 1}


def figure10(
    setting: ExperimentSetting,
    *,
    sizes: Sequence[int] | None = None,
    resamplings: int = 5,
    people: int = 12,
    prompts: int = 2,
    seeds: int = 2,
) -> Result:
    """Invert one image of each person in spaces fitted to more and more models.

    Args:
        setting: with held-out people.
        sizes: numbers of models; None takes 10, 30, 100, 300, …, and all.
        resamplings: random sets of each size, except that of all models.
        people: number of people.
        prompts: prompts of the images, none used in training.
        seeds: seeds of the images.
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
            drawn = generate_people(setting, weights, prompts, seeds)
            of_size.append(setting.id_scores(drawn, references))
        # one row per person: the interval is over people, each with all resamplings
        scores[size] = estimate(torch.stack(of_size, 1))
    many = generate_people(setting, chosen.weights, prompts, seeds)
    dreambooth = estimate(setting.id_scores(many, references))
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
        [
            Check(
                "The ID score grows from the fewest models to all",
                means[-1] > means[0],
                [means[0], means[-1]],
            ),
            Check("The ID score grows from each number of models to the next", rises(means), means),
        ],
        figures,
        [Table(f"ID score of {len(chosen)} people", ["models in the space", "ID score"], rows)],
        [identity_plot(sizes, figures["id_score"], dreambooth, "models in the space")],
        "For every resampling, models are drawn at random and a space is fitted to them; all of its"
        " components are optimised.",
    )
