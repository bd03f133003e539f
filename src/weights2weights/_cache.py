"""A cache on disk for what is expensive to compute again, found by what it was computed from.

Equal inputs have equal keys, so an entry is never stale. Losing the cache costs time and nothing
else, and neither does a full disk or a read-only folder: a failure to write is a line in the log.
Files appear whole or not at all, so processes may share a folder.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from ._files import make_folder, remove, write_atomic
from .errors import W2WError

MAX_BYTES = 20 * 2**30
"""How large a cache may grow before the entries that were not used for longest are deleted."""

_ENTRY = re.compile(r"[0-9a-f]{32}\.(safetensors|txt)")

_log = logging.getLogger(__name__)


def default_cache() -> Path:
    """Return the cache folder: $W2W_CACHE, or weights2weights in $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("W2W_CACHE"):
        return Path(folder)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "weights2weights"


def cache_key(kind: str, *inputs: object) -> str:
    """Return the key "kind/hash" of what is computed from inputs that JSON can hold."""
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
    return f"{kind}/{digest}"


class Cache:
    """Named tensors and short texts in a folder, by key; trimmed now and then, oldest use first."""

    def __init__(self, folder: str | Path | None = None, max_bytes: int = MAX_BYTES):
        self.folder = Path(folder) if folder else default_cache()
        self._max_bytes = max_bytes
        self._room = -1  # bytes that may be written before the folder is measured again

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors under a key, or None if there are none or they are damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        with suppress(SafetensorError):
            if (data := self._read(self._tensors(key))) is not None:
                return load(data)
        return None

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a key."""
        from safetensors.torch import save

        plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
        self._write(self._tensors(key), save(plain))

    def find_or_make(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors under a key, or make and keep them."""
        found = self.load(key)
        if found is None:
            found = make()
            self.save(key, found)
        return found

    def load_text(self, key: str) -> str | None:
        """Return the text under a key, or None."""
        data = self._read(self.folder / f"{key}.txt")
        return None if data is None else data.decode(errors="replace")

    def save_text(self, key: str, text: str) -> None:
        """Keep a text under a key."""
        self._write(self.folder / f"{key}.txt", text.encode())

    def forget(self, key: str) -> None:
        """Delete the tensors under a key."""
        remove(self._tensors(key))

    def _tensors(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _read(self, path: Path) -> bytes | None:
        with suppress(OSError):
            data = path.read_bytes()
            os.utime(path)  # used now, so trimmed last
            return data
        return None

    def _write(self, path: Path, data: bytes) -> None:
        try:
            make_folder(path.parent)
            write_atomic(path, [data])
        except W2WError as error:
            _log.warning("not cached: %s", error)
            return
        self._room -= len(data)
        if self._room < 0:
            self._room = _trim(self.folder.glob("*/*"), self._max_bytes)


def _trim(paths: Iterable[Path], max_bytes: int) -> int:
    """Delete the oldest entries if they are too large together; return the room that is left."""
    entries = []
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            if _ENTRY.fullmatch(path.name):  # the folder may hold files of others
                entries.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_bytes:
            break
        remove(path)
        total -= size
    # After trimming leave some room, so that a full cache is not measured at every write.
    return max(max_bytes - total, max_bytes // 20)
