"""The pickled pandas table among the authors' files, read without running anything in it.

An allow-list of harmless names is not enough: `torch.load(weights_only=True)` with pandas' and
NumPy's constructors allowed *calls* them, and a pickled dtype of objects with forged flags makes
NumPy follow the bytes of an array as pointers, which ends the process at best (torch 2.13, NumPy
2.4). So this interpreter calls nothing of pandas, NumPy or Python. Every name becomes a *record* of
what the pickle states, and a pickle that names anything a table does not need is refused.
"""

import io
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, shown

if TYPE_CHECKING:
    import pandas

_MOST_BYTES = 2**30  # of the pickle; that of the published table has some 25 MB
_MOST_ROWS = 10**7  # or columns: a few bytes can claim any length


def read_pickled_table(path: str | Path) -> "pandas.DataFrame":
    """Read a table of numbers and text that `torch.save` wrote, with its row names as index.

    Understands pandas 1.3 and later, and the pickle protocols 2 to 4.

    Raises:
        W2WError: the file holds anything but a table of booleans, integers, floats and text.
    """
    try:
        return _table(_Interpreter(io.BytesIO(_pickle_bytes(Path(path)))).load())
    except InputError as error:
        raise InputError(f"{path} {error}; nothing was run") from error
    except Exception as error:  # damage can break the interpreter anywhere
        raise InputError(
            f"{path} is not a readable pickled pandas table ({type(error).__name__}:"
            f" {shown(str(error))}); nothing was run; save it as CSV or Parquet where you trust it"
        ) from error


def _pickle_bytes(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise InputError("is not a file of torch.save; expected one data.pkl in it")
        with archive.open(names[0]) as member:
            data = member.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"is larger than {_MOST_BYTES:,} bytes, too much for a label table")
    return data


class _Record:
    """What a pickle states of one object: its kind, its arguments, and the state set on it."""

    kind = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "_Record":
        record = super().__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


# Name in a pickle → the modules where some version of pandas, NumPy, pyarrow or Python keeps it.
_MODULES = {
    "DataFrame": "pandas pandas.core.frame",
    "BlockManager": "pandas.core.internals pandas.core.internals.managers pandas._libs.internals",
    "_unpickle_block": "pandas._libs.internals",
    "_new_Index": "pandas.core.indexes.base",
    "Index": "pandas pandas.core.indexes.base",
    "RangeIndex": "pandas pandas.core.indexes.range",
    "Int64Index": "pandas.core.indexes.numeric",
    "ArrowStringArray": "pandas.arrays pandas.core.arrays.string_arrow",
    "StringDtype": "pandas pandas.core.arrays.string_",
    "_restore_array": "pyarrow.lib",
    "py_buffer": "pyarrow.lib",
    "type_for_alias": "pyarrow.lib",
    "_reconstruct": "numpy.core.multiarray numpy._core.multiarray",
    "ndarray": "numpy",
    "dtype": "numpy",
    "slice": "builtins __builtin__",
    "bytearray": "builtins __builtin__",
    "encode": "_codecs",
}
_RECORDS = {
    (module, name): type(name, (_Record,), {"kind": name})
    for name, modules in _MODULES.items()
    for module in modules.split()
}
_Unpickler: Any = pickle._Unpickler  # its type stubs know only what subclasses usually need


