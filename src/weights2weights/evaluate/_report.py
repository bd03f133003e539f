"""What an item of the paper gives: figures as JSON, images as PNG, and the page that shows all.

`Result` is what every item returns. `write_result` puts it into a folder, `read_result` takes it
back, and `write_report` makes one self-contained page of all that a folder holds.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import make_folder, write_atomic
from .._json import canonical_json, plain
from . import _page

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Estimate = dict[str, Any]
"""A mean in its interval, as `metrics.confidence.Interval.to_dict` gives it."""


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        caption: what it shows.
        columns: their names.
        rows: texts, numbers, `Estimate`s, None for what there is not; the first is the row's name.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Sheet:
    """A plot or a sheet of images.

    Attributes:
        name: of its file, without the item's name and the ending.
        image: the image.
        caption: what to see in it, also for those who cannot.
        least: pixels below which it scrolls in place of shrinking.
    """

    name: str
    image: "Image"
    caption: str
    least: int = 0


@dataclass(frozen=True)
class Result:
    """What one item gives.

    Attributes:
        name: of the item, such as "figure9".
        title: a line.
        paper: what the paper shows, in words and its figures.
        checks: the paper's statements and this project's aims, and whether they hold here; judged
            from the figures.
        figures: all numbers, JSON values; NaN and infinite ones become null.
        tables: of the most telling figures.
        images: plots and sheets.
        note: what else a reader must know.
    """

    name: str
    title: str
    paper: str
    checks: Mapping[str, bool] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    images: Sequence[Sheet] = ()
    note: str = ""


@dataclass(frozen=True)
class Stored:
    """A result as its folder holds it: the JSON, and the images' files."""

    facts: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """Of the item."""
        return self.facts["item"]


def write_result(folder: Path, result: Result, context: Mapping[str, Any]) -> Stored:
    """Write the images, and last the JSON: an item whose JSON is there is whole.

    Args:
        folder: made if absent.
        result: what to write.
        context: what else the JSON says: `inputs`, `base`, `space`, `machine`, `seed`, `seconds`, …

    Raises:
        W2WError: figures that JSON cannot hold, a failure to write.
    """
    import io

    make_folder(folder)
    images = []
    for image in result.images:
        file = f"{result.name}-{image.name}.png"
        buffer = io.BytesIO()
        image.image.save(buffer, "PNG", optimize=True)
        write_atomic(folder / file, [buffer.getvalue()])
        images.append({"file": file, "caption": image.caption, "least": image.least})
    facts = {
        "item": result.name,
        "title": result.title,
        "paper": result.paper,
        "note": result.note,
        "checks": dict(result.checks),
        "figures": plain(result.figures),
        "tables": [
            {"caption": t.caption, "columns": list(t.columns), "rows": plain(t.rows)}
            for t in result.tables
        ],
        "images": images,
        **plain(context),
    }
    write_atomic(folder / f"{result.name}.json", [canonical_json(facts)])
    return Stored(facts, folder)


def read_result(folder: Path, name: str) -> Stored | None:
    """Return an item that a folder holds whole, or None."""
    path = folder / f"{name}.json"
    try:
        facts = json.loads(path.read_bytes())
        whole = facts["item"] == name and all(
            (folder / image["file"]).is_file() for image in facts["images"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Stored(facts, folder) if whole else None


def write_report(folder: Path, results: Sequence[Stored], context: Mapping[str, Any]) -> Path:
    """Write `report.html`: every item beside what the paper shows, in one file.

    Args:
        folder: of the page.
        results: in the order of the page.
        context: what all was measured on; see `measured_on`.

    Returns:
        the page's path.
    """
    sections = [
        _page.section("What this is", *_preamble(results, context)),
        *(_section(result) for result in results),
    ]
    html = _page.page(
        "The paper's tables and figures, measured again",
        "Interpreting the Weight Space of Customized Diffusion Models (Dravid et al. 2024),"
        f" on {context['world']}",
        sections,
        small_print(context),
    )
    path = folder / "report.html"
    write_atomic(path, [html.encode()])
    return path


def _preamble(results: Sequence[Stored], context: Mapping[str, Any]) -> list[str]:
    quick = [result.facts["title"] for result in results if result.facts.get("quick")]
    held = [holds for result in results for holds in result.facts["checks"].values()]
    parts = [
        _page.paragraph(
            f"{context['statement']} The figures are no measurements of the paper's world, and not"
            " to be compared with it number by number: what can be compared is which method is"
            " ahead, and how a figure rises or falls. Means stand with a 95 % interval from"
            " resampling subjects."
        ),
    ]
    if held:
        parts.append(
            _page.paragraph(
                f"{sum(held)} of {len(held)} checks hold: what the paper states, and aims of this"
                " project."
            )
        )
    if quick:
        parts.append(
            _page.paragraph(
                f"A first look with few images (--quick): {', '.join(quick)}. Intervals are wide."
            )
        )
    links = {result.name: result.facts["title"] for result in results}
    return [*parts, _page.contents(links)]


def _section(result: Stored) -> str:
    from PIL import Image

    facts = result.facts
    parts = [_page.paragraph(f"In the paper: {facts['paper']}")]
    if facts["checks"]:
        parts.append(_page.checks(facts["checks"]))
    for table in facts["tables"]:
        parts.append(_page.table(table["columns"], table["rows"], table["caption"]))
    for image in facts["images"]:
        with Image.open(result.folder / image["file"]) as opened:
            opened.load()
            caption = image["caption"]
            parts.append(_page.sheet(opened, caption, caption, image["least"]))
    if facts["note"]:
        parts.append(_page.paragraph(facts["note"]))
    quick = ", few images (--quick)" if facts.get("quick") else ""
    parts.append(_page.paragraph(f"{facts['seconds']:,.0f} seconds{quick}.", "note"))
    return _page.section(facts["title"], *parts, anchor=result.name)


def small_print(context: Mapping[str, Any]) -> str:
    """Return the foot of a page: what was measured, on what."""
    names = {
        "base": "Base",
        "base_hash": "hash",
        "dtype": "numbers",
        "space": "Space",
        "space_hash": "hash",
        "seed": "Seed",
        "machine": "Machine",
        "version": "weights2weights",
    }
    said = " · ".join(f"{text}: {context[name]}" for name, text in names.items() if name in context)
    return _page.paragraph(said) + _page.paragraph(str(context["statement"]))


def machine(device: "torch.device | None" = None) -> str:
    """Say in a line on what figures were measured.

    Args:
        device: where the base is; None is the CPU, so that no GPU is named that had no part in it.

    Example:
        >>> "torch" in machine()
        True
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    on_cuda = device is not None and device.type == "cuda"
    kind = platform.machine() if device is None or device.type == "cpu" else device.type
    name = torch.cuda.get_device_name(device) if on_cuda else kind
    return (
        f"{cores} cores, {name}, {platform.system()}, Python {platform.python_version()},"
        f" torch {torch.__version__}"
    )
