"""Models in whatever form users hand them over, told apart in this one place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .dataset import FACTS, WeightDataset, is_dataset
from .errors import InputError
from .formats.peft import DIFFUSERS_NAME, WEIGHTS_NAME
from .layout import WeightLayout
from .models import Model, load_model, require_one_base
from .space import WeightSpace

Models = Any
"""Points (n, m) or (m,) of a space or weights (n, d) or (d,) of a layout, torch or NumPy; a `Model`
or a path; a sequence of these; or a result of `invert`, which has `points`."""

Space = WeightSpace | str | Path
"""A space, its folder, its hub id or the name of an embedded world."""


def load_models(path: str | Path) -> list[Model]:
    """Read all models that a path stands for.

    Args:
        path: a model file, a LoRA of any format (file or folder), a dataset (all of its models),
            or any other folder of model and LoRA files; or one of them as FOLDER/NAME.

    Returns:
        at least one model; `Model.name` is the name of the file or of the row.

    Raises:
        InputError: there is no model, or one that cannot be read; the message begins with the path.
    """
    path = Path(path)
    whole = is_dataset(path)
    if whole or (not path.is_file() and (path.parent / FACTS).is_file()):
        dataset = WeightDataset.open(path if whole else path.parent)
        names = list(dataset.names) if whole else [path.name]
        if not names:
            raise InputError(f"{path} holds no models yet; train some, or give another dataset")
        return [
            Model(dataset.layout, weights=row, base_hash=dataset.base_hash, name=name)
            for name, row in zip(names, dataset[names], strict=True)
        ]
    file = path.with_name(f"{path.name}.safetensors")
    if not path.exists() and file.is_file():
        return [load_model(file)]
    return [load_model(file) for file in files_in(path) or [path]]


def files_in(path: Path) -> list[Path]:
    """Return the model and LoRA files of a folder; none if it is itself a LoRA, or no folder."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    return [] if {file.name for file in files} & {WEIGHTS_NAME, DIFFUSERS_NAME} else files


def as_models(
    models: Models, *, space: Space | None = None, layout: WeightLayout | None = None
) -> list[Model]:
    """Return models, in whichever form they came, as `Model`s.

    Arrays are told apart by their last axis: d values are weights, at most m are a point of
    `space`, whose further coefficients count as 0.

    Args:
        models: see `Models`.
        space: of points that come as an array; see `Space`.
        layout: of weights that come as an array; not needed if `space` is given.

    Raises:
        InputError: an array that fits neither space nor layout, or both; no models at all; a path
            without models.
    """
    if isinstance(models, Model):
        return [models]
    if isinstance(models, str | Path):
        return load_models(models)
    if isinstance(models, Sequence):
        if not models:
            raise InputError("no models; expected at least one")
        if any(isinstance(model, Model | str | Path) for model in models):
            return [one for some in models for one in as_models(some, space=space, layout=layout)]
        models = torch.stack([torch.as_tensor(model) for model in models])
    values = torch.as_tensor(getattr(models, "points", models))
    rows = torch.atleast_2d(values)
    if rows.ndim != 2 or not len(rows) or not rows.is_floating_point():
        raise InputError(
            f"models as {values.dtype} of shape {list(values.shape)}: expected floats of shape"
            " (n, m), points of a space, or (n, d), weights of a layout"
        )
    if space is not None:
        return _in_space(rows, open_space(space), layout)
    if layout is None:
        raise InputError(
            f"an array of shape {list(values.shape)} does not say what it holds: give space=… for"
            " points, layout=… for weights"
        )
    return [Model(layout, weights=row) for row in rows]


def _in_space(rows: Tensor, space: WeightSpace, layout: WeightLayout | None) -> list[Model]:
    """Return the rows of an array as weights or as points of a space."""
    if layout is not None:
        layout.require_equal(space.layout, "the space")
    width, d, m = rows.shape[1], space.num_parameters, len(space)
    if width == d <= m:
        raise InputError(
            f"models of shape {list(rows.shape)} may be points or weights, as the space has {m}"
            f" components for {d} parameters: give layout=… alone for weights, `Model`s for points"
        )
    if width == d:
        return [Model(space.layout, weights=row, base_hash=space.base_hash) for row in rows]
    if 0 < width <= m:
        return [space.model(row, {}) for row in rows]
    raise InputError(
        f"models of shape {list(rows.shape)}: expected a last axis of at most {m}, points of the"
        f" space, or of {d}, weights of its layout"
    )


def one_model(
    model: Models, *, space: Space | None = None, layout: WeightLayout | None = None
) -> Model:
    """Return the one model that came, in whichever form; see `as_models`.

    Raises:
        InputError: several models came; as `as_models`.
    """
    found = as_models(model, space=space, layout=layout)
    if len(found) > 1:
        hint = f", as {model}/NAME" if isinstance(model, str | Path) else ""
        raise InputError(
            f"{model if hint else 'this'} holds {len(found)} models: expected one{hint}"
        )
    return found[0]


def stack_models(
    models: Models,
    *,
    space: Space | None = None,
    layout: WeightLayout | None = None,
    base_hash: str = "",
) -> tuple[WeightLayout, Float[Tensor, "n d"]]:
    """Return models, in whichever form they came, as one layout and a float32 weight matrix.

    Args:
        models: see `Models`.
        space: of points; opened only if there are some.
        layout: of weights that come as an array; else what all models must have.
        base_hash: of the base that they must belong to, "" if any.

    Raises:
        InputError: as `as_models`; points without their space, models of several layouts or bases.
    """
    found = as_models(models, space=space, layout=layout)
    layout = layout or found[0].layout
    for number, model in enumerate(found):
        name = model.name or f"model {number}"
        layout.require_equal(model.layout, name)
        base_hash = require_one_base(base_hash, model.base_hash, name)
    points = [model for model in found if model.weights is None]
    rows = iter(_to_weights(points, space) if points else ())
    weights = [next(rows) if model.weights is None else model.weights for model in found]
    return layout, torch.stack([row.to(weights[0]) for row in weights])


def _to_weights(points: Sequence[Model], space: Space | None) -> Float[Tensor, "n d"]:
    """Return the weights of points of one space, in one pass over its components."""
    if space is None:
        raise InputError(
            f"{points[0].name or 'the model'} is a point of space {points[0].space}, which it needs"
            " to become weights: give it as space=… (--space)"
        )
    opened = open_space(space)
    rows = torch.stack([opened.coefficients_of(model) for model in points])
    for model in points:
        if model.coefficients is not None and model.coefficients[len(opened) :].any():
            raise InputError(
                f"{model.name or 'the model'} has {len(model.coefficients)} coefficients, but the"
                f" space was truncated to {len(opened)} components; give the whole space"
            )
    return opened.to_weights(rows.to(opened.components.device))


def open_space(space: Space) -> WeightSpace:
    """Return a space, read from where it is kept if it came as a name."""
    return space if isinstance(space, WeightSpace) else WeightSpace.from_pretrained(space)
