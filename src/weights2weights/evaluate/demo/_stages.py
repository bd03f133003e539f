"""The stages of the demo, in their order.

Each returns its figures for the report, rows of images for the page, and what later stages need.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ... import directions, sampling
from ...adapter import adapt
from ...dataset import WeightDataset, is_dataset
from ...directions import Direction, find_directions
from ...exports import save_lora
from ...generation import initial_noise
from ...labels import read_labels
from ...metrics.confidence import estimate
from ...metrics.verification import verification_auc
from ...models import save_model
from ...subjects import find_subjects
from ...worlds import shipped
from ...worlds.folders import subject_name, write_subjects
from ..edits import Edit, edit_towards_missing, require_labels, score_edit, summarise
from ..page import words
from ..samples import report_samples
from ..setting import FRESH, REFERENCES, Scored, Setting, require_unseen

POPULATION = 900
"""Added to the seed: the demo's people come from populations that no space is trained on."""

STRENGTH = 3.0
"""Strength of the edits, in standard deviations of the training models along the direction."""

_SHOWN = 4  # people on the page
_PHOTO_SIZE = 128

T = TypeVar("T")
Cells = list[tuple[Any, str]]
"""A row of images with their captions."""


@dataclass(frozen=True)
class Stage(Generic[T]):
    """The result of a stage.

    Attributes:
        figures: for the report.
        views: rows of images for the page.
        made: for later stages.
    """

    figures: dict[str, Any]
    views: Mapping[str, list[Cells]]
    made: T


@dataclass(frozen=True)
class Demo:
    """The plan of a demo.

    Attributes:
        setting: base, space, world and scorer.
        out: folder for everything.
        names: people to fine-tune.
        stranger: the person whose only photo is inverted.
        directions: attribute → its direction.
    """

    setting: Setting
    out: Path
    names: Sequence[str]
    stranger: str
    directions: Mapping[str, Direction]

    @classmethod
    def plan(cls, setting: Setting, out: Path, subjects: int, attributes: Sequence[str]) -> "Demo":
        """Choose people that the space has not seen, and attributes that it can edit.

        Raises:
            W2WError: the space lacks labels for all attributes, or was fitted to these people.
        """
        labels = require_labels(setting.space, attributes)
        *names, stranger = (
            subject_name(setting.world.name, setting.seed + POPULATION, number)
            for number in range(subjects + 1)
        )
        require_unseen(setting.space, [*names, stranger])
        return cls(setting, out, names, stranger, find_directions(setting.space, labels))

    @property
    def prompts(self) -> list[str]:
        """The instance prompt and three scenes."""
        return self.setting.prompts[:4]

    def scene(self, prompt: str) -> str:
        """Return what a prompt adds to the instance prompt."""
        added = prompt.removeprefix(self.setting.recipe.instance_prompt).strip(" ,")
        return added or "instance prompt"


def train(run: Demo, images: int) -> Stage[tuple[Float[Tensor, "k d"], Scored]]:
    """Draw people, write their images as ordinary files, and fine-tune the base for each.

    What it made are the models and their images, for every prompt of the demo.
    """
    setting, subjects, folder = run.setting, run.out / "subjects", run.out / "weights"
    write_subjects(
        setting.world.name,
        subjects,
        subjects=len(run.names),
        images=images,
        seed=setting.seed + POPULATION,
    )
    earlier = WeightDataset.open(folder).names if is_dataset(folder) else ()
    start = time.perf_counter()
    # An earlier run may have left other people there.
    theirs = [subject for subject in find_subjects(subjects) if subject.name in run.names]
    labels = read_labels(subjects / "labels.csv")
    dataset = setting.train(theirs, folder, labels=labels, cache=run.out / "cache")
    seconds = time.perf_counter() - start
    weights = dataset[list(run.names)]
    generated = setting.generate(weights, run.prompts, [setting.seed])
    references = setting.references(run.names)
    # Not among the images that the references are the mean of.
    drawings = setting.identities(setting.drawings(run.names, 4, FRESH + REFERENCES))
    people = torch.arange(len(run.names))
    auc = verification_auc(
        generated.identity.flatten(0, 2),
        people.repeat_interleave(len(run.prompts)),
        drawings.flatten(0, 1),
        people.repeat_interleave(drawings.shape[1]),
    )
    figures = {
        "subjects": len(run.names),
        "images": images,
        "steps": setting.recipe.steps,
        "parameters": setting.layout.num_parameters,
        "seconds": seconds,
        "models_before": len(set(earlier) & set(run.names)),
        "verification_auc": auc,
        "id_score": estimate(setting.id_scores(generated, references)),
        "id_score_of_drawings": float((drawings * references[:, None]).sum(-1).double().mean()),
    }
    rows = [
        [*((photo, "training image") for photo in photos), *_scenes(run, images)]
        for photos, images in zip(
            setting.drawings(run.names[:_SHOWN], 3), generated.images, strict=False
        )
    ]
    return Stage(figures, {"rows": rows}, (weights, generated))


