"""The tour: from pictures of new people to a LoRA file, on the embedded world, in minutes.

    drawn people → folders of pictures → LoRAs → the shipped space → new people, edits,
    one photo inverted → a LoRA that diffusers loads → report.json, report.html

Every stage gives figures and a part of the page. Nothing is prepared: the people of the tour are
drawn for it, and neither the base, the scorers nor the space have seen them. A tour in the folder
of an earlier one goes on with the models that are there, and says so.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .._files import canonical_json, make_folder, write_atomic
from ..adapter import adapt
from ..dataset import WeightDataset
from ..directions import edit
from ..errors import W2WError
from ..formats import write_lora
from ..generate import initial_noise
from ..metrics.verification import verification_auc
from ..models import write_model
from ..sample import report_samples, sample, sampling_of
from ..subjects import find_subjects, read_labels
from ..worlds import shipped
from ..worlds.folders import write_subjects
from . import _page
from ._edits import Unedited, direction, edited, lacking, required_labels, summarise
from ._estimates import estimate, mean
from ._inversions import seek
from ._report import plain, small_print
from ._setting import FRESH, REFERENCES, Seen, Setting, require_strangers, subject_of

if TYPE_CHECKING:
    from PIL.Image import Image

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
        parts: of the page.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)


def demo(
    setting: Setting,
    out: Path,
    *,
    subjects: int = 8,
    pictures: int = 10,
    samples: int = 8,
    attributes: Sequence[str] = ATTRIBUTES,
    strength: float = STRENGTH,
    say: Callable[[str], None] = lambda text: None,
    **changes: Any,
) -> dict[str, Any]:
    """Give the tour, and write `report.json` and `report.html`.

    Args:
        setting: base, space, world and scorer.
        out: folder for everything; a second tour there goes on with the weights that it finds.
        subjects: people to fine-tune.
        pictures: of each.
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
    tour = _Tour(setting, out, subjects, pictures, attributes, strength)
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
    parts = []
    for number, (name, (text, run)) in enumerate(stages.items(), 1):
        say(f"{number}/{len(stages)} {text} …")
        start = time.perf_counter()
        stage = run()
        seconds = time.perf_counter() - start
        report[name] = plain({**named.get(name, {}), "seconds": seconds, **stage.figures})
        parts += stage.parts
    report["seconds"] = time.perf_counter() - begun
    page = _html(report, [*parts, _next_steps(setting, out, tour.attributes)], subjects)
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
        pictures: int,
        attributes: Sequence[str],
        strength: float,
    ):
        self.setting, self.out, self.strength = setting, out, strength
        self.pictures = pictures
        self.attributes = required_labels(setting.space, attributes)
        drawn = f"{setting.world.name}-{setting.seed + POPULATION}"
        self.names = [f"{drawn}-{number:05d}" for number in range(subjects)]
        self.stranger = f"{drawn}-{subjects:05d}"  # whose one photo is inverted
        require_strangers(setting.space, [*self.names, self.stranger])
        self.prompts = setting.prompts[:4]
        self.weights = torch.empty(0, setting.layout.numbers)
        self.coefficients = torch.empty(0, len(setting.space))
        self.drawn: Seen | None = None
        self.model = torch.empty(0)  # coefficients of the stranger
        self.real = 0.0  # how like their person drawings are

    # 1: pictures → LoRAs

    def train(self, changes: dict[str, Any]) -> Stage:
        setting, folder = self.setting, self.out / "subjects"
        world, seed = setting.world.name, setting.seed + POPULATION
        written = write_subjects(
            world, folder, subjects=len(self.names), pictures=self.pictures, seed=seed
        )
        for _ in written:
            pass
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
        # other pictures than those that the references are the mean of
        photos = setting.pictures_of(self.names, 4, FRESH + REFERENCES)
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
            "pictures": self.pictures,
            "steps": recipe.steps,
            "training_seconds": training,
            "models_there_before": there,
            "verification_auc": auc,
            "id_score": id_score,
            "id_score_of_drawings": self.real,
        }
        files = setting.pictures_of(self.names, 3)
        rows = [
            _page.row(
                [(_image(picture), "picture") for picture in files[i]]
                + [
                    (_image(drawn.pictures[i, p, 0]), _scene(text, setting))
                    for p, text in enumerate(self.prompts)
                ],
            )
            for i in range(min(4, len(self.names)))
        ]
        text = (
            f"{len(self.names)} people that nothing here has seen before were drawn,"
            f" {self.pictures} pictures of each, and written to disk as ordinary files."
            f" {_told_training(len(self.names), there, training)} A model is a LoRA of"
            f" {setting.layout.numbers:,} numbers. Each row: three of the pictures, then what the"
            " person's own model draws."
        )
        shown = {
            "a model's pictures picked out as its person's (AUC)": auc,
            "ID score to the person": mean(id_score),
            "ID score of a drawing to its person": self.real,
        }
        return Stage(
            figures,
            [
                _page.section(
                    "1. Ten pictures of a person become a model",
                    _page.paragraph(text),
                    *rows,
                    _page.facts(shown),
                )
            ],
        )

    # 2: LoRAs → points

    def place(self) -> Stage:
        setting, space = self.setting, self.setting.space
        self.coefficients = space.project(self.weights)
        outside = space.residual(self.weights).square()
        near = space.neighbours(self.coefficients, 2)
        projected = setting.draw(
            space.reconstruct(self.coefficients), self.prompts[:2], [setting.seed]
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
            space.reconstruct(space.coefficients[near.indices[:4, 0]]),
            self.prompts[:1],
            [setting.seed],
        )
        drawn = self._drawn()
        rows = [
            _page.row(
                [
                    (_image(drawn.pictures[i, 0, 0]), "model"),
                    (_image(projected.pictures[i, 0, 0]), "its point in the space"),
                    (
                        _image(neighbour.pictures[i, 0, 0]),
                        f"nearest training model, cosine {float(near.similarities[i, 0]):.2f}",
                    ),
                ],
                few=3,
            )
            for i in range(min(4, len(self.names)))
        ]
        text = (
            f"The space was fitted to the models of {len(space.names):,} other people: a point in"
            f" it is {len(space):,} coefficients in place of {space.numbers:,} weights. What a"
            " person's model has in common with those of all others lies inside; the nearest"
            " training model is somebody else."
        )
        shown = {
            "models in the space": len(space.names),
            "share of their variance it holds": space.captured_variance,
            "share of a new model outside": mean(figures["share_outside"]),
            "ID score of a new model's point": mean(id_score),
        }
        return Stage(
            figures,
            [
                _page.section(
                    "2. The model is a point in a space of people",
                    _page.paragraph(text),
                    _page.facts(shown),
                    f'<div class="pairs">{"".join(rows)}</div>',
                )
            ],
        )

    # 3: points of nobody

    def sample(self, count: int) -> Stage:
        setting, space = self.setting, self.setting.space
        points = sample(space, count, seed=setting.seed)
        components, spread = sampling_of(space)
        for row, point in enumerate(points):
            origin = {"verb": "demo", "seed": setting.seed, "row": row}
            path = self.out / "models" / f"sample-{row}.safetensors"
            write_model(path, space.model(point, origin))
        drawn = setting.draw(space.reconstruct(points), self.prompts, [setting.seed])
        flat = drawn.identity.flatten(1, 2)
        who = torch.arange(count).repeat_interleave(flat.shape[1])
        auc = verification_auc(flat.flatten(0, 1), who)
        report = report_samples(space, points)
        figures = {
            "models": count,
            "components": components,
            "spread": spread,
            "verification_auc": auc,
            "cosine_to_nearest": report.nearest,
            "training_cosine_to_nearest": report.training_nearest,
        }
        rows = [
            _page.row(
                [
                    (_image(drawn.pictures[i, p, 0]), _scene(text, setting))
                    for p, text in enumerate(self.prompts)
                ]
            )
            for i in range(min(6, count))
        ]
        text = (
            f"Drawing the first {components:,} coefficients at random, {spread:g} times as wide as"
            " the training models spread, gives a model of a person who does not exist, the same in"
            " every picture. Each row is one new model."
        )
        shown = {
            "pictures of one model picked out (AUC)": auc,
            "cosine to the nearest training model": report.nearest,
            "the same among training models": report.training_nearest,
        }
        return Stage(
            figures,
            [
                _page.section(
                    "3. New people",
                    _page.paragraph(text),
                    f'<div class="pairs">{"".join(rows)}</div>',
                    _page.facts(shown),
                )
            ],
        )

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
        rows = [
            _page.row(
                [(_image(start.before.pictures[i, 0, 0]), "before")]
                + [
                    (_image(each.after.pictures[i, 0, 0]), _signed(name, bool(each.add[i])))
                    for name, each in edits.items()
                ],
                few=3,
            )
            for i in range(min(4, len(self.names)))
        ]
        text = (
            f"Every attribute is a direction. Each person was moved {self.strength:g} standard"
            " deviations along each of them, towards what the person lacks or away from what the"
            " person has; prompt and seed stay the same, so only the model changed."
        )
        shown = {
            "wanted change seen": mean(together["success"]),
            "ID score to the picture before": mean(together["id_score"]),
            "other attributes kept": mean(together["others_kept"]),
        }
        return Stage(
            figures,
            [
                _page.section(
                    "4. Directions change one thing",
                    _page.paragraph(text),
                    *rows,
                    _page.facts(shown),
                    self._strengths(prompt),
                )
            ],
        )

    def _strengths(self, prompt: Sequence[str]) -> str:
        """Show two people along one direction each, and along both at once."""
        setting, space = self.setting, self.setting.space
        rows = []
        steps = [-self.strength, -self.strength / 2, 0.0, self.strength / 2, self.strength]
        for i, name in enumerate(self.attributes[:2]):
            point = self.coefficients[i % len(self.coefficients)]
            points = torch.stack([edit(point, [(direction(space, name), a)]) for a in steps])
            seen = setting.draw(space.reconstruct(points), prompt, [setting.seed])
            rows.append(
                _page.row(
                    [
                        (_image(seen.pictures[k, 0, 0]), f"{_words(name)} {a:+g}" if a else "0")
                        for k, a in enumerate(steps)
                    ],
                    few=5,
                )
            )
        head = _page.heading("Strength counts standard deviations of the training models")
        return head + f'<div class="pairs">{"".join(rows)}</div>'

    # 5: one photo → a point

    def invert(self) -> Stage:
        from PIL import Image

        recipe = self.setting.inversion
        setting, space = self.setting, self.setting.space
        population, number = subject_of(setting.world, self.stranger)
        subject = setting.world.subject(population, number)
        photo = setting.world.draw(subject, setting.world.picture(population, number, 0), 128)
        Image.fromarray(photo).save(self.out / "photo.png")
        pixels = setting.pictures_of([self.stranger], 1)[0]
        found = seek(setting, space, torch.from_numpy(pixels), recipe)
        self.model = found.coefficients[0]
        origin = {"verb": "demo", "photo": "photo.png", "seed": setting.seed}
        write_model(self.out / "models" / "photo.safetensors", space.model(self.model, origin))
        seeds = [setting.seed, setting.seed + 1]
        drawn = setting.draw(space.reconstruct(found.coefficients), self.prompts, seeds)
        likeness = setting.likeness(drawn, setting.references([self.stranger]))
        figures = {
            "numbers": recipe.sought(len(space)),
            "steps": int(found.steps[0]),
            "id_score": float(likeness.mean()),
            "id_score_of_drawings": self.real,
            "invert_seconds": found.seconds,
        }
        row = _page.row(
            [(_image(photo), "the photo")]
            + [
                (_image(drawn.pictures[0, p, s]), _scene(text, setting))
                for p, text in enumerate(self.prompts)
                for s in range(1 if p else 2)
            ],
            few=3,
        )
        edits = self._edits_of_stranger()
        text = (
            f"One more person, of whom there is one picture. {found.seconds:.0f} seconds of search"
            f" among {figures['numbers']:,} coefficients of the space give a model that draws the"
            " person in new scenes, and that takes edits like any other."
        )
        shown = {
            "ID score to the person's other pictures": figures["id_score"],
            "ID score of a drawing to its person": self.real,
            "seconds": found.seconds,
        }
        return Stage(
            figures,
            [
                _page.section(
                    "5. One photo is enough", _page.paragraph(text), row, edits, _page.facts(shown)
                )
            ],
        )

    def _edits_of_stranger(self) -> str:
        setting, space = self.setting, self.setting.space
        points = self.model[None].expand(len(self.attributes), -1)
        before = setting.draw(space.reconstruct(self.model[None]), self.prompts[:1], [setting.seed])
        add = torch.stack([lacking(setting.sees(before, name))[0] for name in self.attributes])
        moved = torch.stack(
            [
                edited(point[None], [(direction(space, name), self.strength)], add[i, None])[0]
                for i, (name, point) in enumerate(zip(self.attributes, points, strict=True))
            ]
        )
        after = setting.draw(space.reconstruct(moved), self.prompts[:1], [setting.seed])
        return _page.row(
            [
                (_image(after.pictures[i, 0, 0]), _signed(name, bool(add[i])))
                for i, name in enumerate(self.attributes)
            ],
            few=4,
        )

    # 6: a point → a LoRA for others

    def export(self) -> Stage:
        setting = self.setting
        weights = setting.space.reconstruct(self.model)
        path = write_lora(self.out / "photo-lora.safetensors", weights, setting.layout, "diffusers")
        figures: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size}
        difference, reason = compare_with_diffusers(setting, weights)
        figures["max_abs_difference"] = difference
        parts = [
            _page.paragraph(
                "Every point of the space is an ordinary LoRA. This file holds the person of the"
                " photo, for diffusers; kohya's format for A1111 and ComfyUI, and PEFT's, are one"
                " word away."
            ),
            _page.code(
                "from diffusers import StableDiffusionPipeline\n\n"
                f'pipeline = StableDiffusionPipeline.from_pretrained("{_folder(setting)}")\n'
                f'pipeline.load_lora_weights("{path.as_posix()}")\n'
                f'pipeline("{self.prompts[-1]}").images[0]'
            ),
        ]
        if difference is None:
            figures["not_compared"] = reason
            parts.append(_page.paragraph(f"Not compared with diffusers: {reason}.", "note"))
        else:
            shown = {
                "size of the file": f"{figures['bytes'] / 1024:.0f} kB",
                "largest difference of the denoiser's output, ours to diffusers'": difference,
            }
            parts.append(_page.facts(shown))
        return Stage(figures, [_page.section("6. A LoRA for other programs", *parts)])

    def _drawn(self) -> Seen:
        assert self.drawn is not None  # the first stage was
        return self.drawn


