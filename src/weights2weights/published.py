"""The authors' published files, brought into a `WeightSpace`; the only place that reads pickles.

Dravid et al. published their space as files of `torch.save`. Tensors among them are read with
`weights_only=True` and memory-mapped. The label table is a pickled pandas table, and opening a
pickle can run any program; it is therefore read by an interpreter of our own that builds *records*
of what the pickle says ("a call of `pandas.Index` with these arguments") and never calls anything
of pandas, NumPy or Python. The records are then read like any other foreign format. A pickle that
names anything but the dozen names that a pandas table consists of is refused.

| file | shape | used for |
|---|---|---|
| `V.pt` | d × m, float32 | components, as its columns |
| `mean.pt`, `std.pt` | d | mean, std |
| `weight_dimensions.pt` | PEFT key → [[count], shape] | layout |
| `proj_1000pc.pt` | n × k | coefficients of the training models |
| `identity_df.pt` | pickled table of n rows | names and labels |
| `all_weights.pt` | n × d | coefficients on all m components, if it is there |

They are looked for in the folder, its `files/` and its `weights_datasets/identities/`.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, W2WError
from .layout import PAPER_ALPHA, WeightLayout
from .space import WeightSpace

if TYPE_CHECKING:
    import pandas

PAPER_BASE = "stablediffusionapi/realistic-vision-v51"
"""The base model of the published space."""

_FOLDERS = ("", "files", "weights_datasets/identities")
_LARGEST_TABLE = 2**30  # bytes of the pickle of a label table; the published one has some 25 MB
_ROWS = 256
_CHUNK = 2**24  # numbers looked at at a time; V.pt may hold billions


def import_published(
    folder: str | Path,
    *,
    components: int | None = None,
    alpha: float = PAPER_ALPHA,
    base: str = PAPER_BASE,
) -> WeightSpace:
    """Read a folder of the authors' files as a space.

    Components stay memory-mapped, so that what is needed is the page cache of `V.pt`, and of
    `all_weights.pt` if it is there. Save the space to have it laid out for use.

    Args:
        folder: where the files lie; see the table above.
        components: read the first this many; default: all.
        alpha: LoRA alpha, which the files do not state.
        base: name of the base model, which the files do not state either.

    Returns:
        the space. Names are the table's, or row numbers where there is no table.

    Raises:
        W2WError: a file is missing, is of another shape, holds numbers that are not finite or
            anything but tensors, or the table is no plain pandas table.
    """
    folder = Path(folder)
    layout = _layout(_tensors(_find(folder, "weight_dimensions.pt")), alpha, base)
    mean, std = (
        _vector(_find(folder, f"{name}.pt"), layout.num_parameters) for name in ("mean", "std")
    )
    if not (std > 0).all():
        std = torch.where(std > 0, std, 1.0)
    path = _find(folder, "V.pt")
    directions = _matrix(path, layout.num_parameters, None)
    if components is not None and not 1 <= components <= directions.shape[1]:
        raise InputError(f"{components} components: expected 1 to {directions.shape[1]} of {path}")
    directions = directions[:, :components]
    _require_finite(directions, path)
    if directions.dtype not in (torch.float32, torch.float16):
        directions = directions.float()
    axes = directions.mT
    metadata = {"of": "weights", "imported": "weights2weights, Dravid 2024"}
    space = WeightSpace(layout, mean, std, axes, metadata=metadata)

    coefficients = _coefficients(folder, space)
    table = _find(folder, "identity_df.pt", required=False)
    labels = read_label_table(table) if table else None
    if labels is not None and len(labels) != len(coefficients):
        raise InputError(
            f"{table} has {len(labels)} rows: expected {len(coefficients)}, one per model"
        )
    if labels is None:
        return space.with_models(coefficients, [str(row) for row in range(len(coefficients))])
    labels = labels.set_axis([str(name) for name in labels.index])
    return space.with_models(coefficients, list(labels.index), labels)


def _coefficients(folder: Path, space: WeightSpace) -> Tensor:
    weights = _find(folder, "all_weights.pt", required=False)
    if weights is None:
        path = _find(folder, "proj_1000pc.pt")
        projected = _matrix(path, None, None)[:, : len(space)]
        _require_finite(projected, path)
        return projected.float().clone()
    rows = _matrix(weights, None, space.num_parameters)
    coefficients = torch.empty(len(rows), len(space))
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        _require_finite(part, weights)
        coefficients[start : start + _ROWS] = space.project(part)
    return coefficients


def read_published_model(path: str | Path) -> Tensor:
    """Read a model in the authors' format (`w2wmodel.pt`): 1 × m coefficients.

    Returns:
        (m,) float32 coefficients in the published space.

    Raises:
        W2WError: anything else.
    """
    matrix = _matrix(Path(path), 1, None)
    _require_finite(matrix, Path(path))
    return matrix[0].float().clone()


def _find(folder: Path, name: str, required: bool = True) -> Any:
    for part in _FOLDERS:
        if (folder / part / name).is_file():
            return folder / part / name
    if required:
        raise InputError(
            f"{folder} holds no {name}: expected the authors' files in it, in files/ or in"
            " weights_datasets/identities/"
        )
    return None


def _tensors(path: Path) -> Any:
    """Load a file that must hold tensors and plain containers only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError):  # the format before torch 1.6, which cannot be mapped
        pass
    except (pickle.UnpicklingError, OSError, EOFError) as error:
        raise _refused(path, error) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's bytes can break the reader anywhere
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> W2WError:
    reason = str(error).split("\n")[0][:200]
    return InputError(
        f"{path} cannot be read as tensors ({type(error).__name__}: {reason}); fetch it again"
    )


