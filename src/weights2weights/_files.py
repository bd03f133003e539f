"""Files that are never half written.

Bytes go to a temporary file in the same folder, are flushed to the disk and take their name by one
rename, and the folder is flushed: a crash, a full disk or a power cut leaves the old file or the
new one. Nothing else in the package renames or flushes.
"""

import fcntl
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from .errors import InputError, ResourceError

TEMPORARY = ".w2w-tmp-"
"""Start of the names of unfinished files."""

Chunk = bytes | bytearray | memoryview

_tidied: set[tuple[int, Path]] = set()  # (process, folder) in which leftovers were looked for


def write_atomic(path: Path, chunks: Iterable[Chunk], *, flush: bool = True) -> str:
    """Replace a file by new bytes, all or nothing; return their SHA-256 in hex.

    The folder must exist. Chunks are written as they arrive and need not fit in memory together.
    Without `flush`, for what is cheap to make again, a power cut may lose the new bytes.

    Raises:
        ResourceError: a failure of the system. The old file is intact, unless only the last flush
            of the folder failed: then the new one is in its place.
    """
    folder = path.parent
    with readable_errors("write", path):
        if (os.getpid(), folder) not in _tidied:
            remove_temporary(folder)
            _tidied.add((os.getpid(), folder))
        with _open_temporary(folder) as file:
            try:
                digest = (_write_flushed if flush else _write)(file, chunks)
                os.replace(file.name, path)
            except BaseException:
                remove(Path(file.name))
                raise
        if flush:
            sync_folder(folder)
    return digest


def read_regular(path: Path, limit: int = 64 << 20) -> bytes:
    """Return the bytes of a regular file of at most `limit`; FileNotFoundError if it is absent."""
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > limit:
        raise InputError(f"{path} is larger than the {limit:,} bytes expected")
    return data


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, without waiting for ever if it is a named pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file")
    return open(descriptor, "rb")


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if absent, so that they survive a crash."""
    with readable_errors("make", path):
        absent = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(absent):
            sync_folder(folder.parent)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Delete a file that no longer counts, if the system lets us; left behind, it does no harm."""
    with suppress(OSError):
        os.unlink(path)


def remove_temporary(folder: Path) -> None:
    """Delete what killed writers left unfinished; living writers hold a lock on their files."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if its writer lives
            os.unlink(path)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def readable_errors(verb: str, path: Path) -> Iterator[None]:
    """Turn failures of the system into one line that says what could not be done and why."""
    try:
        yield
    except FileNotFoundError:
        raise  # callers distinguish "absent" from "cannot"
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ResourceError(
            f"cannot {verb} {path}: {reason}; what was stored before is intact; make room or give"
            " write access, and run again"
        ) from error


def _open_temporary(folder: Path) -> BinaryIO:
    """Create a file that no other writer mistakes for a leftover."""
    while True:
        file = (folder / f"{TEMPORARY}{secrets.token_hex(8)}").open("xb")
        with suppress(OSError):  # some network file systems have no locks, and keep leftovers
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # else deleted between creation and lock
            return file
        file.close()


def _write(file: BinaryIO, chunks: Iterable[Chunk]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        file.write(chunk)
        digest.update(chunk)
    file.flush()
    return digest.hexdigest()


def _write_flushed(file: BinaryIO, chunks: Iterable[Chunk]) -> str:
    digest = _write(file, chunks)
    if sys.platform == "darwin":  # where fsync stops at the drive's cache
        with suppress(OSError):
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return digest
    os.fsync(file.fileno())
    return digest
