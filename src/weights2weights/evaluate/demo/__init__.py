"""The demo: from images of new people to a LoRA file, on the embedded world, in minutes.

    images of people → LoRAs → points of the space → samples, edits, an inverted photo → a LoRA file

The people are drawn for the demo, and neither the base, the scorer nor the space has seen them.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..._files import make_folder, write_atomic
from ..._json import canonical_json, plain
from ..page import render, words
from ..setting import Setting
from . import _stages
from ._stages import Demo, Stage

ATTRIBUTES = (
    *("Male", "Young", "Bald", "Blond_Hair"),
    *("Dark_Skin", "Full_Beard", "Eyeglasses", "Wearing_Hat"),
)
"""Attributes to edit, as far as the space has labels for them."""

T = TypeVar("T")


def demo(
    setting: Setting,
    out: Path,
    *,
    subjects: int = 8,
    images: int = 10,
    samples: int = 8,
    attributes: Sequence[str] = ATTRIBUTES,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run the demo, and write `report.json` and `report.html`.

    Args:
        setting: base, space, world and scorer.
        out: folder for everything; a second run there reuses the models it finds.
        subjects: number of people to fine-tune.
        images: training images per person.
        samples: number of new people to sample.
        attributes: attributes to edit.
        log: receives a line when a stage begins.

    Returns:
        the report, as in the file.

    Raises:
        W2WError: the space has no labels, too few models, or was fitted to one of the people; or
            writing failed.
    """
    begun = time.perf_counter()
    run = Demo.plan(setting, out, subjects, attributes)
    make_folder(out)
    context, views = setting.measured_on(), {}
    report = dict(context)

    def stage(name: str, what: str, perform: Callable[..., Stage[T]], *given: Any) -> T:
        log(f"{len(views) + 1}/6 {what} …")
        start = time.perf_counter()
        done = perform(run, *given)
        report[name] = {"seconds": time.perf_counter() - start, **done.figures}
        views[name] = done.views
        return done.made

    made = stage("train", f"fine-tuning {subjects} people", _stages.train, images)
    points = stage("space", "projecting them into the space", _stages.project, *made)
    stage("sample", f"sampling {samples} new people", _stages.sample, samples)
    stage("edit", f"editing {len(run.directions)} attributes", _stages.edit, points)
    of_drawings = report["train"]["id_score_of_drawings"]
    found = stage("invert", "inverting one photo", _stages.invert, of_drawings)
    stage("export", "exporting a LoRA", _stages.export, found)

    report["space"] |= {"name": context["space"], "hash": context["space_hash"]}
    report = plain(report | {"seconds": time.perf_counter() - begun})
    page = render(
        "demo.html", report=report, views=views, context=context, next_steps=next_steps(run)
    )
    write_atomic(out / "report.html", [page.encode()])
    write_atomic(out / "report.json", [canonical_json(report)])
    return report


def next_steps(run: Demo) -> dict[str, list[str]]:
    """Return commands that continue on the same base and in the same space, by what they do."""
    setting, models = run.setting, run.out / "models"
    label = "Eyeglasses" if "Eyeglasses" in run.directions else list(run.directions)[-1]
    photo, changed = (models / f"{name}.safetensors" for name in ("photo", "edited"))
    base = ["--base", setting.base.id] if setting.base.id != setting.world.name else []
    space = ["--space", setting.space_name] if setting.space_name != setting.world.name else []
    prompt = f"{setting.recipe.instance_prompt}, in a forest"
    steps = {
        f"Edit the person of the photo (“{words(label)}”) and generate an image in another scene": [
            ["edit", photo, "--set", f"{label}=3", *space, "--out", changed],
            ["generate", changed, "--prompt", prompt, *base, *space, "--out", "forest.png"],
        ],
        "Train models of your own subjects, from one folder of images each": [
            ["train", "SUBJECTS", *base, "--out", "loras"]
        ],
        "Measure the space": [["evaluate", "samples", *space]],
    }
    return {
        what: [shlex.join(["w2w", *map(str, command)]) for command in commands]
        for what, commands in steps.items()
    }
