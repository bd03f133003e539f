"""The pickled pandas table among the authors' files, read without running anything in it.

Opening a pickle can run any program, and an allow-list of harmless names is not enough here:
`torch.load(weights_only=True)` with pandas' and NumPy's constructors allowed (tried with torch 2.13
and NumPy 2.4) *calls* them, and a pickled dtype of objects with forged flags makes NumPy follow the
bytes of an array as pointers, which ends the process at best.

So this interpreter calls nothing of pandas, NumPy or Python. Every name becomes a *record* of what
the pickle states ("a call of `pandas.Index` with these arguments"), and the records are read like
any other foreign format. A pickle that names anything a table does not need is refused.
"""

import io
import math
import pickle
import struct
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, shown

if TYPE_CHECKING:
    import pandas

_MOST_BYTES = 2**30  # of the pickle; that of the published table has some 25 MB
_MOST_ROWS, _MOST_COLUMNS = 10**7, 10**4  # a few bytes can claim any length


def read_pickled_table(path: str | Path) -> "pandas.DataFrame":
    """Read a pickled pandas table of numbers and text, without running anything in it.

    Args:
        path: a file of `torch.save` or of `pickle.dump`.

    Returns:
        the table, with its row names as index.

    Raises:
        W2WError: the file holds anything but a table of booleans, integers, floats and text.
    """
    path = Path(path)
    try:
        return _table(_Interpreter(io.BytesIO(_pickle_bytes(path))).load())
    except InputError as error:
        raise InputError(f"{path} {error}; nothing was run") from error
    except Exception as error:  # damage can break the interpreter anywhere
        raise InputError(
            f"{path} is not a readable pickled pandas table ({type(error).__name__}:"
            f" {shown(str(error))}); nothing was run; save it as CSV or Parquet where you trust it"
        ) from error


def _pickle_bytes(path: Path) -> bytes:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise InputError("is not a file of torch.save; expected one data.pkl in it")
            with archive.open(names[0]) as member:
                data = member.read(_MOST_BYTES + 1)
    else:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
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
    "_frombuffer": "numpy.core.numeric numpy._core.numeric",
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

    The one in C reserves memory for as many memo entries as a pickle claims to have. Sets and keys
    other than text are refused: hashing nested tuples can take for ever.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _RECORDS:
            name = shown(f"{module}.{name}")
            raise InputError(f"wants to use {name}, which no label table needs")
        return _RECORDS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("refers to tensors; expected a table of labels")

    def load_bytearray8(self) -> None:
        """Read bytes as they come; the original reserves what the pickle claims."""
        self.append(self.read(struct.unpack("<Q", self.read(8))[0]))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

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
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }
    for _code in (pickle.EMPTY_SET, pickle.FROZENSET, pickle.ADDITEMS):
        del dispatch[_code[0]]


def _table(record: Any) -> "pandas.DataFrame":
    import pandas

    state = _known(record, "DataFrame").state
    blocks, axes = _parts(_known(state.get("_mgr", state.get("_data")), "BlockManager"))
    columns, rows = (_index(axis) for axis in axes)
    if len(rows) > _MOST_ROWS or len(columns) > _MOST_COLUMNS:
        raise InputError(f"has {len(rows):,} rows and {len(columns):,} columns, too many")
    values: list[Any] = [None] * len(columns)
    for array, where in blocks:
        block, places = _array(array), _places(where, len(columns))
        block = block[None] if block.ndim == 1 else block
        if block.shape != (len(places), len(rows)):
            raise InputError(f"holds a block of shape {block.shape} for {len(rows)} rows")
        for place, column in zip(places, block, strict=True):
            values[place] = column
    if missing := [name for name, column in zip(columns, values, strict=True) if column is None]:
        raise InputError(f"lacks the values of {shown(missing[0])}")
    table = pandas.DataFrame(dict(enumerate(values)), index=pandas.Index(rows, dtype=object))
    return table.set_axis([str(name) for name in columns], axis=1)


def _parts(manager: _Record) -> tuple[list[Any], Any]:
    """Return (values, places) of the blocks, and the axes: columns, rows."""
    if len(manager.arguments) >= 2:  # since pandas 1.3: BlockManager(blocks, axes)
        blocks, axes = manager.arguments[:2]
        found = [_known(block, "_unpickle_block").arguments[:2] for block in blocks]
    else:  # before: a state of four, the last of them by name
        named = manager.state[3]["0.14.1"]
        axes = named["axes"]
        found = [(block["values"], block["mgr_locs"]) for block in named["blocks"]]
    if len(axes) != 2:
        raise InputError(f"holds a table of {len(axes)} axes; expected rows and columns")
    return found, axes


def _index(record: Any) -> range | list[Any]:
    kind, facts = _known(record, "_new_Index").arguments
    if kind.kind == "RangeIndex":
        return range(*(_integer(facts[key]) for key in ("start", "stop", "step")))
    names = _array(facts["data"]).tolist()
    if any(type(name) not in (str, int, bool) or name == "" for name in names):
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
        return _strings(_known(record.state["_pa_array"], "_restore_array").arguments[0])
    if _is(record, "_frombuffer"):  # protocol 5: buffer, dtype, shape, order
        data, kind, shape, order = record.arguments
        fortran = order == "F"
    else:
        _, shape, kind, fortran, data = _known(record, "_reconstruct").state
    dtype = _dtype(kind)
    if dtype.hasobject:
        count = math.prod(map(_integer, shape))
        if type(data) is not list or len(data) != count or not all(map(_is_plain, data)):
            raise InputError("holds objects that are not a list of numbers and text")
        array = np.empty(count, dtype=object)
        array[:] = data
    else:
        array = np.frombuffer(_bytes(data), dtype)
    return array.reshape(tuple(map(_integer, shape)), order="F" if fortran else "C")


def _strings(facts: Any) -> np.ndarray:
    """Build an array of text from the offsets and characters of an Arrow array; "" if missing."""
    kind, length, _, offset, (_, bounds, characters), *_ = facts
    if kind.arguments != ("large_string",):
        raise InputError("holds text of an unknown kind")
    start, stop = _integer(offset), _integer(offset) + _integer(length) + 1
    ends = np.frombuffer(_bytes(bounds), "<i8")[start:stop].tolist()
    data = _bytes(characters)
    if len(ends) != length + 1 or ends != sorted(ends) or ends[0] < 0 or ends[-1] > len(data):
        raise InputError("holds text that is cut")
    array = np.empty(length, dtype=object)
    array[:] = [data[left:right].decode() for left, right in pairwise(ends)]
    return array


def _dtype(record: Any) -> np.dtype:
    code = _known(record, "dtype").arguments[0].lstrip("<>=|")
    if code in ("O", "O8"):
        return np.dtype(object)
    if code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise InputError(f"holds an array of dtype {shown(code)}; expected numbers or text")
    return np.dtype(code).newbyteorder(">" if record.state and record.state[1] == ">" else "<")


def _bytes(record: Any) -> bytes:
    while _is(record, "py_buffer", "bytearray") and len(record.arguments) == 1:
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


def _is(value: Any, *kinds: str) -> bool:
    return isinstance(value, _Record) and value.kind in kinds


def _known(value: Any, kind: str) -> _Record:
    if not _is(value, kind):
        raise InputError(f"holds something else where {kind} should be; expected a DataFrame")
    return value


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (str, int, float, bool)
