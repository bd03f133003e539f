"""The page of the tour: what the stages drew and measured, in words and rows of images.

One function for each stage gives its section, `next_steps` the last one, `page` the whole. Nothing
is drawn, measured or written here.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from . import _page
from ._edits import Edit
from ._estimates import mean
from ._report import small_print
from ._setting import Seen, Setting

if TYPE_CHECKING:
    from PIL.Image import Image

_ROWS = 4  # people shown of those that were fine-tuned
_NEW_ROWS = 6  # of those drawn from the space


def trained(
    setting: Setting,
    figures: Mapping[str, Any],
    images: UInt8[np.ndarray, "k c h w 3"],
    prompts: Sequence[str],
    drawn: Seen,
) -> str:
    """Show images of people beside what their models draw."""
    rows = [
        _page.row(
            [(_image(image), "image") for image in theirs]
            + [(_image(models[p, 0]), _scene(text, setting)) for p, text in enumerate(prompts)]
        )
        for theirs, models in zip(images[:_ROWS], drawn.images[:_ROWS], strict=True)
    ]
    subjects = figures["subjects"]
    training = _told_training(subjects, figures["models_there_before"], figures["training_seconds"])
    text = (
        f"{subjects} people that nothing here has seen before were drawn,"
        f" {figures['images']} images of each, and written to disk as ordinary files."
        f" {training} A model is a LoRA of {setting.layout.num_parameters:,} numbers."
        " Each row: three of the images, then what the person's own model draws."
    )
    shown = {
        "a model's images picked out as its person's (AUC)": figures["verification_auc"],
        "ID score to the person": mean(figures["id_score"]),
        "ID score of a drawing to its person": figures["id_score_of_drawings"],
    }
    return _page.section(
        "1. Ten images of a person become a model",
        _page.paragraph(text),
        *rows,
        _page.facts(shown),
    )


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


def placed(
    setting: Setting, figures: Mapping[str, Any], drawn: Seen, projected: Seen, nearest: Seen
) -> str:
    """Show models beside their points in the space and the training models nearest to them."""
    cosines = [others[0][1] for others in figures["neighbours"].values()]
    rows = [
        _page.row(
            [
                (_image(drawn.images[i, 0, 0]), "model"),
                (_image(projected.images[i, 0, 0]), "its point in the space"),
                (
                    _image(nearest.images[i, 0, 0]),
                    f"nearest training model, cosine {cosine:.2f}",
                ),
            ],
            few=3,
        )
        for i, cosine in enumerate(cosines[:_ROWS])
    ]
    text = (
        f"The space was fitted to the models of {figures['models']:,} other people: a point in it"
        f" is {figures['components']:,} coefficients in place of"
        f" {setting.space.num_parameters:,} weights."
        " What a person's model has in common with those of all others lies inside; the nearest"
        " training model is somebody else."
    )
    shown = {
        "models in the space": figures["models"],
        "share of their variance it holds": figures["captured_variance"],
        "share of a new model outside": mean(figures["share_outside"]),
        "ID score of a new model's point": mean(figures["id_score"]),
    }
    return _page.section(
        "2. The model is a point in a space of people",
        _page.paragraph(text),
        _page.facts(shown),
        _pairs(rows),
    )


def sampled(
    setting: Setting, figures: Mapping[str, Any], prompts: Sequence[str], drawn: Seen
) -> str:
    """Show what models of nobody draw."""
    rows = [
        _page.row([(_image(models[p, 0]), _scene(text, setting)) for p, text in enumerate(prompts)])
        for models in drawn.images[:_NEW_ROWS]
    ]
    text = (
        f"Drawing the first {figures['components']:,} coefficients at random,"
        f" {figures['scale']:g} times as wide as the training models spread, gives a model of a"
        " person who does not exist, the same in every image. Each row is one new model."
    )
    shown = {
        "images of one model picked out (AUC)": figures["verification_auc"],
        "cosine to the nearest training model": figures["cosine_to_nearest"],
        "the same among training models": figures["training_cosine_to_nearest"],
    }
    return _page.section("3. New people", _page.paragraph(text), _pairs(rows), _page.facts(shown))


def edited(
    figures: Mapping[str, Any],
    before: Seen,
    edits: Mapping[str, Edit],
    strengths: Sequence[float],
    along: Mapping[str, Seen],
) -> str:
    """Show models before and after edits, and some at several strengths along one direction.

    Args:
        figures: of the stage.
        before: what is edited.
        edits: label → edit.
        strengths: of `along`.
        along: label → an image for each strength.
    """
    rows = [
        _page.row(
            [(_image(image), "before")]
            + [
                (_image(each.after.images[i, 0, 0]), _signed(name, bool(each.add[i])))
                for name, each in edits.items()
            ],
            few=3,
        )
        for i, image in enumerate(before.images[:_ROWS, 0, 0])
    ]
    text = (
        f"Every attribute is a direction. Each person was moved {figures['strength']:g} standard"
        " deviations along each of them, towards what the person lacks or away from what the"
        " person has; prompt and seed stay the same, so only the model changed."
    )
    shown = {
        "wanted change seen": mean(figures["success"]),
        "ID score to the image before": mean(figures["id_score"]),
        "other attributes kept": mean(figures["others_kept"]),
    }
    rows_along = [
        _page.row(
            [
                (_image(seen.images[k, 0, 0]), f"{_words(name)} {a:+g}" if a else "0")
                for k, a in enumerate(strengths)
            ],
            few=5,
        )
        for name, seen in along.items()
    ]
    return _page.section(
        "4. Directions change one thing",
        _page.paragraph(text),
        *rows,
        _page.facts(shown),
        _page.heading("Strength counts standard deviations of the training models"),
        _pairs(rows_along),
    )


def inverted(
    setting: Setting,
    figures: Mapping[str, Any],
    photo: UInt8[np.ndarray, "h w 3"],
    prompts: Sequence[str],
    drawn: Seen,
    edits: Mapping[str, tuple[UInt8[Tensor, "h2 w2 3"], bool]],
) -> str:
    """Show a photo, what its model draws, and edits of that model.

    Args:
        setting: of the tour.
        figures: of the stage.
        photo: that was inverted.
        prompts: of `drawn`.
        drawn: by the model of the photo, with two seeds.
        edits: label → image, and whether it was moved towards the label.
    """
    row = _page.row(
        [(_image(photo), "the photo")]
        + [
            (_image(drawn.images[0, p, s]), _scene(text, setting))
            for p, text in enumerate(prompts)
            for s in range(1 if p else 2)
        ],
        few=3,
    )
    edited_row = _page.row(
        [(_image(image), _signed(name, add)) for name, (image, add) in edits.items()], few=4
    )
    text = (
        "One more person, of whom there is one image."
        f" {figures['invert_seconds']:.0f} seconds of search among {figures['numbers']:,}"
        " coefficients of the space give a model that draws the person in new scenes, and that"
        " takes edits like any other."
    )
    shown = {
        "ID score to the person's other images": figures["id_score"],
        "ID score of a drawing to its person": figures["id_score_of_drawings"],
        "seconds": figures["invert_seconds"],
    }
    return _page.section(
        "5. One photo is enough", _page.paragraph(text), row, edited_row, _page.facts(shown)
    )


def exported(figures: Mapping[str, Any], base: str, path: Path, prompt: str) -> str:
    """Show how diffusers loads the LoRA, and how near it then comes to our own denoiser.

    Args:
        figures: of the stage.
        base: as diffusers finds it.
        path: of the LoRA.
        prompt: to draw with.
    """
    parts = [
        _page.paragraph(
            "Every point of the space is an ordinary LoRA. This file holds the person of the"
            " photo, for diffusers; kohya's format for A1111 and ComfyUI, and PEFT's, are one"
            " word away."
        ),
        _page.code(
            "from diffusers import StableDiffusionPipeline\n\n"
            f'pipeline = StableDiffusionPipeline.from_pretrained("{base}")\n'
            f'pipeline.load_lora_weights("{path.as_posix()}")\n'
            f'pipeline("{prompt}").images[0]'
        ),
    ]
    difference = figures["max_abs_difference"]
    if difference is None:
        parts.append(
            _page.paragraph(f"Not compared with diffusers: {figures['not_compared']}.", "note")
        )
    else:
        shown = {
            "size of the file": f"{figures['bytes'] / 1024:.0f} kB",
            "largest difference of the denoiser's output, ours to diffusers'": difference,
        }
        parts.append(_page.facts(shown))
    return _page.section("6. A LoRA for other programs", *parts)


def next_steps(setting: Setting, out: Path, attributes: Sequence[str]) -> str:
    """Return commands that go on from the tour, on the same base and in the same space."""
    label = "Eyeglasses" if "Eyeglasses" in attributes else attributes[-1]
    photo, changed = out / "models" / "photo.safetensors", out / "models" / "edited.safetensors"
    base = ["--base", setting.base.id] if setting.base.id != setting.world.name else []
    space = ["--space", setting.space_name] if setting.space_name != setting.world.name else []
    prompt = f"{setting.recipe.instance_prompt}, in a forest"
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
        _page.paragraph("Models of your own subjects, from a folder of images for each:"),
        _page.code(_command("train", "SUBJECTS", *base, "--out", "weights")),
        _page.paragraph("The paper's tables and figures, measured on this world:"),
        _page.code(_command("evaluate", "all", "--quick", *base, *space, "--out", "evaluation")),
    )


def page(report: Mapping[str, Any], sections: Sequence[str]) -> str:
    """Return the whole page: the report's first figures, the sections, and what all was made on."""
    space, train = report["space"], report["train"]
    there = train["models_there_before"]
    without = f", without {there} of the models" if there else ""
    first = _page.facts(
        {
            f"minutes for everything below{without}": f"{report['seconds'] / 60:.1f}",
            "people fine-tuned": train["subjects"],
            "models in the space": space["models"],
            "seconds from one photo to a model": f"{report['invert']['invert_seconds']:.1f}",
        }
    )
    lead = (
        "A fine-tuned diffusion model is a point in a space of models. New points are new people,"
        " directions change one thing about them, and one photo finds its own."
    )
    return _page.page(
        "A space of people, each a model",
        lead,
        [first, _page.paragraph(report["statement"], "note"), *sections],
        small_print({**report, "space": space["name"], "space_hash": space["hash"]}),
    )


def _command(*words: str | Path) -> str:
    """Return a command as a shell reads it, whatever the names hold."""
    texts = (word.as_posix() if isinstance(word, Path) else word for word in words)
    return shlex.join(["w2w", *texts])


def _pairs(rows: Sequence[str]) -> str:
    """Put rows two by two where the page is wide enough."""
    return f'<div class="pairs">{"".join(rows)}</div>'


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
    """Return what a prompt says beyond that of training."""
    return prompt.removeprefix(setting.recipe.instance_prompt).strip(" ,") or "model"
