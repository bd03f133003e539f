"""A space of strangers' LoRAs, measured in the people world.

    python -m experiments.updates --out DIR                 # trains 252 people, then measures
    python -m experiments.updates --out DIR --loras FOLDER  # measures LoRAs that are there

Trains people with LoRAs of ranks 4, 8 and 16, each from its own A, rewrites half as kohya files of
odd alphas, some without their last layers, and compares what their updates and what their numbers
say. Every stage is kept in DIR, so that a run that was cut short continues.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import weights2weights as w2w
from weights2weights._json import canonical_json, plain
from weights2weights._shipped import shipped
from weights2weights.formats import load_lora, write_lora_file
from weights2weights.layout import WeightLayout
from weights2weights.metrics.verification import roc_auc
from weights2weights.space import UpdateSpace
from weights2weights.training import PRESETS
from weights2weights.updates import Update, gram, read_updates, sum_updates
from weights2weights.worlds import load_world
from weights2weights.worlds.folders import subject_of, write_subjects
from weights2weights.worlds.scorers import Scorer

RANKS = (4, 8, 16, 8, 4, 4, 8, 16, 8, 4)  # of ten batches of 24 people
ALPHAS = (1.0, 5.0, 13.37, 64.0)  # of the kohya files
ATTRIBUTES = (
    *("Eyeglasses", "Bald", "Full_Beard", "Dark_Skin"),
    *("Blond_Hair", "Wearing_Hat", "Male", "Young"),
)
HELD_OUT = 12
PROMPT = "a photo of sks person"


# Strangers.


def train_strangers(out: Path, steps: int, batch: int) -> Path:
    """Train ten batches of strangers and one of people to hold out; resumes by itself."""
    base = w2w.load_base("people", dtype=torch.bfloat16)
    count = len(RANKS) * batch + HELD_OUT
    write_subjects("people", out / "subjects", subjects=count, images=20, seed=17, progress=True)
    people = list(w2w.find_subjects(out / "subjects"))
    groups = [people[i * batch : (i + 1) * batch] for i in range(len(RANKS))]
    plan = [*zip(RANKS, groups, strict=True), (8, people[-HELD_OUT:])]
    for number, (rank, members) in enumerate(plan):
        name = "held-out" if number == len(RANKS) else f"batch-{number}"
        config = {"start": "own", "rank": rank, "seed": 100 + number, "steps": steps}
        folder = out / "trained" / name
        w2w.train(base, members, folder, PRESETS["people"], cache=out / "cache", **config)
    for folder in sorted((out / "trained").glob("batch-*")):
        for file in sorted(folder.glob("*.safetensors")):
            disguise(file, out / "loras" / file.name)
    return out / "loras"


def disguise(file: Path, target: Path) -> None:
    """Copy a LoRA as another trainer would have written it."""
    number, lora = int(file.stem.split("-")[2]), load_lora(file)
    layout, alpha = lora.layout, ALPHAS[number // 2 % 4]
    if target.exists():
        return
    if number % 2 == 0:
        write_lora_file(target, lora.weights, layout, "diffusers")
        return
    modules = layout.modules[:-4] if number % 10 == 7 else layout.modules
    other = WeightLayout(modules, layout.rank, alpha, layout.base)
    tensors = layout.unflatten(lora.weights.float())
    kept = {
        entry.key: tensors[entry.key] * (layout.scale / other.scale if "lora_B" in entry.key else 1)
        for entry in other.entries
    }
    write_lora_file(target, other.flatten(kept), other, "kohya")


def labels_of(names: list[str]) -> Any:
    """Return the true labels of drawn people."""
    import pandas

    world = load_world("people")
    rows = [world.labels(world.subject(*subject_of(world, name))) for name in names]
    return pandas.DataFrame(rows, index=names).astype(bool)


# How well labels are told apart.


def held_out_auc(kernel: Tensor, labels: Any, penalty: float, folds: int = 6) -> float:
    """Return the mean AUC over labels of kernel ridge regression on held-out models.

    Labels that fewer than 12 models have, or lack, are left out.
    """
    n = len(kernel)
    kernel = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    values = torch.tensor(labels.to_numpy(float))
    values = values[:, (values.sum(0) >= 12) & (values.sum(0) <= n - 12)]
    predicted = torch.zeros_like(values)
    for fold in range(folds):
        test = order[fold::folds]
        train = torch.tensor(sorted(set(range(n)) - set(test.tolist())))
        inner, mean = kernel[train][:, train], values[train].mean(0)
        ridge = penalty * inner.diagonal().mean() * torch.eye(len(train), dtype=kernel.dtype)
        dual = torch.linalg.solve(inner + ridge, values[train] - mean)
        predicted[test] = kernel[test][:, train] @ dual
    aucs = [roc_auc(predicted[:, i], values[:, i] > 0) for i in range(values.shape[1])]
    return float(np.mean(aucs)) if aucs else float("nan")


def entries_kernel(updates: list[Update]) -> Tensor:
    """Inner products of the standardised numbers of LoRAs of one layout."""
    rows = [
        torch.cat([x.flatten().float() for m in u.layout.modules for x in u.factors[m.name]])
        for u in updates
    ]
    values = torch.stack(rows)
    values = (values - values.mean(0)) / values.std(0).clamp(min=1e-12)
    return (values @ values.mT).double()


def measure_labels(updates: list[Update], labels: Any) -> dict[str, Any]:
    """AUC by updates and by numbers: of all, of each rank, and for fewer models."""
    cosines = gram(updates).cosines
    figures: dict[str, Any] = {"models": len(updates), "by_penalty": {}, "ranks": {}, "sizes": {}}
    for penalty in (0.03, 0.1, 0.3, 1.0):
        figures["by_penalty"][penalty] = held_out_auc(cosines, labels, penalty)
    ranks = torch.tensor([update.layout.rank for update in updates])
    for rank in ranks.unique().tolist():
        rows = (ranks == rank).nonzero()[:, 0]
        whole = [i for i in rows.tolist() if len(updates[i].factors) == 40]
        figures["ranks"][rank] = {
            "models": len(rows),
            "updates": held_out_auc(cosines[rows][:, rows], labels.iloc[rows.tolist()], 0.1),
            "entries": held_out_auc(
                entries_kernel([updates[i] for i in whole]), labels.iloc[whole], 0.1
            ),
        }
    order = torch.randperm(len(updates), generator=torch.Generator().manual_seed(1))
    for size in (30, 60, 120, 240, 480, 960):
        if size <= len(updates):
            rows = order[:size]
            part = labels.iloc[rows.tolist()]
            figures["sizes"][size] = held_out_auc(cosines[rows][:, rows], part, 0.1)
    off = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    figures["mean_cosine"] = float(off.mean())
    return figures


def measure_one_start(sizes: tuple[int, ...] = (30, 60, 120, 240, 480, 960)) -> dict[int, float]:
    """AUC of as many models of the shipped space, which all began with one measured A."""
    space = w2w.WeightSpace.from_pretrained("people")
    names = [i for i, name in enumerate(space.names)]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(1))
    found = {}
    for size in sizes:
        rows = space.coefficients[order[:size]].double()
        labels = space.labels.iloc[order[:size].tolist()].astype(float)
        found[size] = held_out_auc(rows @ rows.mT, labels, 0.1)
    return found


# What images show.


class Judge:
    """Draws models and reads labels and identity off the images."""

    def __init__(self, seeds: tuple[int, ...] = (1, 2)):
        self.base = w2w.load_base("people", dtype=torch.bfloat16)
        self.scorer = Scorer.load(shipped("people", "scorer"))
        self.names, self.seeds = list(load_world("people").label_names), seeds

    def see(self, layout: WeightLayout, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels (k, seeds, labels) and identities (k, seeds, 128)."""
        images = w2w.generate(self.base, weights, layout=layout, prompts=[PROMPT], seeds=self.seeds)
        flat = images.flatten(0, 2).numpy()
        shape = (len(weights), len(self.seeds), -1)
        attributes = torch.as_tensor(self.scorer.attributes(flat)).view(shape)
        return attributes > 0.5, torch.as_tensor(self.scorer.identity(flat)).view(shape)


