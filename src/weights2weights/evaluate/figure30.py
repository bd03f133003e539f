"""Figure 30: identity of inversions against the number of components that are sought."""

from collections.abc import Sequence

from ..generate import grid
from ._edits import mean
from ._inversions import draw_people, inverted
from ._plots import COLORS, level, line, plot
from ._report import Estimate, Picture, Result, Table
from ._setting import Setting, estimate

QUICK = {"people": 6, "prompts": 1}


def figure30(
    setting: Setting,
    *,
    components: Sequence[int] | None = None,
    people: int = 50,
    prompts: int = 2,
    seeds: int = 2,
    shown: int = 4,
) -> Result:
    """Invert one picture of each person with more and more components.

    Args:
        setting: with held-out people.
        components: how many to seek; None goes from 3 to all in steps of about √10 and 2.
        people: of the setting's.
        prompts: of the pictures, all new to the models.
        seeds: of the pictures.
        shown: people on the sheet.
    """
    most = len(setting.space)
    counts = [*(j for j in (3, 10, 30, 100, 300, 1000, 3000) if j < 0.8 * most), most]
    counts = counts if components is None else list(components)
    chosen = setting.people.first(people)
    references = setting.references(chosen.names)
    drawn = {
        j: draw_people(setting, inverted(setting, chosen.names, components=j), prompts, seeds)
        for j in counts
    }
    scores = {j: estimate(setting.likeness(seen, references)) for j, seen in drawn.items()}
    many = draw_people(setting, chosen.weights, prompts, seeds)
    dreambooth = estimate(setting.likeness(many, references))
    means = [mean(scores[j]) for j in counts]
    best = counts[max(range(len(counts)), key=means.__getitem__)]
    figures = {
        "people": len(chosen),
        "components": counts,
        "id_score": [scores[j] for j in counts],
        "best": best,
        "dreambooth_on_ten": dreambooth,
    }
    rows = [[f"{j:,} components", scores[j]] for j in counts]
    rows.append(["DreamBooth on ten pictures", dreambooth])
    table = [[seen.pictures[i, 0, 0] for seen in drawn.values()] for i in range(len(chosen))]
    return Result(
        "figure30",
        "Figure 30: identity of inversions against the number of components",
        "the ID score of inversion rises with the number of components up to 10,000; 1,000"
        " underfit, 20,000 overfit.",
        {
            "Few components underfit: the score rises from the fewest to the best": (
                means[0] < max(means)
            ),
            "Too many overfit: the score falls from the best to the most": means[-1] < max(means),
        },
        figures,
        [Table(f"ID score of {len(chosen)} people, one picture each", ["", "ID score"], rows)],
        [
            _plot(counts, [scores[j] for j in counts], dreambooth),
            _sheet(setting, list(chosen.names), table[:shown], counts),
        ],
        "The statement about too many is the paper's for 65,000 models; a smaller space may have"
        " fewer components than it takes.",
    )


def _plot(
    counts: Sequence[int], scores: Sequence[Estimate | None], dreambooth: Estimate | None
) -> Picture:
    with plot(size=(6.4, 3.6)) as p:
        line(p.axes, counts, scores, "w2w, one picture", COLORS[0])
        level(p.axes, dreambooth, "DreamBooth, ten pictures")
        p.axes.set_xscale("log")
        p.axes.set_xlabel("components sought")
        p.axes.set_ylabel("ID score")
        p.axes.legend()
    return Picture("id", p.image, "ID score in new scenes, 95 % intervals over people.")


def _sheet(setting: Setting, names: list[str], table: list, counts: Sequence[int]) -> Picture:
    import torch

    photos = torch.from_numpy(setting.pictures_of(names[: len(table)], 1)[:, 0])
    cells = torch.stack([torch.stack([photos[i], *row]) for i, row in enumerate(table)])
    columns = ["the picture", *(f"{j:,} components" for j in counts)]
    caption = "Each row one person: the picture that was inverted, then the model in a new scene."
    return Picture("people", grid(cells, (), columns), caption, 560)
