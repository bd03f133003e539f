"""What a path holds, and whether it is sound: worlds, datasets, spaces, models and LoRAs.

`info` and `verify` look at names and headers to tell what a path is; what is none of the others is
taken for a LoRA, whose reader reports what is missing.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._shipped import means_world, shipped
from .bases import load_base
from .dataset import WeightDataset, is_dataset
from .errors import InputError, W2WError
from .formats import AlphaMissing, load_lora
from .formats.authors import MODEL_SUFFIX
from .layout import WeightLayout
from .models import FORMAT, is_model, load_model
from .space import WeightSpace, verify_space
from .worlds import load_world
from .worlds.scorers import Scorer

_MAX_JSON = 64 << 20  # bytes; a larger file describes nothing of ours
# Files that show that a folder is meant, where it has the name of a world.
_OF_FOLDERS = (
    "dataset.json",
    "config.json",
    "adapter_config.json",
    "pytorch_lora_weights.safetensors",
    "unet",
)


def info(path: str | Path) -> dict[str, Any]:
    """Return what a path holds.

    Args:
        path: of a LoRA (PEFT folder, diffusers or kohya file), a dataset, a space or a model, or
            the name of an embedded world.

    Returns:
        JSON values and paths; the keys depend on the kind, see docs/files.md.

    Raises:
        InputError: it is none of these, or damaged.
    """
    return _kind(path).describe(path)


def verify(path: str | Path) -> list[str]:
    """Read all of what a path holds: every checksum, shape and finite value.

    Returns:
        the problems, a line each; none if all is well.
    """
    try:
        return list(_kind(path).problems(path))
    except W2WError as error:
        return [str(error)]


@dataclass(frozen=True)
class _Kind:
    recognise: Callable[[str | Path], bool]
    describe: Callable[[str | Path], dict[str, Any]]
    problems: Callable[[str | Path], Iterator[str]]


def _kind(path: str | Path) -> _Kind:
    place = Path(path)
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise InputError(f"{path} is not a regular file or folder; expected one")
    return next(kind for kind in _KINDS if kind.recognise(path))


def _declares(folder: str | Path, name: str, format: str) -> bool | None:
    """Return whether a JSON file declares a format; None if there is none that can be read."""
    path = Path(folder) / name
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON:
            return None
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return isinstance(found, dict) and found.get("format") == format


def _of_layout(layout: WeightLayout) -> dict[str, Any]:
    return {
        "layout": layout.hash,
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "base": layout.base,
    }


# Worlds.


def _is_world(place: str | Path) -> bool:
    return means_world(place, *_OF_FOLDERS) and not Path(place).is_file()


def _describe_world(name: str | Path) -> dict[str, Any]:
    base, space = load_base(name), shipped(str(name), "space")
    return {
        "world": str(name),
        "folder": shipped(str(name), "base"),
        "base": base.hash,
        "size": base.size,
        "scorer": shipped(str(name), "scorer"),
        "space": space if space.is_dir() else None,
        "labels": list(load_world(str(name)).label_names),
    }


def _problems_of_world(name: str | Path) -> Iterator[str]:
    base, scorer = load_base(name), Scorer.load(shipped(str(name), "scorer"))
    space = shipped(str(name), "space")
    if space.is_dir():
        yield from verify_space(space)
    networks = {
        "unet": base.unet,
        "vae": base.vae,
        "text_encoder": base.text_encoder,
        "scorer": scorer.network,
    }
    for part, network in networks.items():
        for parameter, values in network.state_dict().items():
            if not values.isfinite().all():
                yield f"{part}: {parameter} has values that are not finite; reinstall the package"


# Datasets.


def _describe_dataset(path: str | Path) -> dict[str, Any]:
    dataset = WeightDataset.open(path)
    return {
        "models": len(dataset),
        "numbers": dataset.layout.num_parameters,
        **_of_layout(dataset.layout),
        "base_hash": dataset.base_hash,
        "labels": list(dataset.labels.columns),
        "failed": len(dataset.failed),
        "failures": dataset.failed,
        "recipe": dataset.recipe,
    }


def _problems_of_dataset(path: str | Path) -> Iterator[str]:
    dataset = WeightDataset.open(path)
    yield from dataset.verify().values()
    try:
        _ = dataset.labels
    except W2WError as error:
        yield str(error)


# Spaces.


def _is_space(place: str | Path) -> bool:
    declared = _declares(place, "config.json", "weights2weights-space")
    return (Path(place) / "space.safetensors").is_file() if declared is None else declared


def _describe_space(path: str | Path) -> dict[str, Any]:
    space = WeightSpace.from_pretrained(path)
    return {
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        "captured_variance": space.captured_variance,
        "labels": list(space.labels.columns),
        "of": space.metadata.get("of", "weights"),
        "known_components": space.coefficients.shape[1],
        "space": space.hash,
        **_of_layout(space.layout),
        "base_hash": space.base_hash,
        "dtype": str(space.components.dtype).removeprefix("torch."),
        "metadata": dict(space.metadata),
    }


def _problems_of_space(path: str | Path) -> Iterator[str]:
    yield from verify_space(path)


# Models and LoRAs.


def _describe_model(path: str | Path) -> dict[str, Any]:
    model = load_model(path)
    return {
        "format": "authors" if Path(path).suffix == MODEL_SUFFIX else FORMAT,
        "numbers": model.layout.num_parameters,
        **_of_layout(model.layout),
        "space": model.space,
        "components": None if model.coefficients is None else len(model.coefficients),
        "weights": model.weights is not None,
        "base_hash": model.base_hash,
        "origin": dict(model.origin),
    }


def _problems_of_model(path: str | Path) -> Iterator[str]:
    load_model(path)
    yield from ()


def _describe_lora(path: str | Path) -> dict[str, Any]:
    """Return what a LoRA states; where it states no alpha, that and the layout are None."""
    try:
        lora, stated = load_lora(path), {}
    except AlphaMissing:
        lora, stated = load_lora(path, alpha=1.0), {"alpha": None, "layout": None}
    return {
        "format": lora.format,
        "numbers": lora.layout.num_parameters,
        **_of_layout(lora.layout),
        **stated,
        "targets": lora.layout.targets,
        "dtype": str(lora.weights.dtype).removeprefix("torch."),
        "metadata": lora.metadata,
    }


def _problems_of_lora(path: str | Path) -> Iterator[str]:
    load_lora(path)
    yield from ()


_KINDS = (
    _Kind(_is_world, _describe_world, _problems_of_world),
    _Kind(is_dataset, _describe_dataset, _problems_of_dataset),
    _Kind(_is_space, _describe_space, _problems_of_space),
    _Kind(is_model, _describe_model, _problems_of_model),
    _Kind(lambda path: True, _describe_lora, _problems_of_lora),
)