def _matrix(path: Path, rows: int | None, columns: int | None) -> Tensor:
    matrix = _tensors(path)
    shape = list(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
    fits = (
        isinstance(matrix, Tensor)
        and matrix.is_floating_point()
        and matrix.ndim == 2
        and rows in (None, matrix.shape[0])
        and columns in (None, matrix.shape[1])
    )
    if not fits:
        raise InputError(
            f"{path} holds {shape}: expected floating-point numbers of shape"
            f" [{rows or 'any'}, {columns or 'any'}]"
        )
    return matrix


def _vector(path: Path, numbers: int) -> Tensor:
    vector = _tensors(path)
    if not isinstance(vector, Tensor) or vector.numel() != numbers:
        shape = list(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__
        raise InputError(
            f"{path} holds {shape}: expected {numbers} numbers, as weight_dimensions.pt"
        )
    vector = vector.reshape(-1).float().clone()
    _require_finite(vector, path)
    return vector


def _require_finite(tensor: Tensor, path: Path) -> None:
    height = max(_CHUNK // max(tensor[0].numel(), 1), 1) if len(tensor) else 1
    if not all(bool(part.isfinite().all()) for part in tensor.split(height)):
        raise InputError(f"{path} holds NaN or infinite numbers; fetch it again")


def _layout(dimensions: Any, alpha: float, base: str) -> WeightLayout:
    """Read PEFT key → [[count], shape], and check that it says what our order says."""
    if not isinstance(dimensions, Mapping):
        raise InputError("weight_dimensions.pt holds no table of names and shapes; fetch it again")
    try:
        shapes = {str(key): tuple(map(int, value[1])) for key, value in dimensions.items()}
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise InputError(
            f"weight_dimensions.pt cannot be read ({error}): expected name → [[count], shape]"
        ) from error
    layout = WeightLayout.from_shapes(shapes, alpha, base=base)
    if list(shapes) != [entry.key for entry in layout.entries]:
        raise InputError(
            "weight_dimensions.pt lists its tensors in another order than PEFT files do; a space of"
            " that order cannot be used here"
        )
    return layout


# The label table.


def read_label_table(path: str | Path) -> "pandas.DataFrame":
    """Read a pickled pandas table of numbers, without running anything of it.

    Args:
        path: a file of `torch.save` or of `pickle.dump`.

    Returns:
        the table, with its row names as index.

    Raises:
        W2WError: it holds anything but a table of booleans, integers and floats with plain names;
            nothing has been run then.
    """
    path = Path(path)
    try:
        record = _Reader(io.BytesIO(_pickle_bytes(path))).load()
        return _table(record)
    except W2WError as error:
        raise InputError(f"{path} {error}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be a table; nothing was run") from error
    except Exception as error:  # a stranger's bytes can break the interpreter anywhere
        raise InputError(
            f"{path} is no pickled pandas table that can be read ({type(error).__name__}: {error});"
            " nothing was run; save the table as CSV or Parquet where you trust it"
        ) from error


def _pickle_bytes(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > _LARGEST_TABLE:
            raise InputError(f"is larger than {_LARGEST_TABLE:,} bytes, too much for a label table")
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [item for item in archive.infolist() if item.filename.endswith("/data.pkl")]
        if len(members) != 1:
            raise InputError("is no file of torch.save: expected one data.pkl in it")
        if members[0].file_size > _LARGEST_TABLE:
            raise InputError(f"is larger than {_LARGEST_TABLE:,} bytes, too much for a label table")
        with archive.open(members[0]) as member:
            return member.read(_LARGEST_TABLE)


class _Record:
    """What a pickle says of one object: its kind, what it was made of, what was set on it."""

    kind = ""

    def __new__(cls, *arguments: Any) -> "_Record":
        record = super().__new__(cls)
        record.arguments = arguments
        record.state = None
        return record

    def __init__(self, *arguments: Any):
        self.arguments: tuple[Any, ...] = arguments
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


# name in a pickle → what it is to us; other modules are older or newer homes of the same things
_KINDS = {
    "DataFrame": ("pandas", "pandas.core.frame"),
    "BlockManager": (
        "pandas.core.internals",
        "pandas.core.internals.managers",
        "pandas._libs.internals",
    ),
    "_unpickle_block": ("pandas._libs.internals",),
    "_new_Index": ("pandas.core.indexes.base",),
    "Index": ("pandas", "pandas.core.indexes.base"),
    "RangeIndex": ("pandas", "pandas.core.indexes.range"),
    "Int64Index": ("pandas.core.indexes.numeric",),
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
    "slice": ("builtins", "__builtin__"),
    "encode": ("_codecs",),
}
_RECORDS = {
    (module, name): type(name, (_Record,), {"kind": name})
    for name, modules in _KINDS.items()
    for module in modules
}


class _Reader(pickle._Unpickler):
    """An interpreter of pickles in which every name is a kind of record and nothing is called.

    The one of the standard library that is written in Python: the other reserves memory for as many
    memo entries as a pickle claims to have.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _RECORDS[module, name]
        except KeyError:
            raise InputError(
                f"wants to use {module}.{name}, which no table of numbers needs; it was refused and"
                " nothing was run"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("refers to tensors: expected a table of labels; nothing was run")


def _is(value: Any, *kinds: str) -> bool:
    return isinstance(value, _Record) and value.kind in kinds


def _table(record: Any) -> "pandas.DataFrame":
    import pandas

    state = record.state if _is(record, "DataFrame") else None
    manager = (
        next((state[key] for key in ("_mgr", "_data") if key in state), None) if state else None
    )
    if not isinstance(manager, _Record) or manager.kind != "BlockManager":
        raise InputError("holds no pandas table: expected a DataFrame")
    blocks, axes = _parts(manager)
    columns, rows = (_index(axis) for axis in axes)
    values: list[Any] = [None] * len(columns)
    for array, places in blocks:
        block = _array(array)
        places = _places(places, len(columns))
        if block.shape != (len(places), len(rows)) or block.dtype.hasobject:
            raise InputError(f"holds a block of {block.dtype} {block.shape}: expected numbers")
        for place, column in zip(places, block, strict=True):
            values[place] = column
    missing = [name for name, column in zip(columns, values, strict=True) if column is None]
    if missing:
        raise InputError(f"lacks the values of {missing[0]!r}")
    index = pandas.Index(rows, dtype=object)
    table = pandas.DataFrame(dict(enumerate(values)), index=index)
    return table.set_axis([str(name) for name in columns], axis=1)


def _parts(manager: "_Record") -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Return (values, places) of the blocks, and the axes: columns, rows."""
    if len(manager.arguments) >= 2:  # since pandas 1.3: BlockManager(blocks, axes)
        blocks, axes = manager.arguments[:2]
        found = [block.arguments[:2] for block in blocks if _is(block, "_unpickle_block")]
        if len(found) != len(blocks):
            raise InputError("holds a block that is none of numbers")
    else:  # before: a state of four, the last of them by name
        new_state = manager.state[3]["0.14.1"]
        axes = new_state["axes"]
        found = [(block["values"], block["mgr_locs"]) for block in new_state["blocks"]]
    if len(axes) != 2:
        raise InputError(f"holds a table of {len(axes)} axes: expected rows and columns")
    return [(values, places) for values, places in found], list(axes)


def _index(record: Any) -> list[Any]:
    if not (_is(record, "_new_Index") and len(record.arguments) == 2):
        raise InputError("has an index that is no plain list of names")
    kind, facts = record.arguments
    if kind.kind == "RangeIndex":
        span = range(*(_integer(facts[key]) for key in ("start", "stop", "step")))
        if len(span) > 10**8:
            raise InputError(f"has an index of {len(span):,} rows")
        return list(span)
    names = _array(facts["data"]).tolist()
    if not all(type(name) in (str, int, float, bool) for name in names):
        raise InputError("has an index of other things than names and numbers")
    return names


def _places(record: Any, columns: int) -> list[int]:
    """Return the columns of a block, from a slice or an array of integers."""
    if _is(record, "slice"):
        limits = (None if part is None else _integer(part) for part in record.arguments)
        places = list(range(columns))[slice(*limits)]
    else:
        places = [_integer(place) for place in _array(record).tolist()]
    if any(not 0 <= place < columns for place in places) or len(set(places)) < len(places):
        raise InputError("places a block outside the table")
    return places


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise InputError(f"has {value!r} where an integer should be")
    return value


def _array(record: Any) -> np.ndarray:
    """Build an array from its record: numbers from their bytes, or a list of plain objects."""
    if _is(record, "_frombuffer"):  # protocol 5: buffer, dtype, shape, order
        data, kind, shape, order = record.arguments
        fortran = order == "F"
    elif _is(record, "_reconstruct") and record.state:
        _, shape, kind, fortran, data = record.state
    else:
        raise InputError("holds an array that cannot be read")
    shape = tuple(_integer(size) for size in shape)
    dtype = _dtype(kind)
    count = 1
    for size in shape:
        count *= size
    if min(shape, default=0) < 0:
        raise InputError(f"holds an array of shape {shape}")
    if dtype.hasobject:
        if type(data) is not list or len(data) != count:
            raise InputError(f"holds {shape} objects that are no list of that length")
        array = np.empty(count, dtype=object)
        array[:] = data
    else:
        data = _bytes(data)
        if len(data) != count * dtype.itemsize:
            raise InputError(f"holds {len(data)} bytes for {dtype} of shape {shape}")
        array = np.frombuffer(data, dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def _dtype(record: Any) -> np.dtype:
    if not (_is(record, "dtype") and record.arguments and isinstance(record.arguments[0], str)):
        raise InputError("holds an array of a dtype that cannot be read")
    code = record.arguments[0].lstrip("<>=|")
    if code in ("O", "O8"):
        return np.dtype(object)
    if code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise InputError(f"holds an array of dtype {code!r}: expected booleans, integers or floats")
    order = record.state[1] if record.state else "<"
    return np.dtype(code).newbyteorder(">" if order == ">" else "<")


def _bytes(record: Any) -> bytes:
    if _is(record, "encode"):  # how protocol 2 writes bytes: encode(text, "latin1")
        text, encoding = record.arguments
        if type(text) is str and encoding == "latin1":
            return text.encode("latin1")
    if type(record) in (bytes, bytearray):
        return bytes(record)
    raise InputError("holds an array whose bytes cannot be read")
