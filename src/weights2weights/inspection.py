"""What a path holds, and whether it is sound: worlds, datasets, spaces, models and LoRAs.

`info` and `verify` look at names and headers to tell what a path is; what is none of the others is
taken for a LoRA, whose reader reports what is missing.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from torch.nn import Module

from ._shipped import means_world, shipped
from .bases import load_base
from .dataset import FACTS, WeightDataset, is_dataset
from .errors import InputError, W2WError
from .formats import AlphaMissing, load_lora
from .formats.authors import MODEL_SUFFIX
from .layout import WeightLayout
from .models import FORMAT, is_model, load_model
from .opening import files_in
from .space import WeightSpace, verify_space
from .updates import read_updates, survey
from .worlds import load_world
from .worlds.scorers import Scorer

_MAX_JSON = 64 << 20  # bytes; a larger file describes nothing of ours
# Files that show that a folder is meant, where it has the name of a world.
_OF_FOLDERS = (
    FACTS,
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
    describe, _ = _kind(path)
    return describe(path)


def verify(path: str | Path) -> list[str]:
    """Read all of what a path holds: every checksum, shape and finite value.

    Returns:
        the problems, a line each; none if all is well.
    """
    try:
        _, problems = _kind(path)
        return list(problems(path))
    except W2WError as error:
        return [str(error)]


def _kind(path: str | Path) -> tuple[Callable[..., dict[str, Any]], Callable[..., Iterable[str]]]:
    """Return how to describe what a path holds, and how to find its problems."""
    place = Path(path)
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise InputError(f"{path} is not a regular file or folder; expected one")
    if means_world(path, *_OF_FOLDERS) and not place.is_file():
        return _describe_world, _problems_of_world
    if is_dataset(path):
        return _describe_dataset, _problems_of_dataset
    if _is_space(path):
        return _describe_space, verify_space
    if any(map(is_model, files_in(place))):
        return _describe_folder, _problems_of_folder
    if is_model(path):
        return _describe_model, lambda path: load_model(path) and ()
    return _describe_lora, lambda path: load_lora(path) and ()


def _of_layout(layout: WeightLayout) -> dict[str, Any]:
    return {
        "layout": layout.hash,
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "base": layout.base,
    }


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
    parts = {name: part for name, part in base.family.parts.items() if isinstance(part, Module)}
    for part, network in (parts | {"scorer": scorer.network}).items():
        for parameter, values in network.state_dict().items():
            if not values.isfinite().all():
                yield f"{part}: {parameter} has values that are not finite; reinstall the package"


def _describe_dataset(path: str | Path) -> dict[str, Any]:
    try:
        dataset = WeightDataset.open(path)
    except InputError:
        if (Path(path) / "dataset.json").exists():
            raise
        return survey(*read_updates([path]))  # LoRAs of several layouts
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
    try:
        dataset = WeightDataset.open(path)
    except InputError:
        if (Path(path) / "dataset.json").exists():
            raise
        yield from read_updates([path])[1].values()
        return
    yield from dataset.verify().values()
    try:
        _ = dataset.labels
    except W2WError as error:
        yield str(error)


def _is_space(folder: str | Path) -> bool:
    """Return whether the config declares a space or, where it cannot be read, tensors are there."""
    path = Path(folder) / "config.json"
    try:
        if path.is_file() and path.stat().st_size <= _MAX_JSON:
            found = json.loads(path.read_bytes())
            return isinstance(found, dict) and found.get("format") == "weights2weights-space"
    except (OSError, ValueError, RecursionError):
        pass
    return (Path(folder) / "space.safetensors").is_file()


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


def _describe_folder(path: str | Path) -> dict[str, Any]:
    names = [file.stem for file in files_in(Path(path))]
    return {"format": "folder of models", "models": len(names), "names": names}


def _problems_of_folder(path: str | Path) -> Iterator[str]:
    for file in files_in(Path(path)):
        yield from verify(file)


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
