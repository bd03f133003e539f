"""A model file: a point of a space, as `w2w sample`, `edit` and `invert` write it."""

from typing import Any


def recognise(place: str) -> bool:
    """Take safetensors files whose header says that they are a model."""
    from ...models import is_model

    return is_model(place)


def describe(place: str) -> dict[str, Any]:
    """Return its space, base, size and how it came about."""
    from ...models import FORMAT, load_model

    model = load_model(place)
    layout = model.layout
    return {
        "format": FORMAT,
        "rank": layout.rank,
        "alpha": layout.alpha,
        "numbers": layout.num_parameters,
        "modules": len(layout.modules),
        "space": model.space,
        "components": None if model.coefficients is None else len(model.coefficients),
        "weights": model.weights is not None,
        "layout": layout.hash,
        "base": layout.base,
        "base_hash": model.base_hash,
        "origin": dict(model.origin),
    }


def verify(place: str) -> list[str]:
    """Read it, which checks header, shapes and every number."""
    from ...errors import W2WError
    from ...models import load_model

    try:
        load_model(place)
    except W2WError as error:
        return [str(error)]
    return []
