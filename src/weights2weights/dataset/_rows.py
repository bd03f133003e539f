"""One row in a file: written with a digest of its numbers, which every read checks.

A row is a diffusers LoRA file; docs/files.md lists the further strings of its header.
A file without digest, from another program, is parsed in full: shapes, dtype, alpha, finite values.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import open_regular
from .._json import parse_json
from .._safetensors import DIGEST, MAX_HEADER, require_digest, tensor_bytes
from ..errors import InputError
from ..formats import load_lora
from ..layout import WeightLayout
from ..models import require_one_base
from ._folder import SUFFIX

SUBJECT, SEED, INFO = "w2w_subject", "w2w_seed", "w2w_info"
RECIPE, BASE, LAYOUT = "w2w_recipe", "w2w_base", "w2w_layout"
_PER_ROW = {DIGEST, SUBJECT, SEED, INFO}

_METADATA = '{"__metadata__":'
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class PackedRow:
    """A float32 row inside a shard: where its bytes begin, and the header it had as a file."""

    path: Path
    offset: int
    metadata: Mapping[str, str]


Place = Path | PackedRow


class RowReader:
    """Reads rows of one layout and base.

    Files that this package wrote differ in little but their numbers. Once one has been parsed in
    full, an equal header is recognised and the numbers go straight to where they are wanted.
    """

    def __init__(self, layout: WeightLayout, base_hash: str):
        self.layout, self.base_hash = layout, base_hash
        self._known: dict[tuple, torch.dtype] = {}  # header without `_PER_ROW` → dtype

    def read_into(self, place: Place, out: Float[Tensor, " d"]) -> None:
        """Read a row into contiguous float32 memory.

        Raises:
            InputError: it is missing, damaged, not finite, or of another layout or base.
        """
        path = place.path if isinstance(place, PackedRow) else place
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
        if difference := self.layout.difference(lora.layout):
            raise InputError(f"{path} has another layout: {difference}")
        require_one_base(self.base_hash, lora.metadata.get(BASE, ""), str(path))
        out.copy_(lora.weights)
        return lora.weights


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
    raw = file.read(length) if length <= MAX_HEADER else b""
    try:
        text = raw.decode()
        if not text.startswith(_METADATA):
            return {}, ()
        metadata, end = _DECODER.raw_decode(text, len(_METADATA))
        shared = sorted((key, metadata[key]) for key in metadata.keys() - _PER_ROW)
        hash(frame := (text[end:].rstrip(), *shared))
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
