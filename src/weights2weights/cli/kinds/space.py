"""A space of models: a folder that `w2w fit` makes."""

import json
from pathlib import Path
from typing import Any


def recognise(place: str) -> bool:
    """Return whether config.json declares a space or, without one, its tensors are there."""
    folder = Path(place)
    config = folder / "config.json"
    try:
        found = json.loads(config.read_bytes()) if config.is_file() else None
    except (OSError, ValueError, RecursionError):
        found = None
    if found is None:
        return (folder / "space.safetensors").is_file()
    return isinstance(found, dict) and found.get("format") == "weights2weights-space"


def describe(place: str) -> dict[str, Any]:
    """Return counts, layout, base, labels and how the space was fitted."""
    from ...space import WeightSpace

    space = WeightSpace.from_pretrained(place)
    layout = space.layout
    return {
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        "captured_variance": space.captured_variance,
        "labels": list(space.labels.columns),
        "of": space.metadata.get("of", "weights"),
        "known_components": space.coefficients.shape[1],
        "space": space.hash,
        "layout": layout.hash,
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "base": layout.base,
        "base_hash": space.base_hash,
        "dtype": str(space.components.dtype).removeprefix("torch."),
        "metadata": dict(space.metadata),
    }


def verify(place: str) -> list[str]:
    """Check everything: checksums, shapes, finite values."""
    from ...errors import W2WError
    from ...space import verify_space

    try:
        return verify_space(place)
    except W2WError as error:
        return [str(error)]
