"""The dataset under attack: killed, out of disk, damaged, raced. What was acknowledged stays."""

import errno
import multiprocessing
import os
import random
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from weights2weights import _files, cli
from weights2weights.dataset import WeightDataset, import_loras, pack
from weights2weights.errors import InputError, ResourceError, W2WError
from weights2weights.formats import load_lora
from weights2weights.layout import LoRAModule, WeightLayout

LAYOUT = WeightLayout((LoRAModule("down.to_q", 3, 4),), rank=1, alpha=2.0)
D = LAYOUT.num_parameters
NAMES = [f"anna {i}" for i in range(7)]
FAILED = {"anna 4": "no images"}
GOOD = [name for name in NAMES if name not in FAILED]
LABELS = {name: {"Bald": i % 2, "Age": i / 8} for i, name in enumerate(NAMES) if i != 5}

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def row(name: str) -> torch.Tensor:
    """What training would give for a subject, always the same."""
    return torch.randn(D, generator=torch.Generator().manual_seed(NAMES.index(name)))


def run(folder: Path, acknowledge: Callable[[str], object] = lambda name: None) -> None:
    """Do as a training run does: begin or continue, subject by subject."""
    dataset = WeightDataset.create(folder, LAYOUT, recipe={"steps": 5}, labels=LABELS)
    for name in NAMES:
        if name in FAILED and name not in dataset.failed:
            dataset.write_failure(name, FAILED[name])
        elif name not in FAILED and name not in dataset:
            dataset.write(name, row(name), seed=0, info={"loss": len(name) / 4})
        acknowledge(name)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "broken"
    }


def check_kept(folder: Path, acknowledged: set[str]) -> None:
    """A dataset that was cut short opens, is sound, and has every row that it promised to keep."""
    if not (folder / "dataset.json").exists():
        assert not acknowledged
        return
    dataset = WeightDataset.open(folder)
    assert acknowledged <= set(dataset.names) | dataset.failed.keys()
    assert dataset.verify() == {}
    for name, found in zip(dataset.names, dataset, strict=True):
        assert torch.equal(found, row(name))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder)
    check_kept(folder, set(NAMES))
    return folder


def check_same(folder: Path, unbroken: Path) -> None:
    run(folder)
    check_kept(folder, set(NAMES))
    assert contents(folder) == contents(unbroken)


