"""A LoRA: a PEFT folder, a diffusers file or a kohya file. It takes all places."""

from typing import Any


def recognise(place: str) -> bool:
    """Take every place; reading it tells what is missing."""
    return True


def describe(place: str) -> dict[str, Any]:
    """Return format, rank, alpha, size and base; alpha and layout None where it is not stated."""
    from ...formats import AlphaMissing, load_lora

    try:
        lora, stated = load_lora(place), True
    except AlphaMissing:
        lora, stated = load_lora(place, alpha=1.0), False
    layout = lora.layout
    return {
        "format": lora.format,
        "rank": layout.rank,
        "alpha": layout.alpha if stated else None,
        "numbers": layout.num_parameters,
        "modules": len(layout.modules),
        "targets": layout.targets,
        "dtype": str(lora.weights.dtype).removeprefix("torch."),
        "layout": layout.hash if stated else None,
        "base": layout.base,
        "metadata": lora.metadata,
    }


def verify(place: str) -> list[str]:
    """Read the whole LoRA, which checks names, shapes, rank, alpha and every number."""
    from ...errors import W2WError
    from ...formats import load_lora

    try:
        load_lora(place)
    except W2WError as error:
        return [str(error)]
    return []
