"""The tour: from images of new people to a LoRA file, on the embedded world, in minutes.

    drawn people → folders of images → LoRAs → the shipped space → new people, edits,
    one photo inverted → a LoRA that diffusers loads → report.json, report.html

Every stage gives figures and a part of the page. Nothing is prepared: the people of the tour are
drawn for it, and neither the base, the scorers nor the space have seen them. A tour in the folder
of an earlier one goes on with the models that are there, and says so.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .._files import make_folder, write_atomic
from .._json import canonical_json, plain
from ..adapter import adapt
from ..dataset import WeightDataset
from ..directions import edit
from ..errors import W2WError
from ..formats import write_lora_file
from ..generation import initial_noise
from ..labels import read_labels
from ..metrics.verification import verification_auc
from ..models import save_model
from ..sampling import report_samples, sample, sampling_of
from ..subjects import find_subjects
from ..worlds import shipped
from ..worlds.folders import write_subjects
from . import _demo_page
from ._edits import Unedited, direction, edited, lacking, required_labels, summarise
from ._estimates import estimate, mean
from ._inversions import seek
from ._setting import FRESH, REFERENCES, Seen, Setting, require_strangers, subject_of

POPULATION = 900
"""Added to the seed: the tour's people are of populations that no one trains a space on."""

ATTRIBUTES = (
    "Male",
    "Young",
    "Bald",
    "Blond_Hair",
    "Dark_Skin",
    "Full_Beard",
    "Eyeglasses",
    "Wearing_Hat",
)
"""What is edited, as far as the space has it labelled."""

STRENGTH = 3.0
"""Of the edits, in standard deviations of the training models along the direction."""


@dataclass
class Stage:
    """What a stage gives.

    Attributes:
        figures: for the report, JSON values.
        section: of the page.
    """

    figures: dict[str, Any]
    section: str


def demo(
    setting: Setting,
    out: Path,
    *,
    subjects: int = 8,
    images: int = 10,
    samples: int = 8,
    attributes: Sequence[str] = ATTRIBUTES,
    strength: float = STRENGTH,
    say: Callable[[str], None] = lambda text: None,
    **changes: Any,
) -> dict[str, Any]:
    """Return the tour, and write `report.json` and `report.html`.

    Args:
        setting: base, space, world and scorer.
        out: folder for everything; a second tour there goes on with the weights that it finds.
        subjects: people to fine-tune.
        images: of each.
        samples: new people to draw from the space.
        attributes: to edit.
        strength: of the edits, in standard deviations.
        say: receives a line when a stage begins.
        changes: of the recipe of training.

    Returns:
        the report, as in the file.

    Raises:
        W2WError: the space has no labels or too few models, or knows one of the people; a failure
            to write.
    """
    begun = time.perf_counter()
    make_folder(out)
    tour = _Tour(setting, out, subjects, images, attributes, strength)
    stages: dict[str, tuple[str, Callable[[], Stage]]] = {
        "train": (f"fine-tuning {subjects} people", lambda: tour.train(changes)),
        "space": ("placing them in the space", tour.place),
        "sample": (f"drawing {samples} new people from the space", lambda: tour.sample(samples)),
        "edit": (f"editing {len(tour.attributes)} attributes", tour.edit),
        "invert": ("inverting one photo", tour.invert),
        "export": ("exporting a LoRA", tour.export),
    }
    report: dict[str, Any] = setting.context()
    named = {"space": {"name": report.pop("space"), "hash": report.pop("space_hash")}}
    sections = []
    for number, (name, (text, run)) in enumerate(stages.items(), 1):
        say(f"{number}/{len(stages)} {text} …")
        start = time.perf_counter()
        stage = run()
        seconds = time.perf_counter() - start
        report[name] = plain({**named.get(name, {}), "seconds": seconds, **stage.figures})
        sections.append(stage.section)
    report["seconds"] = time.perf_counter() - begun
    sections.append(_demo_page.next_steps(setting, out, tour.attributes))
    page = _demo_page.page(report, sections)
    write_atomic(out / "report.html", [page.encode()])
    write_atomic(out / "report.json", [canonical_json(report)])
    return report


