"""The cache finds what it kept, survives damage and full disks, and stays within its size."""

import os
import time

import torch

from weights2weights import _files
from weights2weights._cache import Cache, cache_key, default_cache
from weights2weights._files import TEMPORARY

KEY = cache_key("kind", 1, "a")


def test_tensors_and_texts_are_found_by_their_key(tmp_path):
    cache = Cache(tmp_path)
    assert cache.load(KEY) is None and cache.load_text(KEY) is None
    cache.save(KEY, {"x": torch.arange(6).view(2, 3).T})
    cache.save_text(KEY, "hash")
    other = Cache(tmp_path)
    found = other.load(KEY)
    assert found is not None and torch.equal(found["x"], torch.arange(6).view(2, 3).T)
    assert other.load_text(KEY) == "hash"
    cache.forget(KEY)
    assert other.load(KEY) is None


def test_keys_depend_on_every_input():
    keys = {KEY, cache_key("kind", 1, "b"), cache_key("kind", 2, "a"), cache_key("other", 1, "a")}
    assert len(keys) == 4
    assert cache_key("kind", {"a": 1, "b": 2}) == cache_key("kind", {"b": 2, "a": 1})


def test_what_is_there_is_not_made_again_unless_damaged(tmp_path):
    cache, made = Cache(tmp_path), []

    def make():
        made.append(1)
        return {"x": torch.ones(3)}

    for _ in range(2):
        assert torch.equal(cache.find_or_make(KEY, make)["x"], torch.ones(3))
    assert len(made) == 1
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    assert torch.equal(cache.find_or_make(KEY, make)["x"], torch.ones(3))
    assert len(made) == 2


def test_a_failure_to_write_is_a_line_in_the_log(tmp_path, monkeypatch, caplog):
    def failing(path, chunks):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(_files, "_write_flushed", failing)
    Cache(tmp_path).save(KEY, {"x": torch.ones(3)})
    assert "not cached: cannot write" in caplog.text
    (tmp_path / "file").touch()
    Cache(tmp_path / "file").save(KEY, {"x": torch.ones(3)})


def test_the_entries_used_last_stay(tmp_path):
    cache = Cache(tmp_path, max_bytes=5000)
    keys = [cache_key("kind", i) for i in range(12)]
    for age, key in enumerate(reversed(keys)):
        cache.save(key, {"x": torch.zeros(250)})  # about 1,070 bytes
        (file,) = tmp_path.glob(f"{key}.*")
        os.utime(file, (time.time() - 1000 + age,) * 2)
    kept = [key for key in keys if cache.load(key)]
    assert keys[0] in kept and keys[-1] not in kept
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.*")) <= 6500


def test_only_the_caches_own_files_are_deleted(tmp_path):
    (tmp_path / "kind").mkdir()
    mine = [tmp_path / "kind" / name for name in ("adam.safetensors", "notes.txt")]
    abandoned = tmp_path / "kind" / f"{TEMPORARY}of-a-killed-writer"
    for file in (*mine, abandoned):
        file.write_bytes(b"x" * 100)
    Cache(tmp_path, max_bytes=1).save(KEY, {"x": torch.zeros(250)})
    assert all(file.exists() for file in mine)
    assert not abandoned.exists()


def test_the_folder_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("W2W_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "weights2weights"
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "there"))
    assert default_cache() == tmp_path / "there"
    assert Cache().folder == tmp_path / "there"
