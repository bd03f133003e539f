"""The dataset under attack: killed, out of disk, damaged, raced. What was acknowledged stays."""

import errno
import multiprocessing
import os
import random
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from weights2weights import _files
from weights2weights.dataset import WeightDataset
from weights2weights.errors import W2WError
from weights2weights.layout import LoRAModule, WeightLayout

LAYOUT = WeightLayout((LoRAModule("down.to_q", 3, 4),), rank=1, alpha=2.0)
D = LAYOUT.num_parameters
PLAN = [f"anna {i}" for i in range(11)]
GROUP = 3
FAILED = {"anna 4": "no images", "anna 9": "loss is NaN"}
LABELS = {name: {"Bald": i % 2, "Age": i / 8} for i, name in enumerate(PLAN) if i != 6}

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def row(name: str) -> torch.Tensor:
    """What training would give for a subject, always the same."""
    generator = torch.Generator().manual_seed(PLAN.index(name))
    return torch.randn(D, generator=generator)


def run(folder: Path, acknowledge: Callable[[str], object] = lambda name: None) -> None:
    """Do as a training run does: begin or continue, group by group, to the end."""
    dataset = WeightDataset.create(
        folder, LAYOUT, names=PLAN, labels=LABELS, recipe={"steps": 5}, shard_rows=4, resume=True
    )
    for start in range(0, len(PLAN), GROUP):
        group = PLAN[start : start + GROUP]
        if not set(group) & set(dataset.pending()):
            continue
        good = [name for name in group if name not in FAILED]
        dataset.append(
            good,
            torch.stack([row(name) for name in good]),
            info=[{"loss": len(name) / 4} for name in good],
            failed={name: FAILED[name] for name in group if name in FAILED},
        )
        for name in good:
            acknowledge(name)
    dataset.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "quarantine"
    }


def folders(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_dir()} - {"quarantine"}


def check_kept(folder: Path, acknowledged: set[str]) -> None:
    """A dataset that was cut short opens, is sound, and has every row that it promised to keep."""
    if not (folder / "manifest.json").exists():
        assert not acknowledged
        return
    dataset = WeightDataset.open(folder)
    assert acknowledged <= set(dataset.names)
    assert dataset.verify() == []
    assert list(dataset.names) == [name for name in PLAN if name in dataset.names]
    for name, found in zip(dataset.names, dataset, strict=True):
        assert torch.equal(found, row(name))
    assert dataset.labels["Age"].dropna().to_dict() == {
        name: LABELS[name]["Age"] for name in dataset.names if name in LABELS
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder)
    check_kept(folder, set(PLAN) - FAILED.keys())
    return folder


def check_same(folder: Path, unbroken: Path) -> None:
    run(folder)
    check_kept(folder, set(PLAN) - FAILED.keys())
    assert contents(folder) == contents(unbroken)
    assert folders(folder) == folders(unbroken) == {"shards"}


def in_child(work: Callable[[Callable[[str], object]], None], kill_after: float | None) -> tuple:
    """Run work in a fork; give whether it came to its end, and the names that it acknowledged."""
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


OPERATIONS = ("open", "fsync", "replace", "unlink", "rmdir", "mkdir")


