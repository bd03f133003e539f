"""Label tables: one row per model or subject, one column per label, some values missing.

    name,Bald,Young,age
    adam,1,-1,41.5
    eve,0,,

A column whose known values are all among (0, 1) or (−1, 1) holds nullable booleans, any other
nullable floats.
"""

import csv
import io
import logging
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._files import write_atomic
from .errors import InputError, shown

if TYPE_CHECKING:
    import pandas

_FILES = ("labels.csv", "labels.parquet")
_NAME = "name"  # of the index of every table, and of the first column of its file
_NAME_COLUMNS = (_NAME, "subject", "id", "file")
_WORDS = {"true": "1", "yes": "1", "t": "1", "false": "0", "no": "0", "f": "0"}
_MISSING = ("", "na", "n/a", "nan", "null", "none", "<na>", "-", "?")

_log = logging.getLogger(__name__)


def find_labels(*folders: str | Path) -> Path | None:
    """Return the one label table in these folders, or None.

    Raises:
        W2WError: there are several.
    """
    paths = [Path(folder) / name for folder in folders for name in _FILES]
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        raise InputError(f"{len(found)} label tables ({', '.join(map(str, found))}); name one")
    return found[0] if found else None


def read_labels(path: str | Path) -> "pandas.DataFrame":
    """Read a label table as `tidy_labels` returns it, in the order of the file.

    Names are taken from a column called name, subject, id or file, else from the first column.
    Values are 0 and 1, −1 and 1, true and false, yes and no, other finite numbers, or empty (NA,
    null, …) where a label is missing. Columns of text are left out, with a log line.

    Args:
        path: a CSV file in UTF-8, or a Parquet file.

    Raises:
        W2WError: the file cannot be read, a row has no name, a name or column appears twice, or a
            column of numbers holds text or infinity.
    """
    path = Path(path)
    is_csv = _is_csv(path)
    try:
        frame = _read_csv(path) if is_csv else _read_parquet(path)
    except Exception as error:  # parsers raise nearly anything for damaged files
        reason, kind = shown(str(error)), "UTF-8 CSV" if is_csv else "Parquet"
        raise InputError(f"{path} cannot be read as {kind}: {reason}") from error
    frame.columns = [str(column).strip() for column in frame.columns]
    _require_unique(frame.columns, "column", path)
    lowered = [column.lower() for column in frame.columns]
    if not lowered:
        raise InputError(f"{path} has no columns; expected names and labels")
    position = next((lowered.index(name) for name in _NAME_COLUMNS if name in lowered), 0)
    names = [_clean(name) for name in frame.pop(frame.columns[position])]
    if unnamed := [row for row, name in enumerate(names, start=1) if name in ("", "<NA>")]:
        raise InputError(f"{path}: row {unnamed[0]} has no name")
    return _tidy(frame.set_axis(_index(names), axis=0), str(path))


def tidy_labels(table: Any, names: Sequence[str]) -> "pandas.DataFrame":
    """Return one row per name, in order, with columns of nullable booleans or floats.

    Args:
        table: a DataFrame indexed by name, {name: {label: value}}, or None for no labels. Rows of
            other names are left out, and so, with a log line, are columns of text.
        names: of the rows to return.

    Raises:
        W2WError: another type of table, names or labels that appear twice, or a column of numbers
            that holds text or infinity.
    """
    import pandas

    index = _index(names)
    if table is None:
        return pandas.DataFrame(index=index)
    if isinstance(table, Mapping):
        table = pandas.DataFrame.from_dict(dict(table), orient="index")
    if not isinstance(table, pandas.DataFrame):
        kind, expected = type(table).__name__, "a DataFrame or {name: {label: value}}"
        raise InputError(f"labels of type {kind}; expected {expected}")
    columns = [str(column).strip() for column in table.columns]
    if _NAME in columns:
        raise InputError(f"a label called {_NAME!r}; rename it, or use it as the table's index")
    if nameless := [name for name in table.index if not isinstance(name, str)]:
        raise InputError(f"labels are indexed by {nameless[0]!r}; expected the names of models")
    return _tidy(table.set_axis(columns, axis=1), "labels").reindex(index)


