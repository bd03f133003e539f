"""The README's image: four held-out people, each edited along eight directions of the space.

    python benchmarks/readme_image.py --held-out weights/held-out --out docs/images/edits.png

Each column adds what a person lacks, or removes what the person has.
"""

import argparse
from pathlib import Path

import torch

from weights2weights import WeightDataset, WeightSpace, find_direction, load_base
from weights2weights.evaluate.edits import edited
from weights2weights.generation import generate
from weights2weights.metrics.attributes import SEEN
from weights2weights.sheets import image_grid
from weights2weights.worlds import shipped
from weights2weights.worlds.scorers import Scorer

LABELS = (
    *("Male", "Young", "Dark_Skin", "Wavy_Hair"),
    *("Full_Beard", "Eyeglasses", "Chubby", "Wearing_Hat"),
)
PROMPT = "a photo of sks person"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--held-out", type=Path, required=True, help="dataset of their DreamBooth")
    parser.add_argument("--people", type=int, nargs="+", default=[3, 9, 10, 14], help="row numbers")
    parser.add_argument("--strength", type=float, default=3.0, help="in standard deviations")
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    parser.add_argument("--out", type=Path, default=Path("docs/images/edits.png"))
    given = parser.parse_args()

    base, space = load_base("people"), WeightSpace.from_pretrained("people")
    scorer = Scorer.load(shipped("people", "scorer"))
    held_out = WeightDataset.open(given.held_out)
    points = space.project(held_out[[held_out.names[i] for i in given.people]])

    def draw(coefficients: torch.Tensor) -> torch.Tensor:
        weights = space.to_weights(coefficients)
        images = generate(base, weights, layout=space.layout, prompts=PROMPT, seeds=given.seed)
        return images[:, 0, 0]

    before = draw(points)
    read = scorer.attributes(before.numpy())
    columns = [before]
    for label in LABELS:
        lacks = read[:, scorer.label_names.index(label)] <= SEEN
        change = {find_direction(space, label): given.strength}
        columns.append(draw(edited(points, change, lacks)))
    titles = ["before", *(label.replace("_", " ").lower() for label in LABELS)]
    sheet = image_grid(torch.stack(columns, 1), (), titles, cell=96)
    sheet.quantize(256).save(given.out, optimize=True)  # a third of the bytes


if __name__ == "__main__":
    main()