class Operations:
    """Counts file operations of the package and does something at one of them."""

    def __init__(self, monkeypatch, at: int, act: Callable[[str], None], after: bool = False):
        self.count = 0
        self.names: list[str] = []
        for name in OPERATIONS:
            original = getattr(os, name)

            def wrapped(*args, _original=original, _name=name, **kwargs):
                if _name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                    return _original(*args, **kwargs)
                mine, self.count = self.count, self.count + 1
                self.names.append(_name)
                if mine == at and not after:
                    act(_name)
                try:
                    return _original(*args, **kwargs)
                finally:  # some fail in an ordinary run, if a file is there already
                    if mine == at and after:
                        act(_name)

            monkeypatch.setattr(os, name, wrapped)
        self._count_writes(monkeypatch, at, act, after)

    def _count_writes(self, monkeypatch, at, act, after):
        original = _files._write_flushed

        def wrapped(path, chunks):
            def counted():
                for chunk in chunks:
                    mine, self.count = self.count, self.count + 1
                    self.names.append("write")
                    if mine == at and not after:
                        path.write_bytes(bytes(chunk)[: len(chunk) // 2])  # torn in the middle
                        act("write")
                    yield chunk
                    if mine == at and after:
                        act("write")

            return original(path, counted())

        monkeypatch.setattr(_files, "_write_flushed", wrapped)


def count_operations(folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        operations = Operations(patch, -1, lambda name: None)
        run(folder)
    return operations.names


# Every operation takes minutes; the quick tier takes samples that differ from test to test.
SAMPLES = [pytest.param(9, id="some"), pytest.param(1, id="every", marks=pytest.mark.slow)]


@needs_fork
@pytest.mark.parametrize("step", SAMPLES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_file_operation(tmp_path, unbroken, after, step, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    operations = count_operations(tmp_path / "count")
    assert len(operations) > 70
    for at in range(4 * after * (step > 1), len(operations), step):
        folder = tmp_path / str(at)

        def killed(acknowledge, at=at, folder=folder):
            with pytest.MonkeyPatch.context() as patch:
                Operations(patch, at, lambda _: os.kill(os.getpid(), signal.SIGKILL), after)
                run(folder, acknowledge)

        done, acknowledged = in_child(killed, None)
        assert not done
        check_kept(folder, acknowledged)
        check_same(folder, unbroken)


@needs_fork
@pytest.mark.parametrize(
    "repeats", [pytest.param(2, id="some"), pytest.param(20, id="many", marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_until_done(tmp_path, unbroken, repeats):
    start = time.monotonic()
    done, _ = in_child(lambda acknowledge: run(tmp_path / "timed", acknowledge), None)
    assert done
    length = time.monotonic() - start
    moments, kills = random.Random(0), 0
    for attempt in range(repeats):
        folder, kept = tmp_path / str(attempt), set()
        for _ in range(8):
            moment = moments.uniform(0, length / 2)
            done, more = in_child(lambda acknowledge: run(folder, acknowledge), moment)  # noqa: B023
            kills += not done
            kept |= more
            check_kept(folder, kept)
            if done:
                break
        check_same(folder, unbroken)
    assert kills >= repeats


@pytest.mark.parametrize("step", SAMPLES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_any_file_operation_may_fail(tmp_path, unbroken, monkeypatch, code, step):
    """The call says so in one line, and nothing is lost."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
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
                assert isinstance(error, W2WError), operations.names[at]
                assert "\n" not in str(error)
                assert os.strerror(code) in str(error)
        assert not list(folder.rglob(".tmp-*"))
        check_kept(folder, acknowledged)
        check_same(folder, unbroken)


def test_bytes_reach_the_disk_before_their_name_and_the_name_before_the_answer(
    tmp_path, monkeypatch
):
    """What a pulled plug would need: file flushed, then renamed, then its folder flushed."""
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
        pytest.skip("needs /proc to tell which file is flushed")
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    run(tmp_path / "set", lambda name: events.append(("kept", name)))
    events = [event for event in events if event[0] != "kept"]
    renames = [i for i, (what, _) in enumerate(events) if what == "rename"]
    assert len(renames) == 12  # labels, plan, four records, three shards, a manifest for each
    for i in renames:
        assert ("flush", events[i][1]) in events[:i]
        assert events[i + 2] == ("flush", events[i + 1][1])
    for folder in (tmp_path, tmp_path / "set"):  # for the names of new folders
        assert ("flush", str(folder)) in events


def test_a_record_outweighs_nothing_when_the_append_fails(tmp_path, monkeypatch):
    """All of an append or nothing: a group never enters in part."""
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=PLAN)
    with pytest.MonkeyPatch.context() as patch:

        def full(source, target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, "replace", full)
        with pytest.raises(W2WError, match=r"cannot write .*: No space left on device; what was"):
            dataset.append(PLAN[:3], torch.stack([row(n) for n in PLAN[:3]]), failed={"x": "y"})
    assert len(dataset) == len(WeightDataset.open(tmp_path)) == 0
    assert dataset.failed == {}
    assert dataset.append(PLAN[:3], torch.stack([row(n) for n in PLAN[:3]])) == tuple(PLAN[:3])


@needs_fork
def test_a_disk_that_is_really_full(tmp_path):
    """The kernel itself refuses to let a file grow."""
    resource = pytest.importorskip("resource")
    layout = WeightLayout((LoRAModule("to_q", 40_000, 10_000),), rank=1, alpha=1.0)
    dataset = WeightDataset.create(tmp_path, layout)
    dataset.append(["small"], torch.zeros(1, layout.num_parameters))

    def fill(acknowledge):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            dataset.append(["a", "b"], torch.ones(2, layout.num_parameters))
        except W2WError as error:
            acknowledge(str(error))

    _, said = in_child(fill, None)
    assert "File too large" in said.pop()
    assert WeightDataset.open(tmp_path).names == ("small",)
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions bind no root")
def test_read_only_folder(tmp_path, unbroken):
    folder = tmp_path / "set"
    run(folder)
    for path in (folder, folder / "shards"):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        check_kept(folder, set(PLAN) - FAILED.keys())
        with pytest.raises(W2WError, match="Permission denied"):
            WeightDataset.open(folder).append(["x"], torch.zeros(1, D))
        with pytest.raises(W2WError, match="cannot make"):
            WeightDataset.create(folder / "inner", LAYOUT)
    finally:
        for path in (folder, folder / "shards"):
            path.chmod(stat.S_IRWXU)
    assert contents(folder) == contents(unbroken)


# Several at once.


def write_share(folder: Path, share: int, shares: int) -> None:
    torch.set_num_threads(1)
    dataset = WeightDataset.open(folder)
    names = [name for i, name in enumerate(PLAN) if i % shares == share and name not in FAILED]
    for name in names:
        dataset.append([name], row(name)[None], info=[{"loss": len(name) / 4}])
    for i, name in enumerate(PLAN):
        if i % shares == share and name in FAILED:
            dataset.mark_failed(name, FAILED[name])


@needs_fork
def test_writers_at_once(tmp_path, unbroken):
    """Processes that append to one folder together make what one alone would make."""
    WeightDataset.create(
        tmp_path, LAYOUT, names=PLAN, labels=LABELS, recipe={"steps": 5}, shard_rows=4
    )
    children = [
        multiprocessing.get_context("fork").Process(target=write_share, args=(tmp_path, i, 4))
        for i in range(4)
    ]
    for child in children:
        child.start()
    seen: set[str] = set()
    while any(child.is_alive() for child in children):  # a reader all the while
        dataset = WeightDataset.open(tmp_path)
        assert seen <= set(dataset.names)
        seen = set(dataset.names)
        for name, found in zip(dataset.names, dataset[:], strict=True):
            assert torch.equal(found, row(name))
        assert dataset.verify() == []
        assert len(dataset.labels) == len(dataset)
    assert [child.exitcode for child in children] == [0] * 4
    WeightDataset.open(tmp_path).finish()
    assert contents(tmp_path) == contents(unbroken)


def test_writers_in_threads(tmp_path, unbroken):
    WeightDataset.create(
        tmp_path, LAYOUT, names=PLAN, labels=LABELS, recipe={"steps": 5}, shard_rows=4
    )
    threads = [threading.Thread(target=write_share, args=(tmp_path, i, 3)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    WeightDataset.open(tmp_path).finish()
    assert contents(tmp_path) == contents(unbroken)


@needs_fork
def test_runs_at_once_of_the_same_subjects(tmp_path, unbroken):
    """Twice the same command by mistake: double work, one dataset."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=run, args=(tmp_path / "set",)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 3
    assert contents(tmp_path / "set") == contents(unbroken)


@needs_fork
def test_the_lock_of_a_killed_writer_is_free(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT)

    def hold(acknowledge):
        with _files.locked(tmp_path / ".lock"):
            (tmp_path / f"{_files.TEMPORARY}1-2").write_bytes(b"half")
            acknowledge("held")
            time.sleep(60)

    done, said = in_child(hold, 0.3)
    assert (done, said) == (False, {"held"})
    start = time.monotonic()
    dataset.append(["a"], torch.zeros(1, D))
    assert time.monotonic() - start < 5
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_lock_that_is_held_is_told(tmp_path):
    with (
        _files.locked(tmp_path / ".lock"),
        pytest.raises(W2WError, match=r"in use by another process for 0.1 s"),
        _files.locked(tmp_path / ".lock", patience=0.1),
    ):
        pass


@pytest.mark.parametrize("late", [False, True])
def test_a_reader_finds_rows_that_were_moved(tmp_path, late):
    """An object opened before others consolidate still reads what it knows of."""
    writer = WeightDataset.create(tmp_path, LAYOUT, names=PLAN, labels=LABELS, shard_rows=4)
    writer.append(PLAN[:4], torch.stack([row(name) for name in PLAN[:4]]))
    reader = WeightDataset.open(tmp_path)
    blocks = iter(reader.blocks(2))
    found = [] if late else [next(blocks)]
    writer.append(PLAN[4:], torch.stack([row(name) for name in PLAN[4:]]))
    writer.finish()
    found += list(blocks)
    assert torch.equal(torch.cat(found), torch.stack([row(name) for name in PLAN[:4]]))
    assert reader.verify() == []


# Damage.


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def only(paths: Iterator[Path]) -> Path:
    (path,) = paths
    return path


def test_one_flipped_bit_costs_one_row(tmp_path, unbroken):
    run(tmp_path / "set")
    shard = only((tmp_path / "set" / "shards").glob("00001-*"))
    flip(shard, -D * 4 * 2 - 3)  # in the third row from the end
    dataset = WeightDataset.open(tmp_path / "set")
    (problem,) = dataset.verify()
    assert problem.file == shard
    assert problem.names == ("anna 5",)
    assert str(problem).endswith("its bytes are not those that were written; row 'anna 5'")
    assert dataset.quarantine() == ("anna 5",)
    assert dataset.pending() == ("anna 5",)
    assert dataset.verify() == []
    assert len(dataset) == len(PLAN) - len(FAILED) - 1
    assert (tmp_path / "set" / "quarantine" / shard.name).exists()
    check_kept(tmp_path / "set", set(PLAN) - FAILED.keys() - {"anna 5"})
    check_same(tmp_path / "set", unbroken)


@pytest.mark.parametrize("damage", ["header", "length", "cut", "gone", "empty", "huge"])
def test_a_shard_that_is_lost_is_made_again(tmp_path, unbroken, damage):
    run(tmp_path / "set")
    shard = only((tmp_path / "set" / "shards").glob("00001-*"))
    match damage:
        case "header":
            flip(shard, 12)
        case "length":
            flip(shard, 6)
        case "cut":
            os.truncate(shard, shard.stat().st_size - D * 4 * 3 + 5)
        case "gone":
            shard.unlink()
        case "empty":
            os.truncate(shard, 0)
        case "huge":
            shard.write_bytes((2**63).to_bytes(8, "little") + shard.read_bytes()[8:])
    lost = tuple(PLAN[5:8])
    dataset = WeightDataset.open(tmp_path / "set")
    (problem,) = dataset.verify()
    assert (problem.file, problem.names) == (shard, lost)
    if damage != "header":
        with pytest.raises(W2WError, match="is missing" if damage == "gone" else "not of the size"):
            dataset[:]
        with pytest.raises(W2WError):
            dataset.append([lost[0]], row(lost[0])[None])
    assert dataset.quarantine() == lost
    assert dataset.pending() == lost
    check_same(tmp_path / "set", unbroken)


def test_rows_at_the_end_of_a_cut_shard_are_lost_and_no_others(tmp_path, unbroken):
    run(tmp_path / "set")
    shard = only((tmp_path / "set" / "shards").glob("00000-*"))
    os.truncate(shard, shard.stat().st_size - D * 4 - 1)
    dataset = WeightDataset.open(tmp_path / "set")
    assert dataset.quarantine() == tuple(PLAN[2:4])
    check_same(tmp_path / "set", unbroken)


def test_damaged_records(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=PLAN)
    rows = torch.stack([row(name) for name in PLAN])
    dataset.append(PLAN[:3], rows[:3], failed={"anna 4": "no images"})
    dataset.append(PLAN[5:8], rows[5:8])
    dataset.append(["unplanned"], rows[:1], {"unplanned": {"Bald": 1}})
    first, second, third = sorted((tmp_path / "pending").iterdir())
    flip(first, -D * 4 * 3 + 1)
    flip(second, 20)
    flip(third, -1)
    found = WeightDataset.open(tmp_path)
    assert {problem.file: problem.names for problem in found.verify()} == {
        first: (PLAN[0],),
        second: (),
        third: ("unplanned",),
    }
    assert not found.finished
    assert "cannot say which rows" in str(found.verify()[0])
    assert set(found.quarantine()) == {PLAN[0], "unplanned"}
    assert found.names == (PLAN[1], PLAN[2])
    assert found.failed == {"anna 4": "no images"}
    assert found.pending() == (PLAN[0], PLAN[3], *PLAN[5:], "unplanned")
    assert found.verify() == []
    found.append(["unplanned"], rows[:1])
    assert found.labels["Bald"].tolist()[-1] is True


def test_a_damaged_record_never_enters_a_shard(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=PLAN[:2], shard_rows=2)
    dataset.append(PLAN[:1], row(PLAN[0])[None])
    flip(only((tmp_path / "pending").iterdir()), -1)
    with pytest.raises(W2WError, match=r"row 'anna 0' in .* is damaged"):
        dataset.append(PLAN[1:2], row(PLAN[1])[None])
    found = WeightDataset.open(tmp_path)
    assert found.names == tuple(PLAN[:2])  # the new row is kept all the same
    assert found.quarantine() == ("anna 0",)
    found.append(PLAN[:1], row(PLAN[0])[None])
    found.finish()
    assert found.verify() == []


@pytest.mark.parametrize("damage", ["flip", "gone", "cut"])
def test_damaged_labels(tmp_path, unbroken, damage):
    run(tmp_path / "set")
    table = only((tmp_path / "set").glob("labels-*"))
    match damage:
        case "flip":
            flip(table, table.stat().st_size // 2)
        case "gone":
            table.unlink()
        case "cut":
            os.truncate(table, 100)
    dataset = WeightDataset.open(tmp_path / "set")
    assert {problem.file for problem in dataset.verify()} == {table}
    assert dataset.quarantine() == ()
    assert dataset.verify() == []
    assert not dataset.labels["Age"].count()
    dataset.label(LABELS)
    assert contents(tmp_path / "set") == contents(unbroken)


def test_a_changed_manifest_is_found_and_nothing_else_is_blamed(tmp_path):
    run(tmp_path / "set")
    manifest = tmp_path / "set" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"no images", b"no pictunes"))
    dataset = WeightDataset.open(tmp_path / "set")
    (problem,) = dataset.verify()
    assert problem.file == manifest
    with pytest.raises(W2WError, match="restore it from a copy first"):
        dataset.quarantine()


def test_mutated_files_are_found_and_break_nothing(tmp_path):
    """Any change of any file: one clear error or a problem told, never a crash, never silence."""
    run(tmp_path / "set")
    dataset = WeightDataset.open(tmp_path / "set")
    dataset.append(["new", "newer"], torch.ones(2, D), {"new": {"Bald": 1}})
    files = [path for path in sorted(tmp_path.rglob("*.*")) if path.suffix and path.is_file()]
    assert len(files) == 6
    chance = random.Random(1)
    for _ in range(200):
        path = chance.choice(files)
        original = path.read_bytes()
        data = bytearray(original)
        start = min(int(chance.expovariate(4) * len(data)), len(data) - 1)
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
        if data == original:
            continue
        path.write_bytes(data)
        try:
            damaged = WeightDataset.open(tmp_path / "set")
            assert path in {problem.file for problem in damaged.verify()}
            for read in (lambda d: d[:], lambda d: d.labels, lambda d: d.info):
                try:
                    read(damaged)
                except W2WError as error:
                    assert "\n" not in str(error)
        except W2WError as error:
            assert "\n" not in str(error)
        path.write_bytes(original)
    assert WeightDataset.open(tmp_path / "set").verify() == []


def test_numbers_that_are_not_finite_are_found(tmp_path, monkeypatch):
    """Such a row can only come from another program, with checksums that fit."""
    dataset = WeightDataset.create(tmp_path, LAYOUT)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "isfinite", lambda rows: torch.ones_like(rows, dtype=torch.bool))
        dataset.append(["a", "b"], torch.tensor([[0.0] * D, [float("nan")] * D]))
        dataset.finish()
    (problem,) = dataset.verify()
    assert problem.names == ("b",)
    assert "NaN or infinite" in problem.reason
    assert dataset.quarantine() == ("b",)
    assert dataset.names == ("a",)
    assert dataset.verify() == []


def test_a_shard_of_another_dataset_is_found(tmp_path):
    run(tmp_path / "set")
    first, second, *_ = sorted((tmp_path / "set" / "shards").iterdir())
    second.write_bytes(first.read_bytes())
    (problem,) = WeightDataset.open(tmp_path / "set").verify()
    assert problem.reason == "holds other rows than the manifest says"
    assert problem.names == ("anna 5", "anna 6", "anna 7")
    wide = WeightDataset.create(
        tmp_path / "wide", WeightLayout((LoRAModule("to_q", 5, 5),), 1, 1.0)
    )
    wide.append(["x"], torch.zeros(1, 10))
    wide.finish()
    first.write_bytes(only((tmp_path / "wide" / "shards").iterdir()).read_bytes())
    dataset = WeightDataset.open(tmp_path / "set")
    with pytest.raises(W2WError, match=r"holds rows of 10 torch.float32 numbers: expected 7"):
        _ = dataset.info


@needs_fork
def test_quarantine_may_be_killed_anywhere(tmp_path, unbroken, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for at in range(0, 60, 2):
        folder = tmp_path / str(at)
        run(folder)
        shard = only((folder / "shards").glob("00001-*"))
        flip(shard, -D * 4 * 2 - 3)

        def killed(acknowledge, at=at, folder=folder):
            with pytest.MonkeyPatch.context() as patch:
                Operations(patch, at, lambda _: os.kill(os.getpid(), signal.SIGKILL))
                WeightDataset.open(folder).quarantine()

        done, _ = in_child(killed, None)
        WeightDataset.open(folder).quarantine()
        check_kept(folder, set(PLAN) - FAILED.keys() - {"anna 5"})
        check_same(folder, unbroken)
        if done:
            break
    else:
        pytest.fail("quarantine never came to its end")