def measure_edits(
    space: UpdateSpace, held: list[Update], judge: Judge, options: dict[str, Any], sigma: float
) -> dict[str, Any]:
    """Edit people that are not in the space towards what they do not show."""
    layout = held[0].layout
    rows = torch.stack(
        [torch.cat([x.flatten() for m in layout.modules for x in u.factors[m.name]]) for u in held]
    )
    before, who = judge.see(layout, rows)
    result: dict[str, list[float]] = {"changed": [], "identity": [], "kept": []}
    each = {}
    for name in ATTRIBUTES:
        direction, place = space.direction(name, **options), judge.names.index(name)
        has = before[:, :, place].float().mean(1) > 0.5
        moved = torch.empty(0)
        parts = []
        for sign, chosen in ((-1.0, has), (1.0, ~has)):
            if chosen.any():
                shift = direction.shift(sign * sigma, len(space))
                into, moved = space.moved(layout, rows[chosen], shift)
                parts.append((chosen, sign, *judge.see(into, moved)))
        seen: list[float] = []
        for chosen, sign, after, now in parts:
            ask = before[chosen][:, :, place] != (sign > 0)
            seen += (after[:, :, place] == (sign > 0))[ask].float().tolist()
            result["identity"] += cosine_similarity(now, who[chosen], dim=-1).flatten().tolist()
            rest = [i for i in range(len(judge.names)) if i != place]
            same = (after == before[chosen])[:, :, rest].float().mean(-1)
            result["kept"] += same.flatten().tolist()
        result["changed"] += seen
        each[name] = float(np.mean(seen)) if seen else None
    return {key: float(np.mean(value)) for key, value in result.items()} | {"each": each}


