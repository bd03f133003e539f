"""From labels to targets of a fit: ±1 or numbers, one per training model."""

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError
from ..labels import tidy_labels

if TYPE_CHECKING:
    import pandas


class Target(NamedTuple):
    """What a direction is fitted to: ±1 for a label, otherwise numbers, NaN where unknown."""

    name: str
    values: Float[Tensor, " n"]
    binary: bool


def target_of(labels: "pandas.DataFrame", label: Any) -> Target:
    """Return the values of a column of a tidy table, or of a label of the caller's own."""
    from pandas.api.types import is_bool_dtype

    column = _column(labels, label) if isinstance(label, str) else _own(list(labels.index), label)
    binary = is_bool_dtype(column.dtype)
    values = torch.from_numpy(column.to_numpy(dtype=np.float64, na_value=np.nan).copy())
    return Target(str(column.name), values * 2 - 1 if binary else values, binary)


def _column(labels: "pandas.DataFrame", label: str) -> Any:
    if label in labels:
        return labels[label]
    if labels.columns.empty:
        raise InputError(f"label {label!r}: this space holds no labels; fit it with a label table")
    near = difflib.get_close_matches(label, labels.columns, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(labels)}"
    raise InputError(f"there is no label {label!r} in this space: {hint}")


def _own(names: list[str], label: Any) -> Any:
    import pandas

    if isinstance(label, Tensor):
        label = label.detach().cpu().numpy()
    if not isinstance(label, pandas.Series | Mapping):
        if len(label) != len(names):
            raise InputError(
                f"{len(label)} values: expected one for each of the {len(names)} training models"
            )
        label = pandas.Series(list(label), index=names)
    series = label if isinstance(label, pandas.Series) else pandas.Series(dict(label))
    name = "label" if series.name is None else str(series.name)
    table = tidy_labels(series.to_frame(name), names)
    if name not in table:
        raise InputError(f"label {name!r} holds text: expected 0 and 1, true and false, or numbers")
    return table[name]


def label_values(labels: "pandas.DataFrame") -> Float[Tensor, "n a"]:
    """Return a label table as numbers in which missing values are the mean of their label."""
    table = labels.to_numpy(dtype=np.float64, na_value=np.nan)
    values = torch.from_numpy(table.copy()).view(labels.shape)
    values = values.where(values.isfinite(), torch.nan)
    return torch.where(values.isnan(), values.nanmean(0), values).nan_to_num()


def require_usable(target: Target) -> Bool[Tensor, " n"]:
    """Return which models have a value; some must, and not all the same."""
    known = target.values.isfinite()
    values = target.values[known]
    if not len(values):
        raise InputError(f"{target.name!r} is known for no model: expected values for some")
    if bool((values == values[0]).all()):
        what = "all have it" if float(values[0]) > 0 else "none has it"
        what = what if target.binary else f"all have {float(values[0]):g}"
        raise InputError(
            f"{target.name!r} has one class only ({len(values)} models, {what}); a direction needs"
            " models of two kinds"
        )
    return known
