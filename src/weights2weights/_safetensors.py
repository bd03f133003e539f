"""Safetensors files, read with suspicion and written in one stroke.

A file of somebody else is checked in full before one number of it is used: the header's length
against a limit and against the file, then its JSON, names, dtypes, shapes and offsets. Numbers are
then read straight to where they are wanted, never through a memory map, so the peak is one copy of
the file and a file that shrinks while it is read is an error and not a crash of the process.

Files that we write are a function of their contents alone (the reference library orders the
header's strings at random), appear whole or not at all, and survive a power cut once the call has
returned.

Format: https://github.com/huggingface/safetensors#format, an 8-byte little-endian length, a JSON
header, the tensors without gaps.
"""

import json
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from ._files import write_atomic
from .errors import InputError

MAX_HEADER = 4 * 2**20
"""Largest header, in bytes, that is read or written. A rank-64 LoRA of every layer of SDXL needs a
tenth of it; Python's objects for a header of this size stay below 150 MB whatever it says."""

MAX_NAME = 512
"""Longest tensor name, in characters."""

_MAX_AXES = 8
_SUFFIX = ".safetensors"
_PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorPlace:
    """What the header says of one tensor; `begin` and `end` count bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class CheckedFile:
    """An open safetensors file whose whole header has been checked.

    Attributes:
        metadata: the strings of the header, verbatim.
        places: tensor name → place; together they cover the file's data exactly once.
    """

    metadata: dict[str, str]
    places: dict[str, TensorPlace]
    _file: BinaryIO
    _data_start: int

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        place = self.places[name]
        tensor = torch.empty(place.shape, dtype=DTYPES[place.dtype])
        self.read_into(name, tensor.view(-1))
        return tensor

    def read_into(self, name: str, out: Tensor) -> None:
        """Read one tensor, row-major, into contiguous memory of its size and dtype."""
        place = self.places[name]
        self._file.seek(self._data_start + place.begin)
        wanted = place.end - place.begin
        if wanted and self._file.readinto(_bytes_of(out)) != wanted:  # type: ignore[attr-defined]
            raise InputError(f"ended while {shown(name)} was read; is another program writing it?")


@contextmanager
def open_checked(path: Path) -> Iterator[CheckedFile]:
    """Open a safetensors file and check its header; the file is closed on leaving.

    Raises:
        W2WError: no regular file, a pickle, or a header that is cut, oversized or inconsistent.
        OSError: the system refuses.
    """
    refuse_pickle(path)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise InputError(f"is no regular file: expected a {_SUFFIX} file")
    with path.open("rb") as file:
        metadata, places, data_start = _read_header(file)
        yield CheckedFile(metadata, places, file, data_start)


def refuse_pickle(path: Path) -> None:
    """Raise W2WError if the name says that a file is a pickle."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        _refuse_pickle(f"is named as a pickle ({path.suffix})")


def _refuse_pickle(what: str) -> NoReturn:
    raise InputError(
        f"{what}, and opening a pickle can run any program: expected {_SUFFIX}; ask its author for"
        " one, or convert it where nothing can be harmed with torch.load(…, weights_only=True) and"
        " safetensors.torch.save_file"
    )


def _read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, TensorPlace], int]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8:
        raise InputError(f"is {size} bytes long: expected a safetensors file; fetch it again")
    (length,) = struct.unpack("<Q", start)
    if length > MAX_HEADER and start.startswith(_PICKLE_STARTS):
        _refuse_pickle("is a pickle by its first bytes")
    if length > MAX_HEADER:
        raise InputError(
            f"says its header is {length:,} bytes long: expected at most {MAX_HEADER:,}; either it"
            " is no safetensors file or it is damaged: fetch it again"
        )
    if 8 + length > size:
        raise InputError(
            f"is cut short: {size:,} bytes, and the header alone needs {8 + length:,}; fetch it"
            " again"
        )
    metadata, places = _parse_header(file.read(length))
    _check_coverage(places, size - 8 - length)
    return metadata, places, 8 + length


def _parse_header(raw: bytes) -> tuple[dict[str, str], dict[str, TensorPlace]]:
    header = parse_json(raw, "the header")
    if not raw.startswith(b"{") or not isinstance(header, dict):
        raise InputError("has a header that is no JSON object; fetch it again or export it anew")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InputError(
            "has header metadata other than strings: expected text only; export it anew"
        )
    return metadata, {name: _parse_place(name, facts) for name, facts in header.items()}


def _parse_place(name: str, facts: Any) -> TensorPlace:
    if len(name) > MAX_NAME or not (name.isascii() and name.isprintable()):
        raise InputError(
            f"names a tensor {shown(name)}: expected at most {MAX_NAME} plain ASCII characters"
        )
    expected = {"dtype", "shape", "data_offsets"}
    if not isinstance(facts, dict) or set(facts) != expected:
        raise InputError(f"describes {shown(name)} without exactly dtype, shape and data_offsets")
    dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(
            f"holds {shown(name)} as {shown(dtype)}: expected F32, F16 or BF16; convert it first"
        )
    if not (_are_sizes(shape) and len(shape) <= _MAX_AXES):
        raise InputError(f"gives {shown(name)} the shape {shown(shape)}: expected a list of sizes")
    if not (_are_sizes(offsets) and len(offsets) == 2):
        raise InputError(f"gives {shown(name)} the offsets {shown(offsets)}: expected [begin, end]")
    count = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != count:
        raise InputError(
            f"gives {shown(name)} {offsets[1] - offsets[0]} bytes: expected {count} for {dtype} of"
            f" shape {shape}; the file is damaged: fetch it again"
        )
    return TensorPlace(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )


def _check_coverage(places: Mapping[str, TensorPlace], data_size: int) -> None:
    """Tensors must follow each other without gap or overlap, from 0 to the end of the file."""
    end = 0
    for name, place in sorted(places.items(), key=lambda item: (item[1].begin, item[1].end)):
        if place.begin != end:
            raise InputError(
                f"places {shown(name)} at byte {place.begin}: expected {end}, right after the"
                " tensor before it; the file is damaged: fetch it again"
            )
        end = place.end
    if end != data_size:
        problem = "is cut short" if end > data_size else "has bytes that belong to no tensor"
        raise InputError(
            f"{problem}: {data_size:,} bytes of data, and its header describes {end:,}; fetch it"
            " again"
        )


def parse_json(raw: bytes | str, what: str) -> Any:
    """Parse JSON of a stranger: no name twice, no NaN, no endless nesting, no broken text.

    Raises:
        W2WError: it is not such JSON; `what` says where it stood.
    """
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if "\\u" in text:  # an escape may name half a character, which can never be printed
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(
            f"{what} is not the JSON it should be ({reason}); the file is damaged: fetch it again"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{shown(twice)} stands there twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors and header strings to `path`, all at once; equal contents give equal bytes.

    Raises:
        W2WError: the header would exceed `MAX_HEADER`.
    """
    # Widest numbers first, as the reference library does, so that each tensor is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER:
        raise InputError(
            f"{path}: a header of {len(raw):,} bytes: expected at most {MAX_HEADER:,}; give less"
            " metadata"
        )
    data = (_bytes_of(tensors[name].contiguous().view(-1)) for name in order)
    write_atomic(path, chain([struct.pack("<Q", len(raw)) + raw], data))


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.view(torch.uint8).numpy().data


def shown(value: Any, most: int = 120) -> str:
    """Return a stranger's value as one short printable line."""
    text = ascii(value[: most + 1] if isinstance(value, str | list) else value)
    return text if len(text) <= most else text[: most - 1] + "…"