def in_child(work: Callable[[Callable[[str], object]], None], kill_after: float | None) -> tuple:
    """Run work in a fork; return whether it finished, and the names that it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            work(lambda name: os.write(writing, f"{name}\n".encode()))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as pipe:
        acknowledged = set(pipe.read().splitlines())
    _, status = os.waitpid(child, 0)
    return status == 0, acknowledged


class Operations:
    """Counts file operations of the package and does something at one of them."""

    def __init__(self, monkeypatch, at: int, act: Callable[[str], None], after: bool = False):
        self.at, self.act, self.after = at, act, after
        self.names: list[str] = []
        for name in ("fsync", "replace", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))
        monkeypatch.setattr(_files, "_open_temporary", self.wrap("create", _files._open_temporary))
        write = _files._write_flushed

        def torn(file, chunks):
            def counted():
                for chunk in chunks:
                    mine = len(self.names)
                    self.names.append("write")
                    if mine == self.at:
                        file.write(bytes(chunk)[: len(chunk) // 2])
                        file.flush()
                        self.act("write")
                    yield chunk

            return write(file, counted())

        monkeypatch.setattr(_files, "_write_flushed", torn)

    def wrap(self, name: str, original: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            mine = len(self.names)
            self.names.append(name)
            if mine == self.at and not self.after:
                self.act(name)
            try:
                return original(*args, **kwargs)
            finally:  # some fail in an ordinary run, if a file is there already
                if mine == self.at and self.after:
                    self.act(name)

        return wrapped


def count_operations(folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        operations = Operations(patch, -1, lambda name: None)
        run(folder)
    return operations.names


# Every operation takes minutes; the quick tier takes samples.
SAMPLES = [pytest.param(7, id="some"), pytest.param(1, id="every", marks=pytest.mark.slow)]


@needs_fork
@pytest.mark.parametrize("step", SAMPLES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_file_operation(tmp_path, unbroken, after, step):
    operations = count_operations(tmp_path / "count")
    assert len(operations) > 50
    for at in range(after, len(operations), step):
        folder = tmp_path / str(at)

        def killed(acknowledge, at=at, folder=folder):
            with pytest.MonkeyPatch.context() as patch:
                Operations(patch, at, lambda _: os.kill(os.getpid(), signal.SIGKILL), after)
                run(folder, acknowledge)

        done, acknowledged = in_child(killed, None)
        assert not done
        check_kept(folder, acknowledged)
        _files._tidied.clear()  # this process stands for the next one
        check_same(folder, unbroken)


@needs_fork
@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_moments_until_done(tmp_path, unbroken, kills):
    start = time.monotonic()
    assert in_child(lambda acknowledge: run(tmp_path / "timed", acknowledge), None)[0]
    length = time.monotonic() - start
    moments, killed, attempt = random.Random(kills), 0, 0
    while killed < kills:
        folder, kept, done = tmp_path / str(attempt), set(), False
        while not done:
            # The last attempt may finish: a busy machine could be killed too early for ever.
            moment = moments.uniform(0, length / 2) if killed < kills else None
            done, more = in_child(lambda acknowledge: run(folder, acknowledge), moment)  # noqa: B023
            killed += not done
            kept |= more
            check_kept(folder, kept)
        check_same(folder, unbroken)
        attempt += 1


@pytest.mark.parametrize("step", SAMPLES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_any_file_operation_may_fail(tmp_path, unbroken, code, step):
    """The call says so in one line, and nothing is lost."""
    total = len(count_operations(tmp_path / "count"))
    for at in range(code % step, total, step):
        folder, acknowledged = tmp_path / str(at), set()

        def fail(name: str):
            raise OSError(code, os.strerror(code), name)

        with pytest.MonkeyPatch.context() as patch:
            operations = Operations(patch, at, fail)
            try:
                run(folder, acknowledged.add)
            except (W2WError, OSError) as error:
                assert isinstance(error, ResourceError), operations.names[at]
                assert "\n" not in str(error)
                assert os.strerror(code) in str(error)
        assert not list(folder.rglob(f"{_files.TEMPORARY}*")) or operations.names[at] == "unlink"
        check_kept(folder, acknowledged)
        check_same(folder, unbroken)


def test_bytes_reach_the_disk_before_their_name_and_the_name_before_the_answer(
    tmp_path, monkeypatch
):
    """What a power cut would need: file flushed, then renamed, then its folder flushed."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        events.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def spy_replace(source, target):
        events.append(("rename", os.fspath(source)))
        events.append(("named", os.path.dirname(target)))
        replace(source, target)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to know which file is flushed")
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    run(tmp_path / "set")
    renames = [i for i, (what, _) in enumerate(events) if what == "rename"]
    assert len(renames) == 2 + len(NAMES)
    for i in renames:
        assert ("flush", events[i][1]) in events[:i]
        assert events[i + 2] == ("flush", events[i + 1][1])
    for folder in (tmp_path, tmp_path / "set"):  # for the names of new folders
        assert ("flush", str(folder)) in events


