"""Are people recognised in what their DreamBooth models draw? A sweep over recipes.

    python benchmarks/dreambooth.py --set steps=600 --set "steps=400 learning_rate=0.003"
    python benchmarks/dreambooth.py --halves --set start=random --set start=base

Each --set is one recipe, as changes to the people recipe. Held-out persons are trained together and
drawn in contexts that none of their images has; identity and labels are compared with other
images of the same persons. Prints a row per recipe; images and figures go to --out.

With --halves every person is learned twice, from the first and from the second half of the
images. Repeatability is the mean cosine of the two standardised weight vectors: what of a vector
is the person, and not chance. A space can hold no more than that.
"""

import argparse
import ast
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from weights2weights import load_base
from weights2weights.generation import generate
from weights2weights.metrics.verification import id_score, roc_auc, verification_auc
from weights2weights.sheets import image_grid
from weights2weights.subjects import Subject, find_subjects
from weights2weights.training import PRESETS, train
from weights2weights.worlds import USER_POPULATIONS, load_world, shipped
from weights2weights.worlds.folders import write_subjects
from weights2weights.worlds.scorers import Scorer

PROMPTS = (
    "a photo of sks person",
    "a photo of sks person, smiling, blue background",
    "a photo of sks person, on a beach",
    "a portrait of sks person, laughing, red shirt",
)
SEEDS = (0, 1)
OTHER_PICTURES = range(1000, 1004)  # never trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="people")
    parser.add_argument("--scorer", type=Path, default=shipped("people", "scorer"))
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--halves", action="store_true", help="learn everybody twice")
    parser.add_argument("--set", action="append", default=[], dest="recipes")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--seed", type=int, default=7, help="of the population")
    parser.add_argument("--out", type=Path, default=Path("out/dreambooth"))
    given = parser.parse_args()
    for number in range(len(given.recipes or [""])):
        if (weights := given.out / f"weights-{number}").exists():
            raise SystemExit(
                f"{weights} is there already: training would only go on where it ended, and its"
                " seconds would mean nothing; give another --out"
            )

    base = load_base(given.base, dtype=getattr(torch, given.dtype))
    scorer = Scorer.load(given.scorer)
    folder = given.out / f"subjects-{given.seed}-{given.subjects}-{given.images}"
    write_subjects(
        "people",
        folder,
        subjects=given.subjects,
        images=given.images,
        size=base.size,
        seed=given.seed,
        progress=True,
    )
    subjects = find_subjects(folder)
    if given.halves:
        subjects = [part(one, half) for half in (0, 1) for one in subjects]
    others, truth = other_images(given.seed, given.subjects, base.size)
    rows = []
    for number, text in enumerate(given.recipes or [""]):
        changes = {
            name: number_or_word(value)
            for name, value in (item.split("=", 1) for item in text.split())
        }
        started = time.perf_counter()
        dataset = train(
            base,
            subjects,
            given.out / f"weights-{number}",
            PRESETS["people"],
            cache=given.out / "cache",
            progress=True,
            **changes,
        )
        seconds = time.perf_counter() - started
        weights = dataset[:]
        once = weights[: given.subjects]
        images = generate(base, once, layout=dataset.layout, prompts=PROMPTS, seeds=SEEDS).flatten(
            1, 2
        )
        figures = judge(scorer, images, others, truth)
        if given.halves:
            figures["repeatability"] = repeatability(once, weights[given.subjects :])
        rows.append({"recipe": text, "seconds_per_subject": seconds / len(weights), **figures})
        print(json.dumps(rows[-1]), flush=True)
        shown = torch.cat([torch.from_numpy(others[:, :2]), images[:, ::2]], 1)
        image_grid(shown, cell=96).save(given.out / f"images-{number}.png")
    facts = {"base": base.hash, "subjects": given.subjects, "seed": given.seed, "rows": rows}
    (given.out / "figures.json").write_text(json.dumps(facts, indent=1))


def number_or_word(text: str) -> object:
    """Return the value of "0.01", "None" or "base"."""
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def part(subject: Subject, half: int) -> Subject:
    """Return a subject with the first or the second half of its images."""
    middle = len(subject.images) // 2
    chosen = slice(middle) if half == 0 else slice(middle, None)
    return replace(
        subject,
        name=f"{subject.name}-{half}",
        images=subject.images[chosen],
        masks=subject.masks[chosen],
        captions=subject.captions[chosen],
    )


def repeatability(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the mean cosine of two weight vectors "n d" of one person, standardised over all."""
    both = torch.cat([first, second])
    std = both.std(0)
    standard = torch.where(std > 0, (both - both.mean(0)) / std.clamp(min=1e-12), 0)
    one, other = standard.split(len(first))
    return float(torch.nn.functional.cosine_similarity(one, other).mean())


def other_images(seed: int, subjects: int, size: int) -> tuple[np.ndarray, torch.Tensor]:
    """Draw images that were not trained on, "subjects images h w 3", and give the labels."""
    world, population = load_world("people"), USER_POPULATIONS + seed
    people = [world.subject(population, index) for index in range(subjects)]
    drawn = [
        [world.draw(one, world.image(population, index, n), size) for n in OTHER_PICTURES]
        for index, one in enumerate(people)
    ]
    labels = [[world.labels(one)[name] for name in world.label_names] for one in people]
    return np.array(drawn), torch.tensor(labels)


def judge(
    scorer: Scorer, images: torch.Tensor, others: np.ndarray, truth: torch.Tensor
) -> dict[str, float]:
    """Compare generated images "subjects images h w 3" with drawn ones of the same subjects."""
    K, each, more = len(images), images.shape[1], others.shape[1]
    made = images.flatten(0, 1).numpy()
    embedded = scorer.identity(made)
    reference = scorer.identity(others.reshape(-1, *others.shape[2:]))
    subjects = torch.arange(K)
    centres = reference.view(K, more, -1).mean(1)
    found = (embedded @ torch.nn.functional.normalize(centres, dim=-1).T).argmax(1)
    same = id_score(embedded.view(K, each, 1, -1), reference.view(K, 1, more, -1))
    within = id_score(reference.view(K, more, 1, -1), reference.view(K, 1, more, -1))
    read = scorer.attributes(made).view(K, each, -1).mean(1)
    both = [i for i in range(truth.shape[1]) if 0 < int(truth[:, i].sum()) < K]
    return {
        "verification_auc": verification_auc(
            embedded, subjects.repeat_interleave(each), reference, subjects.repeat_interleave(more)
        ),
        "retrieval": float((found == subjects.repeat_interleave(each)).float().mean()),
        "id_score": float(same.mean()),
        "id_score_of_renders": float((within.sum() - K * more) / (K * more * (more - 1))),
        "label_auc": float(np.mean([roc_auc(read[:, i], truth[:, i]) for i in both])),
        "label_accuracy": float(((read > 0.5) == truth).float().mean()),
    }


if __name__ == "__main__":
    main()