def measure_compression(space: UpdateSpace, judge: Judge, count: int = 8) -> dict[str, Any]:
    """Compare samples and training LoRAs recompressed to a rank with the uncompressed ones."""
    figures = {}
    points = space.coefficients[:: max(len(space.names) // count, 1)][:count]
    for name, factors in {
        "training": space.mixtures(points),
        "samples": space.mixtures(space.sample(count, seed=0, components=50, scale=1.5)),
    }.items():
        whole, rows, _ = sum_updates(space.updates, factors)
        _, reference = judge.see(whole, rows)
        for rank in (4, 8, 16, 32):
            layout, rows, kept = sum_updates(space.updates, factors, rank)
            _, found = judge.see(layout, rows)
            likeness = cosine_similarity(found, reference, dim=-1).mean()
            figures[f"{name} at rank {rank}"] = {
                "identity": float(likeness),
                "energy": float(kept.mean()),
            }
    return figures


def measure_samples(space: UpdateSpace, judge: Judge, count: int = 12) -> dict[str, Any]:
    """Measure whether a sample is one person over seeds, and two samples are two."""
    figures = {}
    for components, scale in ((20, 1.0), (20, 2.0), (50, 1.5), (50, 2.5), (len(space), 1.0)):
        points = space.sample(count, seed=0, components=components, scale=scale)
        _, who = judge.see(space.layout, space.to_weights(points))
        figures[f"{components} components, scale {scale:g}"] = same_person(who)
    return figures


def same_person(who: Tensor) -> dict[str, float]:
    """AUC of telling two images of one model from images of two models by identity."""
    flat, owner = who.flatten(0, 1), torch.arange(len(who)).repeat_interleave(who.shape[1])
    likeness = cosine_similarity(flat[:, None], flat[None], dim=-1)
    pairs = torch.triu(torch.ones_like(likeness, dtype=torch.bool), 1)
    same = owner[:, None] == owner
    return {
        "verification_auc": roc_auc(likeness[pairs].double(), same[pairs]),
        "within": float(likeness[pairs & same].mean()),
        "between": float(likeness[pairs & ~same].mean()),
    }


def measure_inversion(
    space: UpdateSpace, out: Path, held: list[Update], judge: Judge, count: int = 6
) -> dict[str, Any]:
    """Invert one photo of people that are not in the space, over whole updates."""
    shown = [next((out / "subjects" / u.name).glob("*.png")) for u in held[:count]]
    from PIL import Image

    photos = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in shown])
    reference = torch.as_tensor(judge.scorer.identity(photos))
    figures = {}
    for name, one in {
        "updates": space,
        "shipped": w2w.WeightSpace.from_pretrained("people"),
    }.items():
        linear = one.linear(60) if isinstance(one, UpdateSpace) else one
        base = w2w.load_base("people")
        found = w2w.invert(base, linear, shown, preset="fast", components=60)
        _, who = judge.see(linear.layout, linear.to_weights(found.points))
        figures[name] = {
            "identity": float(cosine_similarity(who, reference[:, None], dim=-1).mean()),
            "loss": float(found.loss.mean()),
            "start_loss": float(found.start_loss.mean()),
            "seconds": found.seconds,
        }
    return figures


# The command.


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--loras", type=click.Path(path_type=Path), help="A folder of people's LoRAs.")
@click.option("--held-out", type=click.Path(path_type=Path), help="LoRAs of other people.")
@click.option("--steps", default=300, help="Training steps.")
@click.option("--batch", default=24, help="People per batch; there are ten.")
def main(out: Path, loras: Path | None, held_out: Path | None, steps: int, batch: int) -> None:
    """Train strangers, unless they are given, and measure a space of their updates."""
    torch.set_num_threads(1)
    loras = loras or train_strangers(out, steps, batch)
    updates, refused = read_updates([loras])
    held, _ = read_updates([held_out or out / "trained" / "held-out"])
    names = [update.name for update in updates]
    labels = labels_of(names)
    print(f"{len(updates)} LoRAs, {len(refused)} refused", flush=True)

    def stage(name: str, compute: Callable[[], Any]) -> Any:
        path = out / "stages" / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(canonical_json(plain(compute())))
        found = json.loads(path.read_bytes())
        print(name, json.dumps(found), flush=True)
        return found

    found = {
        "labels": stage("labels", lambda: measure_labels(updates, labels)),
        "one_start": stage("one_start", measure_one_start),
    }
    space, judge = w2w.fit_updates(updates, labels=labels), Judge()
    for method, penalty, sigma in (
        *(("effect", None, sigma) for sigma in (3.0, 2.5, 2.0, 5.0)),
        ("ridge", 0.1, 3.0),
    ):
        options = {"method": method, "penalty": penalty, "components": len(space)}
        name = f"edits-{method}-{penalty}-{sigma:g}"
        found[name] = stage(
            name,
            lambda o=options, s=sigma: measure_edits(space, held, judge, o, s),
        )
    found["compression"] = stage("compression", lambda: measure_compression(space, judge))
    found["samples"] = stage("samples", lambda: measure_samples(space, judge))
    found["inversion"] = stage("inversion", lambda: measure_inversion(space, out, held, judge))
    (out / "updates.json").write_bytes(canonical_json(plain(found)))


if __name__ == "__main__":
    main()