def project(
    run: Demo, weights: Float[Tensor, "k d"], generated: Scored
) -> Stage[Float[Tensor, "k m"]]:
    """Project models into the space, and find the training models nearest to them."""
    setting, space = run.setting, run.setting.space
    points = space.project(weights)
    near = space.neighbours(points, 2)
    projected = setting.generate(space.to_weights(points), run.prompts[:2], [setting.seed])
    figures = {
        "models": len(space.names),
        "components": len(space),
        "captured_variance": space.captured_variance,
        "residual": estimate(space.relative_residual(weights).square()),
        "cosine_to_nearest": estimate(near.similarities[:, 0]),
        "id_score": estimate(setting.id_scores(projected, setting.references(run.names))),
        "neighbours": {
            name: [
                [space.names[int(row)], float(cosine)] for cosine, row in zip(*pairs, strict=True)
            ]
            for name, *pairs in zip(run.names, *near, strict=True)
        },
    }
    nearest = space.to_weights(space.coefficients[near.indices[:_SHOWN, 0]])
    neighbours = setting.generate(nearest, run.prompts[:1], [setting.seed])
    rows = [
        [
            (generated.images[i, 0, 0], "model"),
            (projected.images[i, 0, 0], "projected"),
            (image, f"nearest training model, cosine {float(near.similarities[i, 0]):.2f}"),
        ]
        for i, image in enumerate(neighbours.images[:, 0, 0])
    ]
    return Stage(figures, {"rows": rows}, points)


def sample(run: Demo, count: int) -> Stage[None]:
    """Sample models from the space, and check that each is one person and not a copy."""
    setting, space = run.setting, run.setting.space
    points = sampling.sample(space, count, seed=setting.seed)
    components, scale = sampling.sampling_of(space)
    for row, point in enumerate(points):
        _save(run, f"sample-{row}", point, row=row)
    generated = setting.generate(space.to_weights(points), run.prompts, [setting.seed])
    people = torch.arange(count).repeat_interleave(len(run.prompts))
    report = report_samples(space, points)
    figures = {
        "models": count,
        "components": components,
        "scale": scale,
        "verification_auc": verification_auc(generated.identity.flatten(0, 2), people),
        "cosine_to_nearest": report.nearest,
        "training_cosine_to_nearest": report.training_nearest,
    }
    return Stage(figures, {"rows": [_scenes(run, images) for images in generated.images[:6]]}, None)