def write_labels(path: str | Path, table: "pandas.DataFrame") -> str:
    """Write a table of `tidy_labels` as CSV or Parquet and return the file's SHA-256 in hex.

    Raises:
        W2WError: another suffix, a name that reading would change (empty, not composed, or with
            spaces around it), or the file cannot be written.
    """
    path = Path(path)
    if changed := [name for name in table.index if not name or _clean(name) != name]:
        raise InputError(f"{path}: name {changed[0]!r}; expected {_clean(changed[0]) or 'text'!r}")
    rows, buffer = table.rename_axis(_NAME).reset_index(), io.BytesIO()
    if _is_csv(path):
        flags = dict.fromkeys(rows.select_dtypes("boolean").columns, "Int8")
        rows.astype(flags).to_csv(buffer, index=False, lineterminator="\n")
    else:
        rows.to_parquet(buffer, engine="pyarrow", index=False)
    return write_atomic(path, [buffer.getvalue()])


def readable_name(name: str) -> str:
    """Return a file name as text that can be stored: composed (NFC), undecodable bytes replaced."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _is_csv(path: Path) -> bool:
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{path} is not a label table; expected a .csv or .parquet file")
    return path.suffix.lower() == ".csv"


def _clean(name: Any) -> str:
    return readable_name(str(name).strip())


def _index(names: Iterable[str]) -> "pandas.Index":
    import pandas

    try:
        return pandas.Index(list(names), name=_NAME, dtype="str")
    except UnicodeEncodeError as error:
        raise InputError(f"name {error.object!a:.60} is not valid text; rename it") from error


def _read_csv(path: Path) -> "pandas.DataFrame":
    """Read all cells as text; pandas' own reader would silently fill rows that lack cells."""
    import pandas

    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, strict=True) if any(map(str.strip, row))]
    if not rows:
        raise ValueError("it is empty; expected a first row that names the columns")
    if len(rows[0]) == 1 and any(mark in rows[0][0] for mark in ";\t"):
        raise ValueError("it has one column; expected commas between columns")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} cells; expected {len(rows[0])}")
    return pandas.DataFrame(rows[1:], columns=rows[0], dtype="str")


def _read_parquet(path: Path) -> "pandas.DataFrame":
    import pandas
    from pyarrow import parquet

    parquet.read_table(path).validate(full=True)  # pandas does not check that text is UTF-8
    frame = pandas.read_parquet(path, engine="pyarrow", dtype_backend="numpy_nullable")
    if isinstance(frame.index, pandas.RangeIndex):
        return frame
    return frame.reset_index(names=_NAME if frame.index.name is None else None)


def _tidy(table: "pandas.DataFrame", source: str) -> "pandas.DataFrame":
    import pandas

    _require_unique(table.index, "name", source)
    _require_unique(table.columns, "label", source)
    columns = {str(label): _column(values, source) for label, values in table.items()}
    if text := [label for label in columns if columns[label] is None]:
        _log.warning("%s: ignored columns of text: %s", source, ", ".join(map(shown, text)))
    known = {label: column for label, column in columns.items() if column is not None}
    return pandas.DataFrame(known, index=table.index)


def _require_unique(values: "pandas.Index", what: str, source: str | Path) -> None:
    if len(twice := values[values.duplicated()]):
        raise InputError(f"{source}: {what} {twice[0]!r} appears twice; expected each once")


def _column(values: "pandas.Series", source: str) -> Any:
    """Return a column as nullable booleans or floats, or None if it is text."""
    import pandas

    if getattr(values.dtype, "kind", "O") in "biuf":
        numbers, strange = values.astype("Float64"), values.isna() & False
    else:
        words = values.astype("str").str.strip().str.lower()
        words = words.mask(words.isin(_MISSING)).replace(_WORDS)
        to_numeric: Any = pandas.to_numeric
        numbers = to_numeric(words, errors="coerce").astype("Float64")
        strange = words.notna() & numbers.isna()
        if strange.sum() * 2 >= words.notna().sum() > 0:
            return None
    strange |= numbers.abs() == float("inf")
    if strange.any():
        name = strange.idxmax()
        raise InputError(
            f"{source}: {values.name!r} of {name!r} is {str(values[name])[:40]!r}; expected 0 or 1,"
            " -1 or 1, true or false, another finite number, or nothing"
        )
    known = set(numbers.dropna().unique())
    return numbers > 0 if known <= {0, 1} or known <= {-1, 1} else numbers
