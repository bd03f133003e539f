"""Seconds and likeness of inversion: the authors' algorithm, and ours, on the same photos.

    python benchmarks/inversion.py --held-out weights/held-out --out out/inversion
    python benchmarks/inversion.py --held-out … --set "steps=20" --set "steps=40 learning_rate=0.1"
    python benchmarks/inversion.py --held-out … --components-sweep 50 100 200 400 800

Without --set or --components-sweep, one run of four rivals, which take turns in each round:

1. authors: their algorithm as it is described, 400 steps at batch 1, the photo encoded in every
   step, each layer's slice of β Vᵀ multiplied in every forward pass; here written anew and plain.
2. paper: our preset of the same numbers. 3. fast: our default, for one photo. 4. fast for 16 photos
   in one call, by the photo.

Likeness is the ID score of images from the found models, in new prompts and seeds, against other
images of the persons; beside it stand the space's mean, which knows nobody, and DreamBooth on ten
images (--held-out). With --set each recipe is one row: changes to --preset. A person of the
held-out dataset is named as `w2w world` names folders, people-<seed>-<number>; the photo is the
first image. Prints a row of JSON per recipe; figures and grids go to --out.
"""

import argparse
import ast
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from dreambooth import OTHER_PICTURES, PROMPTS, SEEDS, judge
from torch import Tensor, nn

from weights2weights import WeightDataset, WeightSpace, load_base
from weights2weights.bases import Base
from weights2weights.generation import generate
from weights2weights.inversion import PRESETS, InversionConfig, invert
from weights2weights.sheets import image_grid
from weights2weights.training import default_config
from weights2weights.worlds import load_world, shipped
from weights2weights.worlds.folders import subject_of
from weights2weights.worlds.scorers import Scorer

BATCH = 16
PHOTO = 0  # number of the image that is inverted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="people")
    parser.add_argument("--space", default="people")
    parser.add_argument("--held-out", type=Path, required=True, help="dataset of their DreamBooth")
    parser.add_argument("--scorer", type=Path, default=shipped("people", "scorer"))
    parser.add_argument("--people", type=int, default=100, help="of the held-out, at most")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="fast")
    parser.add_argument("--set", action="append", default=[], dest="recipes", metavar="CHANGES")
    parser.add_argument("--components-sweep", type=int, nargs="+", default=[], metavar="M")
    parser.add_argument("--rivals", type=int, default=BATCH, help="people in the race")
    parser.add_argument("--rounds", type=int, default=3, help="in which rivals are timed in turn")
    parser.add_argument("--authors-steps", type=int, default=400, help="fewer only for a trial")
    parser.add_argument("--subjects-per-batch", type=int, help="photos at once")
    parser.add_argument("--prompt", help="what photos are called; default: that of the base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--draw-steps", type=int, default=20, help="of DDIM, when drawing")
    parser.add_argument("--out", type=Path, default=Path("out/inversion"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)

    setting = Setting(given)
    changes = [parse_changes(text) for text in given.recipes]
    changes += [{"components": m} for m in given.components_sweep]
    rows = sweep(setting, given, changes) if changes else race(setting, given)
    facts = {
        "base": setting.base.hash,
        "space": setting.space.hash,
        "components": len(setting.space),
        "people": len(setting.names),
        "dtype": given.dtype,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": given.threads,
            "device": given.device,
            "torch": torch.__version__,
        },
        "rows": rows,
    }
    (given.out / "figures.json").write_text(json.dumps(facts, indent=1) + "\n")


class Setting:
    """Held-out persons, their photos and other images, and how likeness is measured."""

    def __init__(self, given: argparse.Namespace):
        self.base = load_base(given.base, given.device, getattr(torch, given.dtype))
        self.space = WeightSpace.from_pretrained(given.space)
        self.scorer = Scorer.load(given.scorer)
        self.held_out = WeightDataset.open(given.held_out)
        self.names = self.held_out.names[: given.people]
        self.prompt = given.prompt or default_config(self.base).instance_prompt
        self.draw_steps, self.out = given.draw_steps, given.out
        world, size = load_world("people"), self.base.size
        people = [subject_of(world, name) for name in self.names]
        drawn = [world.subject(*one) for one in people]
        self.photos, self.others = (
            np.array(
                [
                    [world.draw(subject, world.image(*one, n), size) for n in numbers]
                    for subject, one in zip(drawn, people, strict=True)
                ]
            )
            for numbers in ([PHOTO], OTHER_PICTURES)
        )
        self.photos = self.photos[:, 0]
        labels = [[world.labels(one)[name] for name in world.label_names] for one in drawn]
        self.labels = torch.tensor(labels)

    def judge(self, weights: Tensor, name: str) -> dict[str, float]:
        """Draw the first len(weights) persons' models in new contexts and compare; keep a grid."""
        n = len(weights)
        drawn = generate(
            self.base,
            weights,
            layout=self.space.layout,
            prompts=PROMPTS,
            seeds=SEEDS,
            steps=self.draw_steps,
            progress=True,
        ).flatten(1, 2)
        photos = torch.from_numpy(self.photos[:n, None])
        others = torch.from_numpy(self.others[:n, :1])
        shown = torch.cat([photos, others, drawn[:, ::2]], 1)[:16]
        image_grid(shown, self.names[:16], cell=96).save(self.out / f"{name}.png")
        return judge(self.scorer, drawn, self.others[:n], self.labels[:n])


