"""A space of models: the folder that `w2w fit` makes."""

import json
from pathlib import Path
from typing import Any


def recognise(place: str) -> bool:
    """Take folders whose config.json says that they are a space, or that hold one's tensors."""
    folder = Path(place)
    try:
        facts = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return (folder / "space.safetensors").is_file()
    return isinstance(facts, dict) and facts.get("format") == "weights2weights-space"


def describe(place: str) -> dict[str, Any]:
    """Return counts, layout, base, labels and how it was fitted."""
    from ...space import WeightSpace

    space = WeightSpace.from_pretrained(place)
    layout = space.layout
    return {
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        "captured_variance": space.captured_variance,
        "labels": list(space.labels.columns),
        "known_spread": space.coefficients.shape[1],
        "space": space.hash,
        "layout": layout.hash,
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "base": layout.base,
        "base_hash": space.base_hash,
        "dtype": str(space.components.dtype).removeprefix("torch."),
        "facts": dict(space.facts),
    }


def verify(place: str) -> list[str]:
    """Read everything: checksums, shapes, finite numbers."""
    from ...errors import W2WError
    from ...space import verify_space

    try:
        return verify_space(place)
    except W2WError as error:
        return [str(error)]
