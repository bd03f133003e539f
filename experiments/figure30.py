"""Figure 30: identity of inversions against the number of optimised components."""

from collections.abc import Sequence
from typing import Any

from .estimates import above_zero, estimate, mean
from .inversions import generate_people, inverted, people_sheet
from .plots import identity_plot
from .result import Check, Result, Table
from .setting import ExperimentSetting
from .subspace import sizes_up_to

QUICK = {"people": 6, "prompts": 1}


def figure30(
    setting: ExperimentSetting,
    *,
    components: Sequence[int] | None = None,
    people: int = 24,
    prompts: int = 2,
    seeds: int = 2,
    shown: int = 4,
) -> Result:
    """Invert one image of each person with more and more components.

    Args:
        setting: with held-out people.
        components: how many to optimise; None takes 3, 10, 30, 100, …, and all.
        people: number of people.
        prompts: prompts of the images, none used in training.
        seeds: seeds of the images.
        shown: people on the sheet.
    """
    counts = sizes_up_to(len(setting.space), least=3) if components is None else list(components)
    chosen = setting.people.first(people)
    references = setting.references(chosen.names)
    drawn = {
        j: generate_people(setting, inverted(setting, chosen.names, components=j), prompts, seeds)
        for j in counts
    }
    likeness = {j: setting.id_scores(seen, references) for j, seen in drawn.items()}
    scores = {j: estimate(values) for j, values in likeness.items()}
    many = generate_people(setting, chosen.weights, prompts, seeds)
    dreambooth = estimate(setting.id_scores(many, references))
    means = [mean(scores[j]) for j in counts]
    best = counts[max(range(len(counts)), key=means.__getitem__)]
    figures: dict[str, Any] = {
        "people": len(chosen),
        "components": counts,
        "id_score": [scores[j] for j in counts],
        "best": best,
        # paired: the same people, prompts and seeds
        "best_minus_fewest": estimate(likeness[best] - likeness[counts[0]]),
        "best_minus_most": estimate(likeness[best] - likeness[counts[-1]]),
        "dreambooth_on_ten": dreambooth,
    }
    rows = [[f"{j:,} components", scores[j]] for j in counts]
    rows.append(["DreamBooth on ten images", dreambooth])
    sheet = {f"{j:,} components": seen.images[:, 0, 0] for j, seen in drawn.items()}
    return Result(
        "figure30",
        "Figure 30: identity of inversions against the number of components",
        "the ID score of inversion rises with the number of components up to 10,000; 1,000"
        " underfit, 20,000 overfit.",
        [
            Check(
                "Few components underfit: the score rises from the fewest to the best",
                above_zero(figures["best_minus_fewest"]),
                figures["best_minus_fewest"],
            ),
            Check(
                "Too many overfit: the score falls from the best to the most",
                above_zero(figures["best_minus_most"]),
                figures["best_minus_most"],
            ),
        ],
        figures,
        [Table(f"ID score of {len(chosen)} people, one image each", ["", "ID score"], rows)],
        [
            identity_plot(counts, figures["id_score"], dreambooth, "components optimised"),
            people_sheet(setting, chosen.names[:shown], sheet),
        ],
        "A score rises or falls if the whole 95 % interval of the paired difference lies above 0."
        " The paper reports overfitting for 65,000 models; a smaller space may not have enough"
        " components for it.",
    )
