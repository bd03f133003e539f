"""The page of all results of a folder, in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weights2weights._files import write_atomic
from weights2weights.evaluate.page import render

from .result import Stored

TEMPLATES = Path(__file__).parent / "templates"


def write_report(folder: Path, results: Sequence[Stored], context: Mapping[str, Any]) -> Path:
    """Write `report.html`: every result with what the paper reports.

    Args:
        folder: folder of the page.
        results: in the order of the page.
        context: what they were measured on; see `provenance.measured_on`.

    Returns:
        path of the page.
    """
    held = [check["holds"] for result in results for check in result.facts["checks"]]
    html = render(
        "report.html",
        TEMPLATES,
        context=context,
        results=[_with_images(result) for result in results],
        quick=[result.facts["title"] for result in results if result.facts.get("quick")],
        held=sum(held),
        checks=len(held),
    )
    path = folder / "report.html"
    write_atomic(path, [html.encode()])
    return path


def _with_images(result: Stored) -> dict[str, Any]:
    from PIL import Image

    images = []
    for image in result.facts["images"]:
        with Image.open(result.folder / image["file"]) as opened:
            opened.load()
            images.append({**image, "image": opened})
    return {**result.facts, "name": result.name, "images": images}
