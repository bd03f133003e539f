"""Labels of the rows: 0 and 1, −1 and 1, true and false, or measured numbers; some missing.

A value is kept as the number that came (true is 1, false is 0, missing is null), so that nothing is
guessed while a table grows row by row. Only a whole column tells what it is: when it is read, a
column of two values among (0, 1) or (−1, 1) becomes true and false, any other stays a number.
"""

import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import pandas

Value = int | float | None
"""A label: a number, or None where it is missing."""

Labels = dict[str, dict[str, Value]]
"""Row name → label name → value."""

NAME = "name"
"""The first column of the Parquet file: the names of the rows."""


def check_labels(table: Any) -> Labels:
    """Read labels from a table, every value as a number.

    Args:
        table: a pandas DataFrame indexed by row name, or row name → label name → value. Values may
            be 0 and 1, −1 and 1, true and false, other finite numbers, and None or NaN for missing.

    Raises:
        W2WError: a value that is none of these, a label or a row that comes twice.
    """
    if table is None:
        return {}
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        table = _from_frame(table)
    if not isinstance(table, Mapping):
        raise InputError(
            f"labels of type {type(table).__name__}: expected a DataFrame indexed by row name, or"
            " {name: {label: value}}"
        )
    return {
        _text(name, "row"): {
            _text(label, "label"): _number(value, name, label) for label, value in row.items()
        }
        for name, row in table.items()
    }


def merge_labels(*tables: Labels) -> Labels:
    """Return all labels of several tables; where a cell comes twice, the later one counts."""
    merged: Labels = {}
    for table in tables:
        for name, row in table.items():
            merged[name] = {**merged.get(name, {}), **row}
    return merged


def label_names(known: Sequence[str], tables: Iterable[Labels]) -> tuple[str, ...]:
    """Return the known label names and, behind them, new ones in the order in which they came."""
    names = dict.fromkeys(known)
    for table in tables:
        for row in table.values():
            names.update(dict.fromkeys(row))
    return tuple(names)


def to_parquet(labels: Labels, rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """Return the labels of some rows as a Parquet file: `name`, then one nullable column a label.

    The bytes depend on the arguments alone (and on the version of pyarrow).
    """
    import pyarrow
    from pyarrow import parquet

    arrays = [pyarrow.array(rows, pyarrow.string())]
    for column in columns:
        values = [labels.get(name, {}).get(column) for name in rows]
        whole = all(value is None or value in (-1, 0, 1) for value in values)
        arrays.append(pyarrow.array(values, pyarrow.int8() if whole else pyarrow.float64()))
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=[NAME, *columns]), file)
    return file.getvalue()


def from_parquet(path: Path, sha256: str) -> Labels:
    """Read what `to_parquet` wrote.

    The checksum comes first: a reader of Parquet is no place for bytes that nobody wrote.

    Raises:
        FileNotFoundError: there is no such file.
        W2WError: its bytes are not those that were written, or are no such table.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("its bytes are not those that were written")
        table = parquet.read_table(io.BytesIO(data)).to_pydict()
        rows = table.pop(NAME)
        return check_labels(
            {name: {label: table[label][row] for label in table} for row, name in enumerate(rows)}
        )
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as labels ({_first_line(error)}): expected a Parquet table with"
            f" a column {NAME!r}; w2w verify lists the damage"
        ) from error


def to_frame(labels: Labels, rows: Sequence[str], columns: Sequence[str]) -> "pandas.DataFrame":
    """Return the labels of some rows as a table indexed by name.

    A column is of nullable booleans where all values are among (0, 1) or (−1, 1), of nullable
    Float64 elsewhere.
    """
    import pandas

    frame = {}
    for column in columns:
        values = [labels.get(name, {}).get(column) for name in rows]
        present = {value for value in values if value is not None}
        if present <= {0, 1} or present <= {-1, 1}:
            truths = [None if value is None else value == 1 for value in values]
            frame[column] = pandas.array(truths, dtype="boolean")
        else:
            frame[column] = pandas.array(values, dtype="Float64")
    return pandas.DataFrame(frame, index=pandas.Index(rows, name=NAME, dtype="str"))


def _from_frame(frame: Any) -> dict[Any, dict[Any, Any]]:
    for kind, index in (("label", frame.columns), ("row", frame.index)):
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise InputError(f"{kind} {twice!r} comes twice in the labels: expected each once")
    columns = {column: frame[column].tolist() for column in frame.columns}
    return {
        name: {column: values[row] for column, values in columns.items()}
        for row, name in enumerate(frame.index)
    }


def _text(name: Any, kind: str) -> str:
    if not isinstance(name, str):
        raise InputError(f"{kind} {name!r} in the labels: expected its name as text")
    if kind == "label" and name == NAME:
        raise InputError(f"a label called {NAME!r}, which holds the names of the rows; rename it")
    return name


def _number(value: Any, name: str, label: str) -> Value:
    """Return a label as a number, whole ones as int so that JSON and Parquet keep them short."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise InputError(
            f"label {label!r} of {name!r} is {value!r}: expected 0 or 1, -1 or 1, true or false, a"
            " finite number, or nothing; turn text into one column of 0 and 1 per value"
        )
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() else number


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
