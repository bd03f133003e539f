"""The experiments by name, and how they run: once for equal inputs, then the page of all."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from weights2weights.errors import InputError

from .cache import digest
from .plots import require_matplotlib
from .report import write_report
from .result import Result, Stored, read_result, write_result
from .setting import ExperimentSetting

EXPERIMENTS = {
    "table1": "edits: prompting, text sliders and w2w",
    "attributes": "edits of every attribute",
    "composed": "four edits at once",
    "table2": "inversion of one image, compared with DreamBooth on one and on ten",
    "figure4": "new models and their nearest training models",
    "figure8": "inversion of out-of-distribution images",
    "figure9": "entanglement of directions against the number of models",
    "figure10": "identity of inversions against the number of models",
    "figure26-27": "marginals and joints of the coefficients",
    "figure28": "components for editing",
    "figure30": "components for inversion",
    "figure31": "traversals along the first components",
    "figure33": "merging with a style",
    "figure34": "delayed injection",
}
"""Name → what it measures, in the order of the report."""

WITHOUT_PEOPLE = {"figure4", "figure9", "figure26-27"}
"""Experiments on the space alone, which need no held-out people."""


def run(
    names: Sequence[str],
    setting: ExperimentSetting,
    out: Path,
    *,
    quick: bool = False,
    log: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> list[Stored]:
    """Run experiments and write each as JSON and PNG, then `report.html` for the whole folder.

    An experiment that the folder holds with equal inputs is not run again. The page leaves out
    results for another base, space, precision or seed.

    Args:
        names: of `EXPERIMENTS`.
        setting: what to measure on.
        out: folder of the results.
        quick: run with few images, for a first look.
        log: receives a line when an experiment begins and ends.

    Returns:
        the results that were asked for.

    Raises:
        W2WError: an unknown name, no matplotlib, or a failure of an experiment.
    """
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        raise InputError(f"no experiment {unknown[0]!r}: expected one of {', '.join(EXPERIMENTS)}")
    require_matplotlib()
    stored = []
    for name in names:
        measured_on = replace(setting, held_out=None) if name in WITHOUT_PEOPLE else setting
        found = _find(name, measured_on, out, quick)
        if found is None:
            log(f"{name}: {EXPERIMENTS[name]} …")
            found = _measure(name, measured_on, out, quick)
            log(f"{name}: {found.facts['seconds']:.0f} s")
        else:
            log(f"{name}: already done")
        stored.append(found)
    context = setting.measured_on()
    everything = [found for name in EXPERIMENTS if (found := read_result(out, name))]
    write_report(out, [found for found in everything if _comparable(found, context)], context)
    return stored


def _comparable(found: Stored, context: Mapping[str, Any]) -> bool:
    names = ("base_hash", "dtype", "space_hash", "seed")
    return all(found.facts.get(name) == context[name] for name in names)


def _inputs(name: str, setting: ExperimentSetting, quick: bool) -> dict[str, Any]:
    return {**setting.inputs, "experiment": name, "options": _options(name, quick)}


def _options(name: str, quick: bool) -> dict[str, Any]:
    return dict(_module(name).QUICK) if quick else {}


def _find(name: str, setting: ExperimentSetting, out: Path, quick: bool) -> Stored | None:
    found = read_result(out, name)
    same = found is not None and found.facts.get("inputs") == digest(_inputs(name, setting, quick))
    return found if same else None


def _measure(name: str, setting: ExperimentSetting, out: Path, quick: bool) -> Stored:
    begun = time.perf_counter()
    measure = getattr(_module(name), name.replace("-", "_"))
    result: Result = measure(setting, **_options(name, quick))
    context = {
        **setting.measured_on(),
        "inputs": digest(_inputs(name, setting, quick)),
        "quick": quick,
        "options": _options(name, quick),
        "seconds": time.perf_counter() - begun,
    }
    return write_result(out, result, context)


def _module(name: str) -> Any:
    return import_module(f".{name.replace('-', '_')}", __package__)