def compare_with_diffusers(
    setting: Setting, weights: Float[Tensor, " d"]
) -> tuple[float | None, str]:
    """Give the largest difference between our denoiser's output and that of diffusers' own loading.

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
    text = base.encode_prompts([setting.recipe.prompt] * 2).cpu()
    pipeline: Any = StableDiffusionPipeline.from_pretrained(_folder(setting))
    with tempfile.TemporaryDirectory() as place:
        path = write_lora(Path(place) / "lora.safetensors", weights, setting.layout, "diffusers")
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


def _told_training(subjects: int, there: int, seconds: float) -> str:
    """Say in a sentence who was fine-tuned in this tour, and how long that took."""
    if there == subjects:
        return "The base was fine-tuned for each of them in an earlier tour in this folder."
    if there:
        return (
            f"The base was fine-tuned for {there} of them in an earlier tour in this folder, and"
            f" now for the others, all at once, in {seconds:.0f} seconds."
        )
    return f"The base was fine-tuned for each of them, all at once, in {seconds:.0f} seconds."


def _likeness(
    setting: Setting, photos: UInt8[np.ndarray, "n c h w 3"], references: Float[Tensor, "n e"]
) -> Float[Tensor, "n c"]:
    """Give the ID score of drawings to their own subjects."""
    embeddings = setting.scorer.identity(photos.reshape(-1, *photos.shape[2:]))
    return (embeddings.view(*photos.shape[:2], -1) * references[:, None]).sum(-1)


def _html(report: dict[str, Any], parts: Sequence[str], subjects: int) -> str:
    space = report["space"]
    there = report["train"]["models_there_before"]
    without = f", without {there} of the models" if there else ""
    first = _page.facts(
        {
            f"minutes for everything below{without}": report["seconds"] / 60,
            "people fine-tuned": subjects,
            "models in the space": space["models"],
            "seconds from one photo to a model": report["invert"]["invert_seconds"],
        }
    )
    lead = (
        "A fine-tuned diffusion model is a point in a space of models. New points are new people,"
        " directions change one thing about them, and one photo finds its own."
    )
    return _page.page(
        "A space of people, each a model",
        lead,
        [first, _page.paragraph(report["statement"], "note"), *parts],
        small_print({**report, "space": space["name"], "space_hash": space["hash"]}),
    )


def _next_steps(setting: Setting, out: Path, attributes: Sequence[str]) -> str:
    """Give commands that go on from the tour, on the same base and in the same space."""
    label = "Eyeglasses" if "Eyeglasses" in attributes else attributes[-1]
    photo, changed = out / "models" / "photo.safetensors", out / "models" / "edited.safetensors"
    base = ["--base", setting.base.id] if setting.base.id != setting.world.name else []
    space = ["--space", setting.space_name] if setting.space_name != setting.world.name else []
    prompt = f"{setting.recipe.prompt}, in a forest"
    return _page.section(
        "What next",
        _page.paragraph(f"The person of the photo in another place, towards “{_words(label)}”:"),
        _page.code(
            _command("edit", photo, "--set", f"{label}=3", *space, "--out", changed)
            + "\n"
            + _command(
                "generate", changed, "--prompt", prompt, *base, *space, "--out", "forest.png"
            )
        ),
        _page.paragraph("Models of your own subjects, from a folder of pictures for each:"),
        _page.code(_command("train", "SUBJECTS", *base, "--out", "weights")),
        _page.paragraph("The paper's tables and figures, measured on this world:"),
        _page.code(_command("evaluate", "all", "--quick", *base, *space, "--out", "evaluation")),
    )


def _command(*words: str | Path) -> str:
    """Give a command as a shell reads it, whatever the names hold."""
    texts = (word.as_posix() if isinstance(word, Path) else word for word in words)
    return shlex.join(["w2w", *texts])


def _folder(setting: Setting) -> str:
    """Give the base as diffusers finds it: a folder or a hub id."""
    own = setting.base.id == setting.world.name
    return shipped(setting.world.name, "base").as_posix() if own else setting.base.id


def _image(pixels: Any) -> "Image":
    from PIL import Image

    image = Image.fromarray(np.asarray(pixels))
    if image.width >= 128:
        return image
    return image.resize((128, 128), Image.Resampling.BICUBIC)


def _words(label: str) -> str:
    return label.replace("_", " ").lower()


def _signed(label: str, add: bool) -> str:
    return ("+ " if add else "− ") + _words(label)


def _scene(prompt: str, setting: Setting) -> str:
    """Give what a prompt says beyond that of training."""
    return prompt.removeprefix(setting.recipe.prompt).strip(" ,") or "model"