def edit(run: Demo, points: Float[Tensor, "k m"]) -> Stage[None]:
    """Edit every attribute of every person, and score the images before and after."""
    setting, space = run.setting, run.setting.space
    seeds = [setting.seed, setting.seed + 1]
    before = setting.generate(space.to_weights(points), run.prompts[:1], seeds)
    edits = _edits(run, points, before, seeds)
    scores = {name: score_edit(setting, before, e.after, name, e.add) for name, e in edits.items()}
    figures = {
        "strength": STRENGTH,
        **summarise(list(scores.values())),
        "attributes": {
            name: {"auc": run.directions[name].auc, **summarise([each])}
            for name, each in scores.items()
        },
    }
    rows = [
        [(image, "before"), *_edited(edits, person)]
        for person, image in enumerate(before.images[:_SHOWN, 0, 0])
    ]
    traversals: list[Cells] = []
    for point, (name, direction) in zip(points, list(run.directions.items())[:2], strict=False):
        strengths = [share * STRENGTH for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        moved = torch.stack([directions.edit(point, {direction: a}) for a in strengths])
        drawn = setting.generate(space.to_weights(moved), run.prompts[:1], [setting.seed])
        captions = [f"{words(name)} {a:+g}" if a else "0" for a in strengths]
        traversals.append(list(zip(drawn.images[:, 0, 0], captions, strict=True)))
    return Stage(figures, {"rows": rows, "traversals": traversals}, None)


def invert(run: Demo, id_score_of_drawings: float) -> Stage[Float[Tensor, " m"]]:
    """Invert one photo of one more person, generate new images of that person, and edit them."""
    from PIL import Image

    setting, space = run.setting, run.setting.space
    photo = setting.drawings([run.stranger], 1, size=_PHOTO_SIZE)[0, 0]
    Image.fromarray(photo).save(run.out / "photo.png")
    found = setting.invert(torch.from_numpy(setting.drawings([run.stranger], 1)[0]))
    _save(run, "photo", found.points[0], photo="photo.png")
    seeds = [setting.seed, setting.seed + 1]
    generated = setting.generate(space.to_weights(found.points), run.prompts, seeds)
    id_scores = setting.id_scores(generated, setting.references([run.stranger]))
    figures = {
        "coefficients": min(setting.inversion.components, len(space)),
        "steps": int(found.steps[0]),
        "id_score": float(id_scores.mean()),
        "id_score_of_drawings": id_score_of_drawings,
        "seconds": found.seconds,
    }
    first, *scenes = _scenes(run, generated.images[0])
    again = (generated.images[0, 0, 1], first[1])
    before = setting.score(generated.images[:, :1, :1])
    edits = _edits(run, found.points, before, seeds[:1])
    views = {
        "photo": [[(photo, "the photo"), first, again, *scenes]],
        "edits": [_edited(edits, 0)],
    }
    return Stage(figures, views, found.points[0])


def export(run: Demo, point: Float[Tensor, " m"]) -> Stage[None]:
    """Write the model as a LoRA for diffusers, and compare its output there with ours."""
    setting = run.setting
    weights = setting.space.to_weights(point)
    path = save_lora(run.out / "photo-lora.safetensors", weights, layout=setting.layout)
    figures: dict[str, Any] = {
        "file": path.name,
        "path": path.as_posix(),
        "bytes": path.stat().st_size,
        "base": _diffusers_source(setting),
        "prompt": run.prompts[-1],
        "max_abs_difference": None,
    }
    if find_spec("peft") is None:
        figures["not_compared"] = "diffusers needs peft to load LoRAs, and it is not installed"
    else:
        figures["max_abs_difference"] = difference_to_diffusers(setting, weights)
    return Stage(figures, {}, None)


def difference_to_diffusers(setting: Setting, weights: Float[Tensor, " d"]) -> float:
    """Return the largest difference between the outputs of our denoiser and diffusers'.

    The LoRA is loaded from a file into a `StableDiffusionPipeline`, whose UNet then denoises the
    same latents as ours.
    """
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    base, device = setting.base, setting.base.device
    latents = torch.cat([initial_noise(base, seed) for seed in range(2)])
    timesteps = torch.tensor([250, 750])
    text = base.encode_prompts([setting.recipe.instance_prompt] * 2).to("cpu")
    pipeline: Any = StableDiffusionPipeline.from_pretrained(_diffusers_source(setting))
    with tempfile.TemporaryDirectory() as folder:
        path = save_lora(Path(folder) / "lora.safetensors", weights, layout=setting.layout)
        pipeline.load_lora_weights(path.parent, weight_name=path.name)
    with torch.no_grad():
        theirs = pipeline.unet(latents, timesteps, **text.tensors).sample
        with adapt(base.denoiser, setting.layout, weights[None].to(device)):
            ours = base.denoise(latents.to(device), timesteps.to(device), text.to(device)).cpu()
    return float((ours - theirs).abs().max())


def _diffusers_source(setting: Setting) -> str:
    """Return the base as diffusers loads it: a folder or a hub id."""
    embedded = setting.base.id == setting.world.name
    return shipped(setting.world.name, "base").as_posix() if embedded else setting.base.id


def _save(run: Demo, name: str, point: Float[Tensor, " m"], **origin: Any) -> None:
    model = run.setting.space.model(point, {"verb": "demo", "seed": run.setting.seed, **origin})
    save_model(run.out / "models" / f"{name}.safetensors", model)


def _scenes(run: Demo, images: Tensor) -> Cells:
    """Return the first image of each prompt."""
    return [(images[p, 0], run.scene(prompt)) for p, prompt in enumerate(run.prompts)]


def _edits(
    run: Demo, points: Float[Tensor, "k m"], before: Scored, seeds: Sequence[int]
) -> dict[str, Edit]:
    prompts = run.prompts[:1]
    return {
        name: edit_towards_missing(run.setting, points, before, found, STRENGTH, prompts, seeds)
        for name, found in run.directions.items()
    }


def _edited(edits: Mapping[str, Edit], person: int) -> Cells:
    """Return the first image of a person after each edit, such as "+ wearing hat"."""
    return [
        (e.after.images[person, 0, 0], ("+ " if e.add[person] else "− ") + words(name))
        for name, e in edits.items()
    ]
