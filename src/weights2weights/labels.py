"""Label tables: one row per model, nullable boolean or numeric columns."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    import pandas

NAME = "name"


def tidy(labels: Any, names: Sequence[str]) -> "pandas.DataFrame":
    """Return one row per name, in order, and nullable columns.

    Args:
        labels: a DataFrame indexed by name (further rows are left out, absent ones are missing), or
            None for no labels at all.
        names: the training models.

    Returns:
        a table in which a column of values among (0, 1) or (−1, 1) is a nullable boolean and any
        other a nullable Float64; missing is `pandas.NA`.

    Raises:
        W2WError: names or labels that come twice, or a column that is not numeric.
    """
    import pandas

    index = pandas.Index(list(names), dtype=object, name=NAME)
    if labels is None:
        return pandas.DataFrame(index=index)
    for what, values in (("row", labels.index), ("label", labels.columns)):
        if not values.is_unique:
            twice = values[values.duplicated()][0]
            raise InputError(f"labels hold {what} {twice!r} twice: expected each once")
    labels = labels.reindex(index)
    return pandas.DataFrame(
        {str(column): _column(labels[column]) for column in labels.columns}, index=index
    )


def _column(values: Any) -> Any:
    import pandas

    to_numeric: Any = pandas.to_numeric
    try:
        numbers = to_numeric(values).astype("Float64")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"label {values.name!r} is not numeric ({error}): expected 0 and 1, -1 and 1, true and"
            " false, or numbers"
        ) from error
    known = set(numbers.dropna().unique())
    return numbers > 0 if known and (known <= {0, 1} or known <= {-1, 1}) else numbers


def to_parquet(labels: "pandas.DataFrame") -> bytes:
    """Return the table as a Parquet file whose first column is the names."""
    buffer = io.BytesIO()
    labels.rename_axis(NAME).reset_index().to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def from_parquet(path: Path) -> "pandas.DataFrame":
    """Read the table.

    Raises:
        W2WError: the file is damaged or has no names.
    """
    import pandas
    import pyarrow

    try:
        table = pandas.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read ({error}); fetch or save the space again"
        ) from error
    if NAME not in table.columns:
        raise InputError(f"{path} has no column {NAME!r}; fetch or save the space again")
    names = table.pop(NAME).astype(object)
    table.index = pandas.Index(names, dtype=object, name=NAME)
    return tidy(table, list(names))
