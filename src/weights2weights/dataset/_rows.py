"""Rows are read with the digest of their numbers, one by one or in blocks of fixed memory.

A row is a diffusers LoRA file; docs/files.md lists the further strings of its header.
A file without digest, from another program, is parsed in full: shapes, dtype, alpha, finite values.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._files import open_regular
from .._json import parse_json
from .._safetensors import DIGEST, MAX_HEADER, require_digest, tensor_bytes
from ..errors import InputError
from ..formats import LoRAFile, load_lora
from ..layout import WeightLayout
from ..models import require_one_base
from ._folder import BASE, INFO, SEED, SUBJECT, SUFFIX, PackedRow, Place

READERS = min(4, os.cpu_count() or 1)  # hashing and reading release Python's lock

_PER_ROW = {DIGEST, SUBJECT, SEED, INFO}
_METADATA = '{"__metadata__":'
_DECODER = json.JSONDecoder()


class RowReader:
    """Reads rows of one layout and base.

    Files that this package wrote differ in little but their numbers. Once one has been parsed in
    full, an equal header is recognised and the numbers go straight to where they are wanted.
    """

    def __init__(self, layout: WeightLayout, base_hash: str):
        self.layout, self.base_hash = layout, base_hash
        self._known: dict[tuple, torch.dtype] = {}  # header without `_PER_ROW` → dtype

    def read_into(self, place: Place, out: Float[Tensor, " d"]) -> None:
        """Read a row, checked in full, into contiguous float32 memory."""
        path = place if isinstance(place, Path) else place.path
        try:
            if isinstance(place, PackedRow):
                with open_regular(path) as file:
                    file.seek(place.offset)
                    _read_checked(file, out, place.metadata[DIGEST], path)
            elif path.suffix == SUFFIX:
                self._read_file(path, out)
            else:  # a PEFT or diffusers folder
                self._parse(path, out)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error

    def _read_file(self, path: Path, out: Tensor) -> None:
        with open_regular(path) as file:
            metadata, frame = _read_header(file)
            start, dtype = file.tell(), self._known.get(frame)
            if dtype is not None and DIGEST in metadata:
                into = out if dtype == out.dtype else torch.empty(len(out), dtype=dtype)
                _read_checked(file, into, metadata[DIGEST], path)
                if file.read(1):
                    raise InputError(f"{path} is longer than its header says; it is damaged")
                out.copy_(into)  # nothing to do where they are the same
                return
            weights = self._parse(path, out)
            file.seek(start)
            if DIGEST in metadata and file.read() == tensor_bytes(weights):
                self._known[frame] = weights.dtype

    def _parse(self, path: Path, out: Tensor) -> Tensor:
        """Understand and check a whole file of any known format."""
        lora = load_lora(path)
        self.layout.require_equal(lora.layout, str(path))
        require_one_base(self.base_hash, lora.metadata.get(BASE, ""), str(path))
        out.copy_(lora.weights)
        return lora.weights


def load_row(place: Place, alpha: float | None) -> LoRAFile:
    """Return a row, wherever it is, as `load_lora` does."""
    if isinstance(place, Path):
        return load_lora(place, alpha)
    weights = torch.empty(place.layout.num_parameters)
    RowReader(place.layout, "").read_into(place, weights)
    return LoRAFile(place.layout, weights, "diffusers", dict(place.metadata))


def read_metadata(place: Place) -> dict[str, str]:
    """Return the header strings of a row; none if they cannot be read."""
    if isinstance(place, PackedRow):
        return dict(place.metadata)
    try:
        with open_regular(place) as file:
            return _read_header(file)[0]
    except (OSError, InputError):
        return {}


def read_info(place: Place) -> dict[str, Any]:
    """Return the JSON facts with which a row was written; empty if there are none."""
    info = parse_json(read_metadata(place).get(INFO) or "{}", f"{INFO} of {place}")
    return info if isinstance(info, dict) else {}


def _read_header(file: BufferedReader) -> tuple[dict[str, str], tuple]:
    """Return the header strings, and what else is in the header; nothing if it is damaged."""
    length = int.from_bytes(file.read(8), "little")
    try:
        text = file.read(length if length <= MAX_HEADER else 0).decode()
        start = text.index(_METADATA)
        metadata, end = _DECODER.raw_decode(text, start + len(_METADATA))
        shared = sorted((key, metadata[key]) for key in metadata.keys() - _PER_ROW)
        hash(frame := (text[:start], text[end:].rstrip(), *shared))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}, ()
    return {key: value for key, value in metadata.items() if isinstance(value, str)}, frame


def _read_checked(file: BufferedReader, out: Tensor, sha256: str, path: Path) -> None:
    view = tensor_bytes(out)
    if (count := file.readinto(view)) < len(view):
        raise InputError(f"{path} is cut short: {len(view) - count:,} bytes are missing")
    try:
        require_digest(hashlib.sha256(view).hexdigest(), sha256)
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def read_rows(reader: RowReader, places: Sequence[Place]) -> Float[Tensor, "n d"]:
    """Read rows, several at once."""
    # NumPy asks the system for huge pages, torch does not: a fifth of the time for a block.
    rows = torch.from_numpy(np.empty((len(places), reader.layout.num_parameters), np.float32))
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(reader.read_into, places, rows))
    return rows


@dataclass(frozen=True)
class WeightBlocks:
    """Rows as float32 tensors "b d", to be iterated as often as needed.

    The next block is read while one is used, so memory holds two. All but the last have
    `rows_per_block` rows.
    """

    reader: RowReader
    places: tuple[Place, ...]
    rows_per_block: int

    @property
    def rows(self) -> int:
        """Number n of rows in all blocks together."""
        return len(self.places)

    @property
    def columns(self) -> int:
        """Length d of a row."""
        return self.reader.layout.num_parameters

    def __len__(self) -> int:
        return -(-self.rows // self.rows_per_block)

    def __iter__(self) -> Iterator[Float[Tensor, "b d"]]:
        starts = range(0, self.rows, self.rows_per_block)
        parts = (self.places[start : start + self.rows_per_block] for start in starts)
        with ThreadPoolExecutor(1) as background:
            reads = (background.submit(read_rows, self.reader, part) for part in parts)
            for read, _ in pairwise(chain(reads, [Future()])):
                yield read.result()
