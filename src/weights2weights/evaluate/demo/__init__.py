"""The demo: from images of new people to a LoRA file, on the embedded world, in minutes.

    images of people → LoRAs → points of the space → samples, edits, an inverted photo → a LoRA file

One module per stage. A stage returns its figures for `report.json` and its images for
`report.html`. The people are drawn for the demo, and neither the base, the scorer nor the space has
seen them.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..._files import make_folder, write_atomic
from ..._json import canonical_json, plain
from ..page import render
from ..setting import Setting
from ._stage import Demo as Demo
from ._stage import Stage
from .edit import edit
from .export import export
from .invert import invert
from .next_steps import next_steps
from .project import project
from .sample import sample
from .train import train

ATTRIBUTES = (
    *("Male", "Young", "Bald", "Blond_Hair"),
    *("Dark_Skin", "Full_Beard", "Eyeglasses", "Wearing_Hat"),
)
"""Attributes to edit, as far as the space has labels for them."""

STRENGTH = 3.0
"""Strength of the edits, in standard deviations of the training models along the direction."""

T = TypeVar("T", bound=Stage)


def demo(
    setting: Setting,
    out: Path,
    *,
    subjects: int = 8,
    images: int = 10,
    samples: int = 8,
    attributes: Sequence[str] = ATTRIBUTES,
    strength: float = STRENGTH,
    log: Callable[[str], None] = lambda text: None,
    **changes: Any,
) -> dict[str, Any]:
    """Run the demo, and write `report.json` and `report.html`.

    Args:
        setting: base, space, world and scorer.
        out: folder for everything; a second run there reuses the models it finds.
        subjects: number of people to fine-tune.
        images: training images per person.
        samples: number of new people to sample.
        attributes: attributes to edit.
        strength: of the edits, in standard deviations.
        log: receives a line when a stage begins.
        **changes: changes to the training configuration.

    Returns:
        the report, as in the file.

    Raises:
        W2WError: the space has no labels, too few models, or was fitted to one of the people; or
            writing failed.
    """
    begun = time.perf_counter()
    run = Demo.plan(setting, out, subjects, attributes, strength)
    make_folder(out)
    stages: dict[str, Stage] = {}

    def timed(name: str, what: str, stage: Callable[[], T]) -> T:
        log(f"{len(stages) + 1}/6 {what} …")
        start = time.perf_counter()
        done = stage()
        seconds = time.perf_counter() - start
        done.figures = {"seconds": seconds, **done.figures, "stage_seconds": seconds}
        stages[name] = done
        return done

    trained = timed(
        "train", f"fine-tuning {subjects} people", lambda: train(run, images, **changes)
    )
    projected = timed("space", "projecting them into the space", lambda: project(run, trained))
    timed("sample", f"sampling {samples} new people", lambda: sample(run, samples))
    timed("edit", f"editing {len(run.attributes)} attributes", lambda: edit(run, projected))
    inverted = timed("invert", "inverting one photo", lambda: invert(run, trained))
    timed("export", "exporting a LoRA", lambda: export(run, inverted.point))

    context = setting.measured_on()
    report = {**context, **{name: stage.figures for name, stage in stages.items()}}
    report["space"] |= {"name": context["space"], "hash": context["space_hash"]}
    report["seconds"] = time.perf_counter() - begun
    report = plain(report)
    views = {name: stage.views for name, stage in stages.items()}
    page = render(
        "demo.html", report=report, views=views, context=context, next_steps=next_steps(run)
    )
    write_atomic(out / "report.html", [page.encode()])
    write_atomic(out / "report.json", [canonical_json(report)])
    return report
