"""Files are replaced whole or not at all. The dataset's fault tests go deeper."""

import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from weights2weights import _files
from weights2weights.errors import W2WError


def test_write_atomic_replaces_and_tells_the_checksum(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    sha256 = _files.write_atomic(path, (part for part in (b"a new ", memoryview(b"file"))))
    assert path.read_bytes() == b"a new file"
    assert sha256 == hashlib.sha256(b"a new file").hexdigest() == _files.checksum(path)
    assert os.listdir(tmp_path) == ["file"]


def test_bytes_that_break_off_leave_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def broken():
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _files.write_atomic(path, broken())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_failures_of_the_system_are_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(W2WError, match=r"cannot make .*: Not a directory; what was stored before"):
        _files.make_folder(tmp_path / "file" / "folder")
    with pytest.raises(FileNotFoundError):
        _files.write_atomic(tmp_path / "absent" / "file", [b""])


def test_what_dead_writers_left_is_removed_and_living_ones_keep_theirs(tmp_path):
    (tmp_path / f"{_files.TEMPORARY}dead").touch()
    (tmp_path / "kept").touch()
    with _files._open_temporary(tmp_path) as alive:
        _files.write_atomic(tmp_path / "new", [b""])
        assert {path.name for path in tmp_path.iterdir()} == {
            "kept",
            "new",
            os.path.basename(alive.name),
        }
    _files.remove_temporary(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "new"}
    _files.remove(tmp_path / "absent")


def test_a_temporary_file_that_a_cleaner_took_is_made_again(tmp_path, monkeypatch):
    flock, taken = fcntl.flock, []

    def late(file, operation):
        if not taken:  # between its creation and its lock, another process deleted it
            taken.append(file.name)
            os.unlink(file.name)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    _files.write_atomic(tmp_path / "file", [b"x"])
    assert (len(taken), (tmp_path / "file").read_bytes()) == (1, b"x")


def test_only_small_regular_files_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"four")
    assert _files.read_regular(tmp_path / "file") == b"four"
    with pytest.raises(W2WError, match="larger than the 3 bytes"):
        _files.read_regular(tmp_path / "file", 3)
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(W2WError, match="not a regular file"):
            _files.read_regular(path)
    with pytest.raises(FileNotFoundError):
        _files.read_regular(tmp_path / "absent")