class _Tour:
    """What one stage leaves for the next; the methods are the stages, in their order."""

    def __init__(
        self,
        setting: Setting,
        out: Path,
        subjects: int,
        images: int,
        attributes: Sequence[str],
        strength: float,
    ):
        self.setting, self.out, self.strength = setting, out, strength
        self.images = images
        self.attributes = required_labels(setting.space, attributes)
        drawn = f"{setting.world.name}-{setting.seed + POPULATION}"
        self.names = [f"{drawn}-{number:05d}" for number in range(subjects)]
        self.stranger = f"{drawn}-{subjects:05d}"  # whose one photo is inverted
        require_strangers(setting.space, [*self.names, self.stranger])
        self.prompts = setting.prompts[:4]
        self.weights = torch.empty(0, setting.layout.num_parameters)
        self.coefficients = torch.empty(0, len(setting.space))
        self.drawn: Seen | None = None
        self.model = torch.empty(0)  # coefficients of the stranger
        self.real = 0.0  # how like their person drawings are

    # 1: images → LoRAs

    def train(self, changes: dict[str, Any]) -> Stage:
        setting, folder = self.setting, self.out / "subjects"
        world, seed = setting.world.name, setting.seed + POPULATION
        write_subjects(world, folder, subjects=len(self.names), images=self.images, seed=seed)
        recipe = replace(setting.recipe, **changes)
        there = _count_models(self.out / "weights", self.names)
        before = time.perf_counter()
        dataset = setting.learn(
            # an earlier tour may have left others there
            [subject for subject in find_subjects(folder) if subject.name in self.names],
            self.out / "weights",
            recipe,
            labels=read_labels(folder / "labels.csv"),
            cache=self.out / "cache",
        )
        training = time.perf_counter() - before
        self.weights = dataset[self.names]
        drawn = setting.draw(self.weights, self.prompts, [setting.seed])
        self.drawn = drawn
        references = setting.references(self.names)
        # other images than those that the references are the mean of
        photos = setting.images_of(self.names, 4, FRESH + REFERENCES)
        self.real = mean(estimate(_likeness(setting, photos, references)))
        who = torch.arange(len(self.names))
        auc = verification_auc(
            drawn.identity.flatten(0, 2),
            who.repeat_interleave(drawn.identity[0, ..., 0].numel()),
            setting.scorer.identity(photos.reshape(-1, *photos.shape[2:])),
            who.repeat_interleave(photos.shape[1]),
        )
        id_score = estimate(setting.likeness(drawn, references))
        figures = {
            "subjects": len(self.names),
            "images": self.images,
            "steps": recipe.steps,
            "training_seconds": training,
            "models_there_before": there,
            "verification_auc": auc,
            "id_score": id_score,
            "id_score_of_drawings": self.real,
        }
        files = setting.images_of(self.names, 3)
        return Stage(figures, _demo_page.trained(setting, figures, files, self.prompts, drawn))

    # 2: LoRAs → points

    def place(self) -> Stage:
        setting, space = self.setting, self.setting.space
        self.coefficients = space.project(self.weights)
        outside = space.relative_residual(self.weights).square()
        near = space.neighbours(self.coefficients, 2)
        projected = setting.draw(
            space.to_weights(self.coefficients), self.prompts[:2], [setting.seed]
        )
        references = setting.references(self.names)
        id_score = estimate(setting.likeness(projected, references))
        figures = {
            "models": len(space.names),
            "components": len(space),
            "captured_variance": space.captured_variance,
            "share_outside": estimate(outside),
            "cosine_to_nearest": estimate(near.similarities[:, 0]),
            "id_score": id_score,
            "neighbours": {
                name: [[other, cosine] for other, cosine in near.of(i)]
                for i, name in enumerate(self.names)
            },
        }
        neighbour = setting.draw(
            space.to_weights(space.coefficients[near.indices[:4, 0]]),
            self.prompts[:1],
            [setting.seed],
        )
        return Stage(
            figures, _demo_page.placed(setting, figures, self._drawn(), projected, neighbour)
        )

    # 3: points of nobody

    def sample(self, count: int) -> Stage:
        setting, space = self.setting, self.setting.space
        points = sample(space, count, seed=setting.seed)
        components, scale = sampling_of(space)
        for row, point in enumerate(points):
            origin = {"verb": "demo", "seed": setting.seed, "row": row}
            path = self.out / "models" / f"sample-{row}.safetensors"
            save_model(path, space.model(point, origin))
        drawn = setting.draw(space.to_weights(points), self.prompts, [setting.seed])
        flat = drawn.identity.flatten(1, 2)
        who = torch.arange(count).repeat_interleave(flat.shape[1])
        auc = verification_auc(flat.flatten(0, 1), who)
        report = report_samples(space, points)
        figures = {
            "models": count,
            "components": components,
            "scale": scale,
            "verification_auc": auc,
            "cosine_to_nearest": report.nearest,
            "training_cosine_to_nearest": report.training_nearest,
        }
        return Stage(figures, _demo_page.sampled(setting, figures, self.prompts, drawn))

    # 4: points moved

    def edit(self) -> Stage:
        setting, space = self.setting, self.setting.space
        prompt, seeds = self.prompts[:1], [setting.seed, setting.seed + 1]
        start = Unedited.draw(setting, self.weights, prompt, seeds)
        edits = {name: start.edit(name, self.strength) for name in self.attributes}
        together = summarise([each.judged for each in edits.values()])
        figures = {
            "strength": self.strength,
            **together,
            "attributes": {
                name: {"auc": direction(space, name).auc, **summarise([each.judged])}
                for name, each in edits.items()
            },
        }
        strengths = [share * self.strength for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
        along = self._along(prompt, strengths)
        return Stage(figures, _demo_page.edited(figures, start.before, edits, strengths, along))

    def _along(self, prompt: Sequence[str], strengths: Sequence[float]) -> dict[str, Seen]:
        """Draw two people, each along a direction of its own."""
        setting, space = self.setting, self.setting.space
        along = {}
        for i, name in enumerate(self.attributes[:2]):
            point = self.coefficients[i % len(self.coefficients)]
            points = torch.stack([edit(point, {direction(space, name): a}) for a in strengths])
            along[name] = setting.draw(space.to_weights(points), prompt, [setting.seed])
        return along

    # 5: one photo → a point

    def invert(self) -> Stage:
        from PIL import Image

        recipe = self.setting.inversion
        setting, space = self.setting, self.setting.space
        population, number = subject_of(setting.world, self.stranger)
        subject = setting.world.subject(population, number)
        photo = setting.world.draw(subject, setting.world.image(population, number, 0), 128)
        Image.fromarray(photo).save(self.out / "photo.png")
        pixels = setting.images_of([self.stranger], 1)[0]
        found = seek(setting, space, torch.from_numpy(pixels), recipe)
        self.model = found.points[0]
        origin = {"verb": "demo", "photo": "photo.png", "seed": setting.seed}
        save_model(self.out / "models" / "photo.safetensors", space.model(self.model, origin))
        seeds = [setting.seed, setting.seed + 1]
        drawn = setting.draw(space.to_weights(found.points), self.prompts, seeds)
        likeness = setting.likeness(drawn, setting.references([self.stranger]))
        figures = {
            "numbers": min(recipe.components, len(space)),
            "steps": int(found.steps[0]),
            "id_score": float(likeness.mean()),
            "id_score_of_drawings": self.real,
            "invert_seconds": found.seconds,
        }
        edits = self._edits_of_stranger()
        section = _demo_page.inverted(setting, figures, photo, self.prompts, drawn, edits)
        return Stage(figures, section)

    def _edits_of_stranger(self) -> dict[str, tuple[UInt8[Tensor, "h w 3"], bool]]:
        """Return for each attribute an image of the edited stranger, and whether it was added."""
        setting, space = self.setting, self.setting.space
        points = self.model[None].expand(len(self.attributes), -1)
        before = setting.draw(space.to_weights(self.model[None]), self.prompts[:1], [setting.seed])
        add = torch.stack([lacking(setting.sees(before, name))[0] for name in self.attributes])
        moved = torch.stack(
            [
                edited(point[None], [(direction(space, name), self.strength)], add[i, None])[0]
                for i, (name, point) in enumerate(zip(self.attributes, points, strict=True))
            ]
        )
        after = setting.draw(space.to_weights(moved), self.prompts[:1], [setting.seed])
        return {
            name: (after.images[i, 0, 0], bool(add[i])) for i, name in enumerate(self.attributes)
        }

    # 6: a point → a LoRA for others

    def export(self) -> Stage:
        setting = self.setting
        weights = setting.space.to_weights(self.model)
        path = write_lora_file(
            self.out / "photo-lora.safetensors", weights, setting.layout, "diffusers"
        )
        figures: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size}
        difference, reason = compare_with_diffusers(setting, weights)
        figures["max_abs_difference"] = difference
        if difference is None:
            figures["not_compared"] = reason
        section = _demo_page.exported(figures, _folder(setting), path, self.prompts[-1])
        return Stage(figures, section)

    def _drawn(self) -> Seen:
        assert self.drawn is not None  # the first stage was
        return self.drawn