def parse_changes(text: str) -> dict[str, Any]:
    """Return the fields of "field=value field=value"; words need no quotes."""
    changes = {}
    for item in text.split():
        name, value = item.split("=", 1)
        try:
            changes[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            changes[name] = value
    return changes


def sweep(
    setting: Setting, given: argparse.Namespace, changes: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Invert all persons with every recipe."""
    rows = []
    for number, change in enumerate(changes):
        recipe = replace(PRESETS[given.preset], **change)
        begun = time.process_time()
        found = invert(
            setting.base,
            setting.space,
            setting.photos,
            config=recipe,
            prompt=setting.prompt,
            seed=given.seed,
            subjects_per_batch=given.subjects_per_batch,
            progress=True,
        )
        used = time.process_time() - begun
        if found.interrupted:
            raise KeyboardInterrupt
        rows.append(
            {
                "changes": change,
                "seconds_per_photo": found.seconds / len(setting.names),
                "processor_seconds_per_photo": used / len(setting.names),
                "start_loss": float(found.start_loss.mean()),
                "loss": float(found.loss.mean()),
                "steps": float(found.steps.float().mean()),
                "likeness_of_coefficients": agreement(setting, found.points),
                **setting.judge(setting.space.to_weights(found.points), f"recipe-{number}"),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def agreement(setting: Setting, coefficients: Tensor) -> float:
    """Return the mean cosine between the points found and those of DreamBooth on ten images."""
    weights = setting.held_out[list(setting.names[: len(coefficients)])]
    truth = setting.space.project(weights)
    return float(F.cosine_similarity(coefficients, truth).mean())


def race(setting: Setting, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Time the rivals in turn, then compare what they found."""
    fast, paper = PRESETS["fast"], replace(PRESETS["paper"], steps=given.authors_steps)
    authors = Authors(setting.base, setting.space, paper, setting.prompt)
    n = min(given.rivals, len(setting.names))
    seed = given.seed

    def ours(recipe: InversionConfig, photos: np.ndarray) -> Tensor:
        found = invert(
            setting.base,
            setting.space,
            photos,
            config=recipe,
            prompt=setting.prompt,
            seed=seed,
            subjects_per_batch=given.subjects_per_batch,
        )
        if found.interrupted:
            raise KeyboardInterrupt
        return found.points

    def single(invert_one: Callable[[np.ndarray], Tensor]) -> Callable[[int], Tensor]:
        return lambda i: invert_one(setting.photos[i % n : i % n + 1])

    rivals: dict[str, tuple[int, Callable[[int], Tensor]]] = {
        "authors": (1, single(lambda photos: authors.invert(photos, seed))),
        "paper": (1, single(lambda photos: ours(paper, photos))),
        "fast": (1, single(lambda photos: ours(fast, photos))),
        f"fast, {n} at once": (n, lambda i: ours(fast, setting.photos[:n])),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    found: dict[str, dict[int, Tensor]] = {name: {} for name in rivals}
    for round_number in range(given.rounds):
        for name, (count, run) in rivals.items():
            wall, used = time.perf_counter(), time.process_time()
            found[name][round_number] = run(round_number)
            spent = time.perf_counter() - wall, time.process_time() - used
            seconds[name].append((spent[0] / count, spent[1] / count))
            print(f"round {round_number}, {name}: {spent[0]:.1f} s", file=sys.stderr, flush=True)
    # the other persons, untimed, so that likeness is measured on all
    points = {"fast": ours(fast, setting.photos[:n]), "paper": ours(paper, setting.photos[:n])}
    rest = [
        found["authors"].get(i, None) if i < given.rounds else rivals["authors"][1](i)
        for i in range(n)
    ]
    points["authors"] = torch.cat([point for point in rest if point is not None])
    points["mean of the space"] = torch.zeros(n, len(setting.space))
    weights = {name: setting.space.to_weights(point) for name, point in points.items()}
    weights["DreamBooth on ten"] = setting.held_out[list(setting.names[:n])]
    weights["DreamBooth on ten, in the space"] = setting.space.to_weights(
        setting.space.project(weights["DreamBooth on ten"])
    )
    rows = []
    for name, models in weights.items():
        row: dict[str, Any] = {"rival": name, "people": len(models)}
        if name in points:
            row["likeness_of_coefficients"] = agreement(setting, points[name])
        rows.append(row | setting.judge(models, name.replace(" ", "-").replace(",", "")))
    baseline = statistics.median(wall for wall, _ in seconds["authors"])
    of_processor = statistics.median(used for _, used in seconds["authors"])
    for name, spent in seconds.items():
        wall, used = (statistics.median(values) for values in zip(*spent, strict=True))
        rows.append(
            {
                "rival": name,
                "seconds_per_photo": wall,
                "processor_seconds_per_photo": used,
                "spread": [min(w for w, _ in spent), max(w for w, _ in spent)],
                "times_authors": baseline / wall,
                "times_authors_by_processor": of_processor / used,
            }
        )
    for row in rows:
        print(json.dumps(row), flush=True)
    rows.append({"recipes": {"fast": asdict(fast), "paper": asdict(paper)}})
    return rows


class SlicedLayer(nn.Module):
    """A linear layer that multiplies its slices of β Vᵀ in every pass."""

    def __init__(
        self, layer: nn.Linear, space: WeightSpace, A: slice, B: slice, beta: list[Tensor]
    ):
        super().__init__()
        self.layer, self.beta, self.scale = layer, beta, space.layout.scale
        self.rank = space.layout.rank
        self.parts = [
            (
                space.components[:, part].float().mT.contiguous().to(layer.weight.device),
                space.std[part].to(layer.weight.device),
                space.mean[part].to(layer.weight.device),
            )
            for part in (A, B)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + α/r · B (A x)."""
        A, B = ((self.beta[0] @ V.mT) * std + mean for V, std, mean in self.parts)
        A, B = A.view(self.rank, -1), B.view(-1, self.rank)
        return self.layer(x) + self.scale * ((x @ A.mT.to(x)) @ B.mT.to(x))


class Authors:
    """The authors' inversion, from its description."""

    def __init__(self, base: Base, space: WeightSpace, recipe: InversionConfig, prompt: str):
        components = min(recipe.components, len(space))
        few = space.truncate(components)
        self.base, self.recipe, self.size, self.all = base, recipe, components, len(space)
        self.beta: list[Tensor] = [torch.zeros(1, components, device=base.device)]
        self.unet = copy.deepcopy(base.denoiser)
        modules = dict(self.unet.named_modules())
        for module, A, B in few.layout.slices():
            parent, _, last = module.name.rpartition(".")
            layer = SlicedLayer(modules[module.name], few, A, B, self.beta)
            setattr(modules[parent], last, layer)
        self.text = base.encode_prompts([prompt])

    def invert(self, photo: np.ndarray, seed: int) -> Tensor:
        """Return the coefficients of one photo "1 h w 3"."""
        base, recipe = self.base, self.recipe
        generator = torch.Generator().manual_seed(seed)
        beta = torch.zeros(1, self.size, device=base.device, requires_grad=True)
        self.beta[0] = beta
        optimiser = torch.optim.Adam(
            [beta],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        for _ in range(recipe.steps):
            mean, std = base.encode_moments(photo)
            latents = mean + std * torch.randn(mean.shape, generator=generator).to(base.device)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            timestep = torch.randint(0, base.num_timesteps, (1,), generator=generator).to(
                base.device
            )
            noisy, target = (
                f(latents, noise, timestep) for f in (base.process.noisy, base.process.target)
            )
            with base.autocast():
                predicted = self.unet(noisy, timestep, **self.text.tensors).sample.float()
            F.mse_loss(predicted, target).backward()
            optimiser.step()
            optimiser.zero_grad()
        found = torch.zeros(1, self.all)
        found[:, : self.size] = beta.detach().cpu()
        return found


if __name__ == "__main__":
    main()
