"""Files that are never half written.

A crash, a full disk or a pulled plug at any moment leaves either the old file or the new one:
bytes go to a temporary file in the same folder, are flushed to the disk, take their name by one
rename, and the folder is flushed so that the name survives too. Everything the package keeps goes
through here; nothing else renames or flushes.
"""

import hashlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

TEMPORARY = ".tmp-"
"""How the names of unfinished files begin; whoever holds the folder's lock may delete them."""

LOCK_PATIENCE = 600.0
"""Seconds to wait for another writer: far longer than any writer holds its lock."""

Chunk = bytes | bytearray | memoryview


def write_atomic(path: Path, chunks: Iterable[Chunk]) -> str:
    """Replace a file by new bytes, all or nothing.

    Args:
        path: of the file; its folder must exist.
        chunks: the bytes in order; written as they come, so they need not fit in memory together.

    Returns:
        SHA-256 of the bytes, in hex.

    Raises:
        W2WError: the disk is full, the folder is read-only, or another failure of the system. The
            old file, if there was one, is untouched, unless only the last flush of the folder
            failed, in which case the new one is in its place.
    """
    return write_named(path.parent, lambda _: path.name, chunks)[1]


def write_named(
    folder: Path, name: Callable[[str], str], chunks: Iterable[Chunk]
) -> tuple[Path, str]:
    """Do as `write_atomic` for a file whose name depends on its bytes.

    Args:
        folder: where the file goes; must exist.
        name: gives the file name from the SHA-256 of the bytes.
        chunks: the bytes in order.

    Returns:
        the path, and the SHA-256 in hex.

    Raises:
        W2WError: as `write_atomic`.
    """
    temporary = folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
    with readable_errors("write", folder):
        try:
            digest = _write_flushed(temporary, chunks)
            path = folder / name(digest)
            _replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(folder)
    return path, digest


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if absent, so that they survive a crash.

    Raises:
        W2WError: the system refuses, or a file is in the way.
    """
    with readable_errors("make", path):
        absent = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(absent):
            sync_folder(folder.parent)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hex, in memory for one megabyte.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def move(path: Path, folder: Path) -> None:
    """Move a file into another folder of the same disk, under its own name; nothing if it is gone.

    Raises:
        W2WError: the system refuses.
    """
    with suppress(FileNotFoundError), readable_errors("move", path):
        os.replace(path, folder / path.name)
        sync_folder(folder)


def remove(path: Path) -> None:
    """Delete a file that no longer counts, if the system lets us; left behind, it does no harm."""
    with suppress(OSError):
        os.unlink(path)


def remove_temporary(folder: Path) -> None:
    """Delete what writers that died left half written; only under the folder's lock."""
    for path in list_files(folder):
        if path.name.startswith(TEMPORARY):
            remove(path)


def list_files(folder: Path) -> list[Path]:
    """Return the files directly in a folder, sorted by name; none if there is no such folder."""
    with (
        suppress(FileNotFoundError),
        readable_errors("list", folder),
        os.scandir(folder) as entries,
    ):
        return sorted(Path(entry.path) for entry in entries if entry.is_file())
    return []


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can (Windows does by itself)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Hold the lock that a file stands for, alone among all processes and threads.

    The operating system keeps the lock (flock, or its like on Windows) and drops it when the
    process ends, however it ends: there are no stale locks. The file stays, empty.

    Args:
        path: of the lock file; made if absent.
        patience: seconds to wait for whoever holds it.

    Raises:
        W2WError: another process held it all that time, or the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=patience)
    with readable_errors("lock", path.parent):
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{path.parent} has been in use by another process for {patience:g} s: expected its"
                " turn to end; wait for that process or stop it"
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def readable_errors(verb: str, path: Path) -> Iterator[None]:
    """Turn failures of the system into one line that says what could not be done and why."""
    try:
        yield
    except FileNotFoundError:
        raise  # callers tell "absent" apart from "cannot"
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise InputError(
            f"cannot {verb} {path}: {reason}; what was stored before is intact; make room or give"
            " write access, and run again"
        ) from error


def _write_flushed(path: Path, chunks: Iterable[Chunk]) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        _flush_to_disk(file)
    return digest.hexdigest()


def _flush_to_disk(file: BinaryIO) -> None:
    if sys.platform == "darwin":  # fsync there stops at the drive's cache
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
    os.fsync(file.fileno())


def _replace(source: Path, target: Path) -> None:
    """Rename over; on Windows wait a moment for readers who hold the old file open."""
    for attempt in range(10):
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt" or attempt == 9:
                raise
            time.sleep(0.05 * (attempt + 1))
    return None
