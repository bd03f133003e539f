"""Files are replaced whole or not at all. The dataset's fault tests go deeper."""

import hashlib
import os

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


def test_a_file_may_be_named_after_its_bytes(tmp_path):
    path, sha256 = _files.write_named(tmp_path, lambda sha: f"{sha[:4]}.bin", [b"x"])
    assert path == tmp_path / f"{sha256[:4]}.bin"
    assert path.read_bytes() == b"x"


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


def test_folders_are_listed_without_folders(tmp_path):
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    (tmp_path / "c").mkdir()
    assert _files.list_files(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert _files.list_files(tmp_path / "absent") == []


def test_what_dead_writers_left_is_removed(tmp_path):
    (tmp_path / f"{_files.TEMPORARY}1-2").touch()
    (tmp_path / "kept").touch()
    _files.remove_temporary(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
    _files.remove(tmp_path / "absent")
