"""A cache of what experiments have computed, so that they resume where they were interrupted.

A part is named by the hash of everything it depends on, so nothing in the cache is ever stale.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from weights2weights._files import make_folder, write_atomic
from weights2weights._json import canonical_json, plain
from weights2weights.errors import InputError


@dataclass(frozen=True)
class Cache:
    """A folder of finished parts.

    Attributes:
        folder: created with the first part; None stores nothing.
    """

    folder: Path | None

    def json(self, inputs: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return the stored JSON value, or compute and store it."""
        path = self._path(inputs, ".json")
        if path is not None and path.exists():
            try:
                return json.loads(path.read_bytes())
            except ValueError:
                pass  # damaged: computed again
        value = compute()
        if path is not None:
            make_folder(path.parent)
            write_atomic(path, [canonical_json(value)])
        return value

    def tensors(
        self, inputs: Mapping[str, Any], compute: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the stored tensors by name, or compute and store them."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file, save

        path = self._path(inputs, ".safetensors")
        if path is not None and path.exists():
            try:
                return load_file(path)
            except SafetensorError:
                pass
        value = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
        if path is not None:
            make_folder(path.parent)
            write_atomic(path, [save(value)])
        return value

    def _path(self, inputs: Mapping[str, Any], suffix: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / (
            hashlib.sha256(canonical_json(dict(inputs))).hexdigest()[:24] + suffix
        )


def digest(value: Any) -> str:
    """Return 16 hex digits that identify tensors, arrays, JSON values, lists or mappings of them.

    Example:
        >>> import torch
        >>> digest([torch.zeros(2), "a"]) == digest([np.zeros(2, dtype=np.float32), "a"])
        True
    """
    found = hashlib.sha256()
    _add(found, value)
    return found.hexdigest()[:16]


def digest_of_fields(record: Any) -> str:
    """Return the digest of all fields of a dataclass."""
    return digest(plain(asdict(record)))


def _add(found: Any, value: Any) -> None:
    match value:
        case Tensor():
            _add(found, value.detach().cpu().contiguous().numpy())
        case np.ndarray():
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        case list() | tuple():
            found.update(b"[%d" % len(value))
            for item in value:
                _add(found, item)
        case Mapping():
            _add(found, sorted(value))
            _add(found, [value[name] for name in sorted(value)])
        case None | bool() | int() | float() | str():
            found.update(canonical_json(value))
        case _:
            raise InputError(f"a {type(value).__name__} has no digest: expected tensors or JSON")
