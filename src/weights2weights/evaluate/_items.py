"""The items by name, and how they are run: once for equal inputs, then the page of all."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InputError
from ._keep import digest
from ._plots import require_matplotlib
from ._report import Result, Stored, read_result, write_report, write_result
from ._setting import Setting

ITEMS = {
    "table1": "edits: prompting, text sliders and w2w",
    "table2": "inversion of one image, beside DreamBooth on one and on ten",
    "figure4": "new models and their nearest training models",
    "figure8": "inversion of what the space never saw",
    "figure9": "entanglement of directions against the number of models",
    "figure10": "identity of inversions against the number of models",
    "figure26-27": "marginals and joints of the coefficients",
    "figure28": "components for editing",
    "figure30": "components for inversion",
    "figure31": "traversals along the first components",
    "figure33": "merging with a style",
    "figure34": "delayed injection",
}
"""What can be measured, in the order of the report."""

WITHOUT_PEOPLE = {"figure4", "figure9", "figure26-27"}
"""Items of the space alone: they need no held-out people, and do not depend on any."""


def evaluate(
    names: Sequence[str],
    setting: Setting,
    out: Path,
    *,
    quick: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> list[Stored]:
    """Measure items and write each as JSON and PNG; then `report.html` with all that `out` holds.

    An item that is there with equal inputs is not measured again. The page leaves out what was
    measured on another base or space, in other numbers, or with another seed.

    Args:
        names: of `ITEMS`.
        setting: what to measure on.
        out: folder of the files.
        quick: with few images, for a first look.
        say: receives a line when an item begins and ends.

    Returns:
        the items asked for.

    Raises:
        W2WError: an unknown name, no matplotlib; whatever an item meets.
    """
    if unknown := [name for name in names if name not in ITEMS]:
        raise InputError(f"no item {unknown[0]!r}: expected one of {', '.join(ITEMS)}")
    require_matplotlib()
    alone = replace(setting, held_out=None)
    stored = []
    for name in names:
        measured_on = alone if name in WITHOUT_PEOPLE else setting
        found = _find(name, measured_on, out, quick)
        if found is not None:
            say(f"{name}: there already")
        else:
            say(f"{name}: {ITEMS[name]} …")
            found = _measure(name, measured_on, out, quick)
            say(f"{name}: {found.facts['seconds']:.0f} s")
        stored.append(found)
    context = setting.context()
    whole = [found for name in ITEMS if (found := read_result(out, name))]
    write_report(out, [found for found in whole if _of_one_run(found, context)], context)
    return stored


def _of_one_run(found: Stored, context: Mapping[str, Any]) -> bool:
    """Say whether an item was measured on what the page says that it shows."""
    named = ("base_hash", "dtype", "space_hash", "seed")
    return all(found.facts.get(name) == context[name] for name in named)


def _inputs(name: str, setting: Setting, quick: bool) -> dict[str, Any]:
    return {**setting.inputs, "item": name, "options": _options(name, quick)}


def _options(name: str, quick: bool) -> dict[str, Any]:
    return dict(_module(name).QUICK) if quick else {}


def _find(name: str, setting: Setting, out: Path, quick: bool) -> Stored | None:
    found = read_result(out, name)
    same = found is not None and found.facts.get("inputs") == digest(_inputs(name, setting, quick))
    return found if same else None


def _measure(name: str, setting: Setting, out: Path, quick: bool) -> Stored:
    begun = time.perf_counter()
    measure = getattr(_module(name), name.replace("-", "_"))
    result: Result = measure(setting, **_options(name, quick))
    context = {
        **setting.context(),
        "inputs": digest(_inputs(name, setting, quick)),
        "quick": quick,
        "options": _options(name, quick),
        "seconds": time.perf_counter() - begun,
    }
    return write_result(out, result, context)


def _module(name: str) -> Any:
    return import_module(f".{name.replace('-', '_')}", __package__)
