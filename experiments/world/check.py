"""The quality of a base and its scorers: figures and images, all of people never trained on.

Each function answers one question and returns plain numbers; `check_world` asks them all and writes
`figures.json` and sheets of images.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from weights2weights.bases import Base, load_base
from weights2weights.generation import generate
from weights2weights.metrics.verification import roc_auc, verification_auc
from weights2weights.sheets import image_grid
from weights2weights.worlds.people import PEOPLE
from weights2weights.worlds.people.draw import page, rasterise
from weights2weights.worlds.people.scenery import scenery
from weights2weights.worlds.scorers import Scorer

from .autoencoder import decode, encode, psnr
from .images import CHECK_POPULATION, Images, draw_images
from .kinds import Kind

_SUBJECTS, _IMAGES = 300, 4


def check_world(
    base_folder: Path, scorer_folder: Path, out: Path, kind: Kind, *, seeds: int = 15
) -> dict[str, Any]:
    """Measure a base and its scorers of one kind, and draw samples of what the base can do.

    Args:
        base_folder: the base, in diffusers layout.
        scorer_folder: the folder written by `Scorer.save`.
        out: receives `figures.json` and the sheets.
        kind: the kind of subject, with the prompts that the base knows.
        seeds: images per attribute prompt.

    Returns:
        The contents of `figures.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    base, scorer = load_base(base_folder), Scorer.load(scorer_folder)
    held_out = draw_images(
        kind.world.name,
        CHECK_POPULATION,
        _SUBJECTS,
        images=_IMAGES,
        captions=1,
        size=base.size,
    )
    round_trips = decode(base.vae, encode(base.vae, held_out.images, "cpu"), "cpu")
    agreement, sheet = attribute_agreement(base, scorer, list(range(seeds)), kind.attribute_prompts)
    sheet.save(out / "attributes.png")
    figures = {
        "base": base.hash,
        "size": base.size,
        "vae_psnr_db": psnr(held_out.images, round_trips),
        "renders": scorer_figures(scorer, held_out, held_out.images),
        "round_trips": scorer_figures(scorer, held_out, round_trips),
        "attribute_agreement": agreement,
        "scene_agreement": scene_agreement(base, kind.world),
        "seconds_per_image": seconds_per_image(base),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=1))
    captioned = [texts[0] for texts in held_out.captions[::_IMAGES]][:100]
    drawings = [generate(base, prompts=text, seeds=seed) for seed, text in enumerate(captioned)]
    images = torch.cat(drawings)
    image_grid(images.view(10, 10, *images.shape[-3:]), cell=base.size).save(out / "grid.png")
    return figures


def scorer_figures(scorer: Scorer, drawn: Images, images: np.ndarray) -> dict[str, Any]:
    """Return the verification AUC of identity and the AUC of each attribute on some images."""
    subjects, truth = torch.from_numpy(drawn.subjects), torch.from_numpy(drawn.labels)
    scores = scorer.attributes(images)
    each = {name: roc_auc(scores[:, i], truth[:, i]) for i, name in enumerate(scorer.label_names)}
    return {
        "verification_auc": verification_auc(scorer.identity(images), subjects),
        "mean_attribute_auc": float(np.mean(list(each.values()))),
        "attribute_auc": each,
    }


def attribute_agreement(
    base: Base, scorer: Scorer, seeds: list[int], prompts: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, Any], Image.Image]:
    """Draw the prompts of attributes and of their opposites, and count where the reader agrees.

    Args:
        base: draws the images.
        scorer: reads the attributes.
        seeds: seeds of the images, the same for every prompt.
        prompts: label → (prompt that asks for it, prompt that asks for its opposite).

    Returns:
        The mean over all images with the fractions per attribute, and a sheet of the first images:
        a row per attribute, which the left half asks for and the right half asks to be absent.
    """
    fractions: dict[str, dict[str, float]] = {}
    shown = []
    for name, pair in prompts.items():
        column = scorer.label_names.index(name)
        images = generate(base, prompts=list(pair), seeds=seeds)[0]
        seen = scorer.attributes(images.flatten(0, 1).numpy())[:, column].view(2, -1) > 0.5
        fractions[name] = {
            "wanted": float(seen[0].float().mean()),
            "opposite": float((~seen[1]).float().mean()),
        }
        shown.append(torch.cat([images[0, :5], images[1, :5]]))
    mean = float(np.mean([list(each.values()) for each in fractions.values()]))
    return {"mean": mean, "attributes": fractions}, image_grid(
        torch.stack(shown), rows=list(fractions)
    )


def scene_agreement(base: Base, world: Any = PEOPLE, seeds: int = 4) -> float:
    """Ask for every scene; return how often the image's border is closest to the one asked for."""
    scenes = world.scene_prompts
    pages = (page(scenery(scene), base.size) for scene in scenes)
    drawn = np.stack([_border(rasterise(each)) for each in pages])
    images = generate(base, prompts=list(scenes.values()), seeds=range(seeds))[0].numpy()
    borders = np.stack([[_border(image) for image in row] for row in images])
    distance = np.abs(borders[:, :, None] - drawn).mean((-1, -2))
    return float((distance.argmin(-1) == np.arange(len(scenes))[:, None]).mean())


def _border(image: np.ndarray) -> np.ndarray:
    """Return the upper left and right corners, which no head or hair reaches."""
    side = len(image) // 6
    corners = [image[: 2 * side, :side], image[: 2 * side, -side:]]
    return np.concatenate([corner.reshape(-1, 3) for corner in corners]).astype(float)


def seconds_per_image(base: Base, batch: int = 16) -> float:
    """Return the seconds per image of 20 steps with guidance, in a batch; the median of three."""
    prompts, seeds = ["a photo of a person"], list(range(batch))
    generate(base, prompts=prompts, seeds=seeds[:2], steps=2)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        generate(base, prompts=prompts, seeds=seeds, steps=20)
        times.append((time.perf_counter() - started) / batch)
    return float(np.median(times))
