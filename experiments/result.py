"""The result of an experiment: figures as JSON, images as PNG."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weights2weights._files import make_folder, write_atomic
from weights2weights._json import canonical_json, plain

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Check:
    """A statement of the paper, or an aim of this project.

    Attributes:
        statement: the statement, the same in every run.
        holds: whether the figures support it.
        value: the figure or figures that decide; None where the tables show them.
    """

    statement: str
    holds: bool
    value: Any = None


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Attributes:
        caption: what it shows.
        columns: column names.
        rows: texts, numbers, estimates or None; the first cell names the row.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Sheet:
    """A plot or a sheet of images.

    Attributes:
        name: file name without the experiment's name and the suffix.
        image: the image.
        caption: what it shows, also used as alternative text.
        least: width in pixels below which it scrolls instead of shrinking.
    """

    name: str
    image: "Image"
    caption: str
    least: int = 0


@dataclass(frozen=True)
class Result:
    """The result of one experiment.

    Attributes:
        name: name of the experiment, such as "figure9".
        title: one line.
        paper: what the paper reports.
        checks: the paper's statements and this project's aims, decided by the figures.
        figures: all figures as JSON values; NaN and infinities become null.
        tables: the most telling figures.
        images: plots and sheets.
        note: what else a reader must know.
    """

    name: str
    title: str
    paper: str
    checks: Sequence[Check] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    images: Sequence[Sheet] = ()
    note: str = ""


@dataclass(frozen=True)
class Stored:
    """A result in a folder.

    Attributes:
        facts: content of its JSON file.
        folder: folder of the JSON file and the images.
    """

    facts: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.facts["experiment"]


def write_result(folder: Path, result: Result, context: Mapping[str, Any]) -> Stored:
    """Write the images, then the JSON: a result whose JSON exists is complete.

    Args:
        folder: created if missing.
        result: result to write.
        context: further fields of the JSON: `inputs`, `base`, `space`, `machine`, `seed`, …

    Raises:
        W2WError: a figure is not a JSON value, or writing failed.
    """
    make_folder(folder)
    images = []
    for sheet in result.images:
        file = f"{result.name}-{sheet.name}.png"
        buffer = io.BytesIO()
        sheet.image.save(buffer, "PNG", optimize=True)
        write_atomic(folder / file, [buffer.getvalue()])
        images.append({"file": file, "caption": sheet.caption, "least": sheet.least})
    facts = {
        "experiment": result.name,
        "title": result.title,
        "paper": result.paper,
        "note": result.note,
        "checks": [
            {"statement": c.statement, "holds": c.holds, "value": plain(c.value)}
            for c in result.checks
        ],
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
    """Return a complete result of a folder, or None."""
    path = folder / f"{name}.json"
    try:
        facts = json.loads(path.read_bytes())
        complete = facts["experiment"] == name and all(
            (folder / image["file"]).is_file() for image in facts["images"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Stored(facts, folder) if complete else None