@needs_fork
def test_a_disk_that_is_really_full(tmp_path):
    """The kernel itself refuses to let a file grow."""
    resource = pytest.importorskip("resource")
    layout = WeightLayout((LoRAModule("to_q", 400_000, 100_000),), rank=1, alpha=1.0)
    dataset = WeightDataset.create(tmp_path, layout)

    def fill(acknowledge):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            dataset.write("a", torch.ones(layout.num_parameters))
        except ResourceError as error:
            acknowledge(str(error))

    _, said = in_child(fill, None)
    assert "File too large" in said.pop()
    assert WeightDataset.open(tmp_path).names == ()
    assert not list(tmp_path.rglob(f"{_files.TEMPORARY}*"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions bind no root")
def test_read_only_folder(tmp_path, unbroken):
    folder = tmp_path / "set"
    run(folder)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        check_kept(folder, set(NAMES))
        with pytest.raises(ResourceError, match="Permission denied"):
            WeightDataset.open(folder).write("x", torch.zeros(D))
        with pytest.raises(ResourceError, match="cannot make"):
            WeightDataset.create(folder / "inner", LAYOUT)
    finally:
        folder.chmod(stat.S_IRWXU)
    assert contents(folder) == contents(unbroken)


# Several at once.


@needs_fork
def test_processes_may_write_the_same_subjects_at_once(tmp_path, unbroken):
    """Twice the same command by mistake: double work, one dataset; readers never see half a row."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=run, args=(tmp_path / "set",)) for _ in range(3)]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        check_kept(tmp_path / "set", set())
    assert [child.exitcode for child in children] == [0] * 3
    assert contents(tmp_path / "set") == contents(unbroken)


def test_threads_may_write_shares_at_once(tmp_path, unbroken):
    dataset = WeightDataset.create(tmp_path, LAYOUT, recipe={"steps": 5}, labels=LABELS)

    def write(share: int) -> None:
        for name in GOOD[share::3]:
            dataset.write(name, row(name), seed=0, info={"loss": len(name) / 4})

    threads = [threading.Thread(target=write, args=(share,)) for share in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dataset.names == tuple(GOOD)
    check_same(tmp_path, unbroken)


# Damage.


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


DAMAGES = {
    "a bit of a number": lambda path: flip(path, -5),
    "a bit of the digest": lambda path: flip(path, path.read_bytes().index(b"w2w_sha256") + 14),
    "a bit of a tensor's name": lambda path: flip(path, path.read_bytes().rindex(b"lora_A") + 5),
    "a bit of the length": lambda path: flip(path, 6),
    "a bit of the header": lambda path: flip(path, 12),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 5),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "empty": lambda path: os.truncate(path, 0),
    "another alpha": lambda path: path.write_bytes(
        path.read_bytes().replace(rb"lora_alpha\": 2", rb"lora_alpha\": 3")
    ),
}


@pytest.mark.parametrize("known", [False, True], ids=["first read", "later read"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_never_read_as_other_numbers(tmp_path, unbroken, damage, known):
    run(tmp_path / "set")
    dataset = WeightDataset.open(tmp_path / "set")
    path = dataset.path_of("anna 2")
    if known:
        dataset.verify()
    DAMAGES[damage](path)
    for read in (
        lambda: dataset["anna 2"],
        lambda: dataset[:],
        lambda: list(dataset.blocks(2)),
        lambda: pack(dataset, tmp_path / "packed"),
    ):
        with pytest.raises(InputError, match=r"anna 2\.safetensors") as error:
            read()
        assert str(error.value).isprintable()
    assert list(dataset.verify()) == ["anna 2"]
    outcome = import_loras([path], tmp_path / "imported")
    assert outcome.added == ([] if damage != "another alpha" else ["anna 2"])
    result = CliRunner().invoke(cli.main, ["verify", str(tmp_path / "set")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    aside = dataset.move_aside("anna 2")
    assert aside == tmp_path / "set" / "broken" / "anna 2.safetensors" and aside.exists()
    assert "anna 2" not in dataset
    check_same(tmp_path / "set", unbroken)


def test_a_damaged_file_is_never_exported(tmp_path):
    run(tmp_path / "set")
    path = WeightDataset.open(tmp_path / "set").path_of("anna 2")
    flip(path, -5)
    for place in (path, tmp_path / "set" / "anna 2"):
        with pytest.raises(W2WError, match="is damaged: its weights have SHA-256"):
            load_lora(path)
        out = tmp_path / "out.safetensors"
        args = ["export", str(place), "--format", "kohya", "--out", str(out)]
        result = CliRunner().invoke(cli.main, args)
        assert (result.exit_code, out.exists()) == (1, False)
        assert "is damaged" in result.stderr


def test_damage_in_a_shard_costs_one_row(tmp_path):
    run(tmp_path / "set")
    packed = pack(WeightDataset.open(tmp_path / "set"), tmp_path / "packed")
    (shard,) = (tmp_path / "packed" / "shards").iterdir()
    flip(shard, -5)
    assert list(packed.verify()) == [GOOD[-1]]
    with pytest.raises(W2WError, match="is damaged"):
        packed[GOOD[-1]]
    assert torch.equal(packed[GOOD[0]], row(GOOD[0]))
    with pytest.raises(W2WError, match="is packed"):
        packed.move_aside(GOOD[-1])
    packed.write(GOOD[-1], row(GOOD[-1]))
    assert WeightDataset.open(tmp_path / "packed").verify() == {}
    os.truncate(shard, 100)
    with pytest.raises(W2WError, match="cannot be used"):
        WeightDataset.open(tmp_path / "packed")


def test_mutated_files_are_found_and_break_nothing(tmp_path):
    """Any change of any file: one clear line or the same numbers, never a crash."""
    run(tmp_path / "set")
    files = [path for path in sorted(tmp_path.rglob("*.*")) if path.is_file()]
    assert len(files) == 2 + len(NAMES)
    chance = random.Random(1)
    for _ in range(300):
        path = chance.choice(files)
        original = path.read_bytes()
        data = bytearray(original)
        start = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[start] ^= 1 << chance.randrange(8)
            case 1:
                del data[start:]
            case 2:
                data[start:start] = chance.randbytes(chance.randrange(1, 9))
            case 3:
                data[start : start + 8] = chance.choice(
                    (b"[" * 9000, b"1e999", b"null", b"\xff" * 8)
                )
            case 4:
                data[start : start + 40] = data[start + 40 : start + 80]
        path.write_bytes(data)
        try:
            damaged = WeightDataset.open(tmp_path / "set")
            broken = damaged.verify()
            assert all(reason.isprintable() for reason in broken.values())
            for name in set(damaged.names) - broken.keys():
                assert torch.equal(damaged[name], row(name))
            _ = damaged.failed, damaged.labels
        except W2WError as error:
            assert "\n" not in str(error)
        path.write_bytes(original)
    assert WeightDataset.open(tmp_path / "set").verify() == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(20)
def test_a_named_pipe_hangs_nothing(tmp_path, unbroken):
    run(tmp_path)
    opened = WeightDataset.open(tmp_path)
    for name in ("anna 1.safetensors", "failed/anna 4.json", "labels.csv"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    with pytest.raises(W2WError, match="is not a regular file"):
        opened["anna 1"]
    found = WeightDataset.open(tmp_path)
    assert found.names == tuple(name for name in GOOD if name != "anna 1")
    assert "damaged" in found.failed["anna 4"]
    assert not len(found.labels.columns)
    (tmp_path / "dataset.json").unlink()
    os.mkfifo(tmp_path / "dataset.json")
    with pytest.raises(W2WError, match="is not a regular file"):
        WeightDataset.open(tmp_path)
    for verb in ("info", "verify"):
        result = CliRunner().invoke(cli.main, [verb, str(tmp_path)])
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_without_its_json_it_is_still_a_dataset(tmp_path):
    run(tmp_path)
    (tmp_path / "dataset.json").unlink()
    found = WeightDataset.open(tmp_path)
    assert (found.names, found.layout) == (tuple(GOOD), LAYOUT)
    assert found.verify() == {}