class _Interpreter(_Unpickler):
    """The standard library's interpreter in Python, in which every name is a kind of record.

    The one in C reserves memory for as many memo entries as a pickle claims to have, as does
    BYTEARRAY8 for its bytes. Hashing nested tuples can take for ever, so text alone may be a key.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _RECORDS:
            name = shown(f"{module}.{name}")
            raise InputError(f"wants to use {name}, which no label table needs")
        return _RECORDS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("refers to tensors; expected a table of labels")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or any(type(key) is not str for key in items[::2]):
            raise InputError("has keys other than text")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch = _Unpickler.dispatch | {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }
    for _code in b"d\x8f\x90\x91\x96":  # DICT, EMPTY_SET, ADDITEMS, FROZENSET, BYTEARRAY8
        del dispatch[_code]


def _table(record: Any) -> "pandas.DataFrame":
    import pandas

    manager = _known(_known(record, "DataFrame").state["_mgr"], "BlockManager")
    blocks, (columns, rows) = manager.arguments[0], map(_index, manager.arguments[1])
    if max(len(rows), len(columns)) > _MOST_ROWS:
        raise InputError(f"has {len(rows):,} rows and {len(columns):,} columns, too many")
    values: list[Any] = [None] * len(columns)
    for unpickled in blocks:
        array, where = _known(unpickled, "_unpickle_block").arguments[:2]
        block, places = np.atleast_2d(_array(array)), _places(where, len(columns))
        if block.shape != (len(places), len(rows)):
            raise InputError(f"holds a block of shape {block.shape} for {len(rows)} rows")
        for place, column in zip(places, block, strict=True):
            values[place] = column
    if missing := [name for name, column in zip(columns, values, strict=True) if column is None]:
        raise InputError(f"lacks the values of {shown(missing[0])}")
    table = pandas.DataFrame(dict(enumerate(values)), index=pandas.Index(rows, dtype=object))
    return table.set_axis([str(name) for name in columns], axis=1)


def _index(record: Any) -> range | list[Any]:
    kind, facts = _known(record, "_new_Index").arguments
    if kind.kind == "RangeIndex":
        return range(*(_integer(facts[key]) for key in ("start", "stop", "step")))
    names = _array(facts["data"]).tolist()
    if any(type(name) not in (str, int) or name == "" for name in names):
        raise InputError("has an index of something other than names and integers")
    "".join(map(str, names)).encode()  # half a character raises: it could not be stored
    return names


def _places(record: Any, columns: int) -> list[int]:
    """Return the columns of a block, from a slice or an array of integers."""
    if _is(record, "slice"):
        limits = (None if part is None else _integer(part) for part in record.arguments)
        return list(range(columns)[slice(*limits)])
    places = [_integer(place) for place in _array(record).tolist()]
    if any(not 0 <= place < columns for place in places) or len(set(places)) < len(places):
        raise InputError("places a block outside the table")
    return places


def _array(record: Any) -> np.ndarray:
    """Build an array from its record: numbers from their bytes, or a list of plain objects."""
    if _is(record, "ArrowStringArray"):
        return _objects(_strings(_known(record.state["_pa_array"], "_restore_array").arguments[0]))
    _, shape, dtype, fortran, data = _known(record, "_reconstruct").state
    code = _known(dtype, "dtype").arguments[0].lstrip("<>=|")
    if code in ("O", "O8"):
        if type(data) is not list or any(type(value) not in _PLAIN for value in data):
            raise InputError("holds objects that are not a list of numbers and text")
        array = _objects(data)
    elif code in _NUMBERS:
        order = ">" if dtype.state and dtype.state[1] == ">" else "<"
        array = np.frombuffer(_bytes(data), np.dtype(code).newbyteorder(order))
    else:
        raise InputError(f"holds an array of dtype {shown(code)}; expected numbers or text")
    return array.reshape(tuple(map(_integer, shape)), order="F" if fortran else "C")


_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_PLAIN = (type(None), str, int, float, bool)


def _objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _strings(facts: Any) -> list[str]:
    """Return text from the offsets and characters of an Arrow array; "" where it is missing."""
    kind, length, _, offset, (_, bounds, characters), *_ = facts
    start, stop = _integer(offset), _integer(offset) + _integer(length) + 1
    ends = np.frombuffer(_bytes(bounds), "<i8")[start:stop].tolist()
    data, whole = _bytes(characters), len(ends) == length + 1 and ends == sorted(ends)
    if kind.arguments != ("large_string",) or not whole or ends[0] < 0 or ends[-1] > len(data):
        raise InputError("holds text that is cut or of an unknown kind")
    return [data[left:right].decode() for left, right in pairwise(ends)]


def _bytes(record: Any) -> bytes:
    while _is(record, "py_buffer") or _is(record, "bytearray"):
        (record,) = record.arguments
    if _is(record, "encode"):  # how protocol 2 writes bytes: encode(text, "latin1")
        text, encoding = record.arguments
        if type(text) is str and encoding == "latin1":
            return text.encode("latin1")
    if type(record) is bytes:
        return record
    raise InputError("holds an array whose bytes cannot be read")


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise InputError("has something else where an integer should be")
    return value


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _Record) and value.kind == kind


def _known(value: Any, kind: str) -> _Record:
    if not _is(value, kind):
        raise InputError(f"holds something else where {kind} should be; expected a DataFrame")
    return value