def compare_with_diffusers(
    setting: Setting, weights: Float[Tensor, " d"]
) -> tuple[float | None, str]:
    """Return the largest difference between our denoiser's output and diffusers' own.

    The LoRA goes through a file in diffusers' format into a `StableDiffusionPipeline`, whose UNet
    then denoises the same latents as ours.

    Returns:
        the difference and "", or None and why it cannot be told.
    """
    import tempfile
    from importlib.util import find_spec

    if find_spec("peft") is None:
        return None, "diffusers loads LoRAs by way of peft, which is not installed"
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    base = setting.base
    latents = torch.cat([initial_noise(base, seed) for seed in range(2)])
    timesteps = torch.tensor([250, 750])
    text = base.encode_prompts([setting.recipe.instance_prompt] * 2).cpu()
    pipeline: Any = StableDiffusionPipeline.from_pretrained(_folder(setting))
    with tempfile.TemporaryDirectory() as place:
        path = write_lora_file(
            Path(place) / "lora.safetensors", weights, setting.layout, "diffusers"
        )
        pipeline.load_lora_weights(path.parent, weight_name=path.name)
    on = base.device
    with torch.no_grad():
        theirs = pipeline.unet(latents, timesteps, encoder_hidden_states=text).sample
        with adapt(base.unet, setting.layout, weights[None].to(on)):
            ours = base.denoise(latents.to(on), timesteps.to(on), text.to(on)).cpu()
    return float((ours - theirs).abs().max()), ""


def _count_models(folder: Path, names: Sequence[str]) -> int:
    """Say how many of the models an earlier tour has left in a folder."""
    try:
        dataset = WeightDataset.open(folder)
    except W2WError:
        return 0  # none yet; a damaged one is told when training begins
    return sum(name in dataset for name in names)


def _likeness(
    setting: Setting, photos: UInt8[np.ndarray, "n c h w 3"], references: Float[Tensor, "n e"]
) -> Float[Tensor, "n c"]:
    """Return the ID score of drawings to their own subjects."""
    embeddings = setting.scorer.identity(photos.reshape(-1, *photos.shape[2:]))
    return (embeddings.view(*photos.shape[:2], -1) * references[:, None]).sum(-1)


def _folder(setting: Setting) -> str:
    """Return the base as diffusers finds it: a folder or a hub id."""
    own = setting.base.id == setting.world.name
    return shipped(setting.world.name, "base").as_posix() if own else setting.base.id
