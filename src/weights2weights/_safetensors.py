"""Safetensors files: the library's own reader behind a guard, and the package's one writer.

The library writes metadata in random order (github.com/huggingface/safetensors/issues/584); here
equal contents give equal bytes, and tensors may be produced while they are written.
"""

import hashlib
import json
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ._files import write_atomic
from .errors import InputError, shown

MAX_HEADER = 4 * 2**20
"""Bytes of the largest header read or written: ten times that of a rank-64 LoRA of all of SDXL."""

_MAX_NAME = 512  # characters
_PICKLE_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"}
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I8": torch.int8}
"""What the package writes."""

DIGEST = "w2w_sha256"
"""Header entry with the `digest` of a LoRA's weights, which is checked where it is present."""


@dataclass(frozen=True)
class TensorFacts:
    """Dtype (as in `DTYPES`) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class CheckedFile:
    """An open file: its header strings, its tensors in their order, and a function to map one."""

    metadata: dict[str, str]
    places: dict[str, TensorFacts]
    read: Callable[[str], Tensor]


@dataclass(frozen=True)
class Streamed:
    """A tensor to write part by part along its first axis; it need not fit in memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Iterable[Tensor]


@contextmanager
def open_checked(path: Path) -> Iterator[CheckedFile]:
    """Open a safetensors file; it is closed on leaving, while mapped tensors stay valid.

    Raises:
        InputError: not a regular file, a pickle, or a header that is cut, oversized or wrong.
        OSError: the system refuses.
    """
    _guard(path)
    try:
        with safe_open(path, framework="pt") as handle:
            places = {}
            for name in handle.offset_keys():
                if len(name) > _MAX_NAME or not (name.isascii() and name.isprintable()):
                    raise InputError(f"names a tensor {shown(name)}: expected short plain ASCII")
                part = handle.get_slice(name)
                places[name] = TensorFacts(part.get_dtype(), tuple(part.get_shape()))
            yield CheckedFile(handle.metadata() or {}, places, handle.get_tensor)
    except SafetensorError as error:
        reason = shown(str(error).removeprefix("Error while deserializing header: "))
        raise InputError(f"is not valid safetensors: {reason}; download it again") from error


def _guard(path: Path) -> None:
    """Refuse what even the library should not be asked to open."""
    refuse_pickle(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise InputError("is not a regular file; expected a .safetensors file")
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8:
        raise InputError(f"is {status.st_size} bytes long: expected safetensors; download it again")
    (length,) = struct.unpack("<Q", start)
    if length > status.st_size - 8 or length > MAX_HEADER:
        refuse_pickle(path, start)
    if length > status.st_size - 8:
        raise InputError("is not a safetensors file, or is cut short; download it again")
    if length > MAX_HEADER:
        raise InputError(
            f"states a header of {length:,} bytes: expected at most {MAX_HEADER:,}; the file is"
            " damaged or not safetensors: download it again"
        )


def refuse_pickle(path: Path, start: bytes = b"") -> None:
    """Raise InputError if a file is a pickle by its name or by its first bytes."""
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        what = f"is named like a pickle ({path.suffix})"
    elif start.startswith(_PICKLE_STARTS):
        what = "is a pickle by its first bytes"
    else:
        return
    raise InputError(
        f"{what}, and opening a pickle can run any program: expected .safetensors; ask its author"
        " for one, or convert it in a sandbox with torch.load(…, weights_only=True) and"
        " safetensors.torch.save_file"
    )


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor | Streamed],
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write tensors and header strings all at once, and return the SHA-256 of the file in hex."""
    # Widest dtype first, as the library does, so that each tensor is aligned.
    order = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    dtypes = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, tensor in order:
        begin, end = end, end + torch.Size(tensor.shape).numel() * tensor.dtype.itemsize
        facts = {"dtype": dtypes[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = {**facts, "data_offsets": [begin, end]}
    try:
        raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: metadata with half a character ({error.reason})") from error
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER:
        size = f"a header of {len(raw):,} bytes: expected at most {MAX_HEADER:,}"
        raise InputError(f"{path}: {size}; pass less metadata")
    parts = (one.blocks if isinstance(one, Streamed) else (one,) for _, one in order)
    start = [struct.pack("<Q", len(raw)) + raw]
    return write_atomic(path, chain(start, map(tensor_bytes, chain.from_iterable(parts))))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, row-major; its own memory if it is contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes, row-major, in hex."""
    return hashlib.sha256(tensor_bytes(tensor)).hexdigest()


def require_digest(found: str, stated: str | None) -> None:
    """Raise InputError if a header states another digest than the weights have."""
    if stated is not None and found != stated:
        raise InputError(
            f"is damaged: its weights have SHA-256 {found[:16]}…, expected {shown(stated[:16])};"
            " restore it from a copy, or train it again"
        )
