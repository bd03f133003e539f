"""Checking everything that a space's folder holds."""

from pathlib import Path

from .._files import checksum
from ._store import LABELS, MODELS, TENSORS, read, read_config, rows_at_once


def verify_space(folder: str | Path) -> list[str]:
    """Read everything a space's folder holds and return the problems; empty if there are none.

    Raises:
        InputError: it is not a space, or its `config.json` cannot be read.
    """
    folder = Path(folder)
    sums = read_config(folder)["sha256"]
    problems = []
    for name in (TENSORS, MODELS, LABELS):
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif checksum(folder / name) != sums.get(name):
            problems.append(f"{name} has changed since it was saved")
    if problems:
        return problems
    space = read(folder)
    for name in ("mean", "std", "components", "coefficients"):
        tensor = getattr(space, name)
        if not all(part.isfinite().all() for part in tensor.split(rows_at_once(tensor))):
            problems.append(f"{name} has NaN or infinite values")
    if not (space.std > 0).all():
        problems.append("std has zeros or negative values")
    return problems
