"""The dataset as a table: what goes in comes out, whatever the order, size and shards."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from weights2weights.dataset import WeightDataset
from weights2weights.errors import W2WError
from weights2weights.layout import LoRAModule, WeightLayout

LAYOUT = WeightLayout((LoRAModule("down.to_q", 3, 4),), rank=1, alpha=2.0, base="tiny")
D = LAYOUT.num_parameters


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk():
    """Flushing takes most of the time and makes no difference here; test_dataset_faults has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def names(count: int) -> list[str]:
    return [f"subject {i:03d}" for i in range(count)]


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def new(folder: Path, count: int = 10, **settings) -> WeightDataset:
    """A finished dataset in three shards of four, four and two rows."""
    dataset = WeightDataset.create(folder, LAYOUT, names=names(count), shard_rows=4, **settings)
    dataset.append(names(count), rows(count))
    dataset.finish()
    return dataset


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_rows_come_back_as_they_went_in(tmp_path):
    dataset = new(tmp_path / "set", base_hash="abc", recipe={"steps": 8, "prompts": ("a", "b")})
    for found in (dataset, WeightDataset.open(tmp_path / "set")):
        assert len(found) == found.rows == 10
        assert found.columns == D
        assert found.names == found.planned == tuple(names(10))
        assert found.layout == LAYOUT
        assert found.layout.base == "tiny"
        assert found.base_hash == "abc"
        assert found.recipe == {"steps": 8, "prompts": ["a", "b"]}
        assert found.dtype == torch.float32
        assert found.finished
        assert found.pending() == ()
        assert found.failed == {}
        assert torch.equal(found[:], rows(10))
        assert found.verify() == []
    assert "10 rows" in repr(dataset)


def test_shards_are_plain_safetensors(tmp_path):
    new(tmp_path / "set")
    shards = sorted((tmp_path / "set" / "shards").iterdir())
    assert [shard.name[:6] for shard in shards] == ["00000-", "00001-", "00002-"]
    tensors = []
    for shard in shards:
        with safe_open(shard, "pt") as file:
            assert list(file.keys()) == ["weights"]
            facts = json.loads(file.metadata()["weights2weights"])
            tensors.append(file.get_tensor("weights"))
            assert len(facts["names"]) == len(tensors[-1])
    assert torch.equal(torch.cat(tensors), rows(10))


def test_golden_manifest(tmp_path):
    """The format of the manifest; a change here needs a new version number."""
    layout = WeightLayout((LoRAModule("to_q", 1, 1),), rank=1, alpha=1.0)
    dataset = WeightDataset.create(tmp_path, layout, names=["b", "a", "c"], recipe={"steps": 3})
    dataset.append(["a", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]), {"a": {"Bald": True}})
    dataset.mark_failed("c", "no images")
    dataset.finish()
    shard = "shards/00000-2f4fd9dff58a1c1b.safetensors"
    facts = json.loads((tmp_path / "manifest.json").read_bytes())
    (found,) = facts["shards"]
    assert found.pop("sha256").startswith(found["file"][13:29])
    assert found.pop("file").startswith(shard[:13])
    assert found == {"index": 0, "names": ["b", "a"], "rows": 2}
    labels = facts.pop("labels")
    assert len(facts.pop("sha256")) == 64
    assert labels["file"] == f"labels-{labels['sha256'][:16]}.parquet"
    del facts["shards"]
    assert facts == {
        "format": "weights2weights-dataset",
        "version": 1,
        "layout": layout.to_dict(),
        "layout_hash": layout.hash,
        "dtype": "float32",
        "base_hash": "",
        "recipe": {"steps": 3},
        "shard_rows": 4096,
        "planned": ["b", "a", "c"],
        "failed": {"c": "no images"},
        "label_names": ["Bald"],
    }


def test_folder_holds_nothing_but_the_dataset(tmp_path):
    dataset = new(tmp_path, labels={name: {"Bald": 1} for name in names(10)})
    kinds = {path.split("-")[0] for path in contents(tmp_path)}
    assert kinds == {".lock", "manifest.json", "labels", *(f"shards/0000{i}" for i in range(3))}
    assert not (tmp_path / "pending").exists()
    before = contents(tmp_path)
    dataset.finish()
    assert contents(tmp_path) == before


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_order_and_grouping_gives_the_same_bytes(tmp_path_factory, data):
    count = data.draw(st.integers(1, 14))
    shard_rows = data.draw(st.integers(1, 6))
    failed = data.draw(st.sets(st.sampled_from(names(count))))
    labels = {n: {"Bald": i % 2, "Age": i / 3} for i, n in enumerate(names(count))}
    settled = data.draw(st.permutations(names(count)))
    folders = []
    for order, step in ((names(count), count), (settled, data.draw(st.integers(1, 5)))):
        folder = tmp_path_factory.mktemp("set")
        dataset = WeightDataset.create(
            folder, LAYOUT, names=names(count), labels=labels, shard_rows=shard_rows
        )
        for start in range(0, count, step):
            if data.draw(st.booleans()):
                dataset = WeightDataset.open(folder)
            group = order[start : start + step]
            good = [name for name in group if name not in failed]
            dataset.append(
                good,
                rows(count)[[names(count).index(name) for name in good]],
                info=[{"loss": 0.25}] * len(good),
                failed={name: "broken" for name in group if name in failed},
            )
            stored = [name for name in names(count) if name in dataset.names]
            assert list(dataset.names) == stored
            index = [names(count).index(name) for name in stored]
            assert torch.equal(dataset[:], rows(count)[index])
        assert dataset.pending() == ()
        dataset.finish()
        assert dataset.verify() == []
        assert set(dataset.failed) == failed
        folders.append(folder)
    assert contents(folders[0]) == contents(folders[1])


@settings(deadline=None, max_examples=25)
@given(
    wanted=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=9, unique=True),
    values=st.floats(-60000, 60000, width=16),
    half=st.booleans(),
    width=st.integers(1, 5),
)
def test_round_trip_of_any_names_and_numbers(tmp_path_factory, wanted, values, half, width):
    layout = WeightLayout((LoRAModule("to_v", width, 2),), rank=2, alpha=1.0)
    weights = torch.full((len(wanted), layout.num_parameters), values)
    weights[:, 0] = torch.arange(len(wanted))
    dtype = torch.float16 if half else torch.float32
    folder = tmp_path_factory.mktemp("set")
    dataset = WeightDataset.create(folder, layout, dtype=dtype, shard_rows=3)
    assert dataset.append(wanted, weights) == tuple(wanted)
    assert torch.equal(dataset[:], weights)
    dataset.finish()
    found = WeightDataset.open(folder)
    assert found.names == tuple(wanted)
    assert found[:].dtype == torch.float32
    assert torch.equal(found[:], weights)
    assert found.verify() == []


def test_names_of_every_kind(tmp_path):
    odd = [
        "",
        "../up",
        "a/b\\c",
        "Zo\u00eb",
        "Zoe\u0308",
        "名前",
        "🙂",
        "tab\there",
        "line\nbreak",
        "CON",
    ]
    weights = rows(len(odd) - 1)
    dataset = WeightDataset.create(tmp_path, LAYOUT)
    dataset.append(odd[1:], weights)
    dataset.finish()
    assert WeightDataset.open(tmp_path).names == tuple(odd[1:])
    assert torch.equal(WeightDataset.open(tmp_path)["名前"], weights[4])
    for bad in ("", "\udcff"):
        with pytest.raises(W2WError, match="not empty"):
            dataset.append([bad], rows(1))
    with pytest.raises(W2WError, match="comes twice"):
        dataset.append(["x", "x"], rows(2))
    with pytest.raises(W2WError, match="one text"):
        dataset.append("x", rows(1))


def test_indexing(tmp_path):
    dataset, all_rows = new(tmp_path), rows(10)
    assert torch.equal(dataset[3], all_rows[3])
    assert torch.equal(dataset[-1], all_rows[-1])
    assert torch.equal(dataset["subject 007"], all_rows[7])
    assert torch.equal(dataset[2:9:3], all_rows[2:9:3])
    assert torch.equal(dataset[[9, 0, 0, 5]], all_rows[[9, 0, 0, 5]])
    assert torch.equal(dataset[["subject 002", "subject 001"]], all_rows[[2, 1]])
    assert torch.equal(dataset[np.array([1, 2])], all_rows[1:3])
    assert torch.equal(dataset[torch.arange(10) > 6], all_rows[7:])
    assert torch.equal(dataset[range(2, 4)], all_rows[2:4])
    assert dataset[[]].shape == (0, D)
    assert torch.equal(torch.stack(list(dataset)), all_rows)
    with pytest.raises(IndexError, match="row 10: expected one of 10"):
        dataset[10]
    with pytest.raises(W2WError, match="no row is called 'nobody'"):
        dataset["nobody"]
    with pytest.raises(W2WError, match="a mask of 3"):
        dataset[[True, False, True]]


@pytest.mark.parametrize("rows_per_block", [1, 3, 4, 7, 10, 99])
def test_blocks_cross_shards_and_run_again(tmp_path, rows_per_block):
    blocks = new(tmp_path).blocks(rows_per_block)
    assert (blocks.rows, blocks.columns) == (10, D)
    for _ in range(2):
        found = list(blocks)
        assert len(found) == len(blocks)
        assert all(len(block) == min(rows_per_block, 10) for block in found[:-1])
        assert torch.equal(torch.cat(found), rows(10))
    with pytest.raises(W2WError, match="rows_per_block 0"):
        new(tmp_path / "other").blocks(0)


def test_blocks_need_memory_for_one_block(tmp_path):
    layout = WeightLayout((LoRAModule("to_q", 250_000, 250_000),), rank=1, alpha=1.0)
    dataset = WeightDataset.create(tmp_path, layout, names=names(24), shard_rows=8)
    for name in names(24):  # 2 MB a row, 48 MB in all
        dataset.append([name], torch.full((1, layout.num_parameters), float(len(name))))
    dataset.finish()
    pytest.importorskip("resource")
    script = (
        "import resource, sys\n"
        "from weights2weights.dataset import WeightDataset\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "dataset = WeightDataset.open(sys.argv[1]); dataset[0]; before = peak()\n"
        "total = sum(float(block[:, ::1000].sum()) for block in dataset.blocks(2))\n"
        "dataset.verify(); print(peak() - before, total)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    grown, total = map(float, done.stdout.split())
    assert total == 24 * 500 * len("subject 000")
    unit = 1 if sys.platform == "darwin" else 1024
    assert grown * unit < 24e6, "more than half of the dataset was held in memory"


def test_appending_again_changes_nothing(tmp_path):
    dataset = new(tmp_path)
    before = contents(tmp_path)
    assert dataset.append(names(10)[2:5], rows(10)[2:5]) == ()
    assert contents(tmp_path) == before
    assert dataset.append(["subject 001", "new"], torch.stack([rows(10)[1], rows(1)[0]])) == (
        "new",
    )
    with pytest.raises(W2WError, match=r"'subject 004' is stored in .* with other weights"):
        dataset.append(["fresh", "subject 004"], rows(2, seed=5))
    assert "fresh" not in WeightDataset.open(tmp_path).names


def test_a_finished_dataset_grows_as_if_never_finished(tmp_path):
    grown = new(tmp_path / "grown")
    late = [f"late {i}" for i in range(5)]
    grown.append(late[:1], rows(2, seed=1)[:1])
    assert not grown.finished
    grown.append(late[1:], torch.cat([rows(2, seed=1)[1:], rows(3, seed=2)]))
    grown.finish()
    once = WeightDataset.create(tmp_path / "once", LAYOUT, names=names(10) + late, shard_rows=4)
    once.append(late, torch.cat([rows(2, seed=1), rows(3, seed=2)]))
    once.append(names(10), rows(10))
    once.finish()
    assert contents(tmp_path / "grown") == contents(tmp_path / "once")


def test_float16(tmp_path):
    dataset = new(tmp_path, dtype=torch.float16)
    assert dataset.dtype == torch.float16
    assert torch.equal(dataset[:], rows(10).half().float())
    assert dataset.append(names(10), rows(10)) == ()
    big = torch.full((1, D), 1e5)
    with pytest.raises(W2WError, match="row 'big' reaches 1e\\+05, beyond float16"):
        dataset.append(["big"], big)
    size = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    assert size < 10 * D * 2 + 3 * 800
    with pytest.raises(W2WError, match=r"dtype torch\.float64"):
        WeightDataset.create(tmp_path / "no", LAYOUT, dtype=torch.float64)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_are_refused_by_name(tmp_path, value):
    weights = rows(3)
    weights[1, 2] = value
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=names(3))
    with pytest.raises(W2WError, match="row 'subject 001' holds 1 numbers that are NaN"):
        dataset.append(names(3), weights)
    assert len(WeightDataset.open(tmp_path)) == 0


def test_weights_of_another_kind_are_refused(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT)
    with pytest.raises(W2WError, match=r"1 names with weights of shape \(1, 8\)"):
        dataset.append(["a"], torch.zeros(1, D + 1))
    with pytest.raises(W2WError, match=r"2 names with weights of shape \(1, 7\)"):
        dataset.append(["a", "b"], torch.zeros(1, D))
    with pytest.raises(W2WError, match="2 infos for 1 rows"):
        dataset.append(["a"], torch.zeros(1, D), info=[{}, {}])
    dataset.append(["a"], torch.ones(1, D, dtype=torch.bfloat16))
    assert torch.equal(dataset["a"], torch.ones(D))


def test_failures(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=names(6), shard_rows=2)
    dataset.append(names(2)[:1], rows(1), failed={"subject 001": "no images"})
    dataset.mark_failed("subject 004", "loss is NaN")
    assert dataset.pending() == ("subject 002", "subject 003", "subject 005")
    assert dataset.failed == {"subject 001": "no images", "subject 004": "loss is NaN"}
    with pytest.raises(W2WError, match="'subject 004' failed: loss is NaN"):
        dataset["subject 004"]
    with pytest.raises(W2WError, match="'subject 000' has a row"):
        dataset.mark_failed("subject 000", "late")
    with pytest.raises(W2WError, match=r"3 of 6 planned rows .* are still to come"):
        dataset.finish()
    dataset.mark_failed("subject 004", "out of memory")
    assert dataset.failed["subject 004"] == "out of memory"
    dataset.append(["subject 001", "subject 004"], rows(2, seed=1))  # tried again, and well
    assert dataset.failed == {}
    dataset.append([names(6)[i] for i in (2, 3, 5)], rows(3, seed=2))
    dataset.finish()
    assert dataset.failed == {}
    assert dataset.names == tuple(names(6))
    assert torch.equal(dataset["subject 004"], rows(2, seed=1)[1])
    assert dataset.verify() == []


def test_a_later_failure_reason_outlives_an_earlier_record(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=names(6), shard_rows=2)
    dataset.append(["subject 000"], rows(1), failed={"subject 004": "first"})  # stays a record
    dataset.append(["subject 002", "subject 003"], rows(2), failed={"subject 004": "second"})
    assert WeightDataset.open(tmp_path).failed == {"subject 004": "second"}
    dataset.append(["subject 001", "subject 005"], rows(2, seed=3))
    dataset.finish()
    assert dataset.failed == {"subject 004": "second"}


def test_all_failed(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=names(3), shard_rows=2)
    for name in names(3):
        dataset.mark_failed(name, "no")
    dataset.finish()
    assert len(dataset) == 0
    assert dataset[:].shape == (0, D)
    assert list(dataset.blocks(5)) == []
    assert dataset.to_numpy().shape == (0, D)
    assert dataset.verify() == []


def test_create_refuses_what_it_would_harm(tmp_path):
    new(tmp_path / "set")
    with pytest.raises(W2WError, match="holds a dataset already"):
        WeightDataset.create(tmp_path / "set", LAYOUT)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(W2WError, match=r"is not empty and holds no dataset \(cat.png\)"):
        WeightDataset.create(tmp_path / "photos", LAYOUT)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.png"]
    with pytest.raises(W2WError, match="cannot make"):
        WeightDataset.create(tmp_path / "photos" / "cat.png", LAYOUT)
    with pytest.raises(W2WError, match="shard_rows 0"):
        WeightDataset.create(tmp_path / "zero", LAYOUT, shard_rows=0)
    with pytest.raises(W2WError, match="JSON cannot hold"):
        WeightDataset.create(tmp_path / "nan", LAYOUT, recipe={"rate": float("nan")})


def test_open_says_what_is_wrong(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(W2WError, match="is no dataset of weights"):
            WeightDataset.open(path)
    new(tmp_path / "set")
    manifest = tmp_path / "set" / "manifest.json"
    facts = json.loads(manifest.read_bytes())
    for change, message in [
        ({"version": 2}, "format version 2: expected 1"),
        ({"format": "cake"}, "format 'cake'"),
        ({"layout_hash": "0" * 16}, "is not the 0000"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"planned": ["a", "a"]}, "a name comes twice"),
        ({"planned": ["a"]}, "not planned"),
        ({"labels": {"file": "../../secret", "sha256": ""}}, "file '../../secret'"),
        ({"shards": None}, "TypeError"),
        ({"shards": facts["shards"][::-1]}, "out of order"),
        ({"shard_rows": float("inf")}, "OverflowError"),
    ]:
        manifest.write_text(json.dumps({**facts, **change}))
        with pytest.raises(W2WError, match=message) as caught:
            WeightDataset.open(tmp_path / "set")
        assert "\n" not in str(caught.value)
    manifest.write_bytes(b"{")
    with pytest.raises(W2WError, match="cannot be read"):
        WeightDataset.open(tmp_path / "set")


def test_resume(tmp_path):
    settings = {"recipe": {"steps": 3}, "base_hash": "b", "names": names(4), "resume": True}
    first = WeightDataset.create(tmp_path, LAYOUT, **settings)
    first.append(names(2), rows(2))
    again = WeightDataset.create(tmp_path, LAYOUT, **settings)
    assert again.names == tuple(names(2))
    assert again.pending() == tuple(names(4)[2:])
    more = WeightDataset.create(tmp_path, LAYOUT, **{**settings, "names": ["zoe", *names(3)]})
    assert more.planned == (*names(4), "zoe")
    assert more.pending() == (*names(4)[2:], "zoe")
    for change, message in [
        ({"recipe": {"steps": 4}}, "recipe.steps = 3, not 4"),
        ({"recipe": {}}, "recipe.steps = 3, not None"),
        ({"base_hash": "c"}, "base_hash = 'b', not 'c'"),
        ({"dtype": torch.float16}, "dtype = 'float32', not 'float16'"),
    ]:
        with pytest.raises(W2WError, match=message):
            WeightDataset.create(tmp_path, LAYOUT, **{**settings, **change})
    other = WeightLayout(LAYOUT.modules, rank=2, alpha=2.0)
    with pytest.raises(W2WError, match="rank 2, expected 1"):
        WeightDataset.create(tmp_path, other, **settings)


def test_labels_are_normalised(tmp_path):
    table = pd.DataFrame(
        {
            "Bald": [1, 0, None, 1],
            "Male": [1, -1, 1, -1],
            "Young": [True, False, True, None],
            "Age": [31.5, 20.0, float("nan"), 44.0],
            "Signs": [-1, 0, 1, 1],
            "Ones": pd.array([1, 1, pd.NA, 1], dtype="Int64"),
        },
        index=names(4),
    )
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=names(4), labels=table)
    dataset.append(names(4), rows(4))
    dataset.finish()
    found = WeightDataset.open(tmp_path).labels
    assert list(found.index) == names(4)
    assert found.index.name == "name"
    assert list(found.columns) == list(table.columns)
    truth = {"Bald": [True, False, pd.NA, True], "Male": [True, False, True, False]}
    truth |= {"Young": [True, False, True, pd.NA], "Ones": [True, True, pd.NA, True]}
    for column, values in truth.items():
        assert found[column].dtype == "boolean"
        assert found[column].tolist() == values
    assert found["Age"].dtype == found["Signs"].dtype == "Float64"
    assert found["Age"].tolist() == [31.5, 20.0, pd.NA, 44.0]
    assert found["Signs"].tolist() == [-1, 0, 1, 1]
    (file,) = tmp_path.glob("labels-*.parquet")
    stored = pd.read_parquet(file)
    assert list(stored.columns) == ["name", *table.columns]
    assert stored["Bald"].tolist()[:2] == [1, 0]


def test_a_column_is_judged_as_a_whole(tmp_path):
    """A column that begins with 0 and 1 and goes on with 0.5 has lost nothing on the way."""
    dataset = WeightDataset.create(tmp_path, LAYOUT, shard_rows=1)
    for name, value in zip("abcd", (0, -1, 1, 0.5), strict=True):
        dataset.append([name], rows(1), {name: {"Score": value}})
    dataset.finish()
    assert dataset.labels["Score"].tolist() == [0, -1, 1, 0.5]


def test_labels_arrive_with_rows_and_later(tmp_path):
    dataset = WeightDataset.create(
        tmp_path, LAYOUT, names=names(3), label_names=["Bald", "Male"], shard_rows=2
    )
    assert list(dataset.labels.columns) == ["Bald", "Male"]
    dataset.append(names(3)[:2], rows(2), labels={"subject 000": {"Male": 1}})
    dataset.append(names(3)[2:], rows(1), labels={"subject 002": {"Bald": 0, "Hat": 1}})
    assert list(dataset.labels.columns) == ["Bald", "Male", "Hat"]
    dataset.label({"subject 000": {"Male": -1}, "subject 001": {"Male": 1}})
    assert dataset.finished
    found = WeightDataset.open(tmp_path)
    assert found.labels["Male"].tolist() == [False, True, pd.NA]
    assert found.labels["Bald"].tolist() == [pd.NA, pd.NA, False]
    before = contents(tmp_path)
    found.label({"subject 000": {"Male": -1}})
    assert contents(tmp_path) == before


def test_a_later_label_outlives_an_earlier_record(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=names(6), shard_rows=2)
    dataset.append(["subject 000"], rows(1), {"subject 000": {"Bald": 0}})  # stays a record
    dataset.label({"subject 000": {"Bald": 1}})
    dataset.append(["subject 002", "subject 003"], rows(2))
    assert WeightDataset.open(tmp_path).labels["Bald"].tolist() == [True, pd.NA, pd.NA]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": {"Breed": "poodle"}}, "label 'Breed' of 'a' is 'poodle'"),
        ({"a": {"Age": float("inf")}}, "label 'Age' of 'a' is inf"),
        ({"a": {"Age": "12"}}, "turn text into"),
        ({"a": {"name": 1}}, "a label called 'name'"),
        ({"b": {"Age": 1}}, "labels for 1 names that are no rows \\('b'\\)"),
        ([1, 0], "labels of type list"),
        ({"a": {3: 1}}, "label 3 in the labels"),
        (pd.DataFrame({"Age": [1, 2]}, index=["a", "a"]), "row 'a' comes twice"),
        (pd.DataFrame([[1, 2]], index=["a"], columns=["x", "x"]), "label 'x' comes twice"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, message):
    with pytest.raises(W2WError, match=message):
        WeightDataset.create(tmp_path / "a", LAYOUT, names=["a"], labels=labels)
    assert not (tmp_path / "a").exists()
    dataset = WeightDataset.create(tmp_path / "b", LAYOUT)
    with pytest.raises(W2WError, match=message):
        dataset.append(["a"], rows(1), labels)
    assert len(dataset) == 0


def test_info(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, names=names(3), shard_rows=2)
    dataset.append(names(3), rows(3), info=[{"loss": 0.5}, {}, {"loss": 0.25, "tags": ["x"]}])
    for _ in range(2):
        assert dataset.info == {
            "subject 000": {"loss": 0.5},
            "subject 001": {},
            "subject 002": {"loss": 0.25, "tags": ["x"]},
        }
        dataset.finish()


def test_select_is_a_view(tmp_path):
    labels = {name: {"Age": i} for i, name in enumerate(names(10))}
    dataset = new(tmp_path, labels=labels)
    view = dataset.select([7, 2, 3])
    assert view.names == ("subject 007", "subject 002", "subject 003")
    assert torch.equal(view[:], rows(10)[[7, 2, 3]])
    assert torch.equal(torch.cat(list(view.blocks(2))), rows(10)[[7, 2, 3]])
    assert view.labels["Age"].tolist() == [7, 2, 3]
    assert view.select(["subject 003"]).names == ("subject 003",)
    assert view.select(slice(1)).names == ("subject 007",)
    assert dataset.select(dataset.labels["Age"].to_numpy() > 7).rows == 2
    with pytest.raises(W2WError, match="cannot be written to"):
        view.append(["x"], rows(1))
    with pytest.raises(W2WError, match="comes twice"):
        dataset.select([1, 1])
    with pytest.raises(W2WError, match="no row is called"):
        dataset.select(["nobody"])


def test_merge(tmp_path):
    first = new(tmp_path / "a", labels={"subject 001": {"Bald": 1}}, recipe={"steps": 1})
    second = WeightDataset.create(tmp_path / "b", LAYOUT, recipe={"steps": 2}, base_hash="h")
    second.append(["subject 001", "zoe"], torch.stack([rows(10)[1], rows(1, seed=4)[0]]))
    second.append([], torch.empty(0, D), failed={"bo": "broken", "subject 002": "broken there"})
    second.label({"zoe": {"Hat": 0.5}})
    merged = WeightDataset.merge(tmp_path / "all", [first.select([1, 2]), second])
    assert merged.names == ("subject 001", "subject 002", "zoe")
    assert torch.equal(merged[:], torch.stack([rows(10)[1], rows(10)[2], rows(1, seed=4)[0]]))
    assert merged.failed == {"bo": "broken"}
    assert merged.base_hash == "h"
    assert merged.recipe == {"merged": [{"steps": 1}, {"steps": 2}]}
    assert list(merged.labels.columns) == ["Bald", "Hat"]
    assert merged.labels["Hat"].tolist() == [pd.NA, pd.NA, 0.5]
    assert merged.finished
    assert merged.verify() == []
    before = contents(tmp_path / "all")
    WeightDataset.merge(tmp_path / "all", [first.select([1, 2]), second], resume=True)
    assert contents(tmp_path / "all") == before
    one = WeightDataset.merge(tmp_path / "copy", [first])
    assert one.recipe == {"steps": 1}
    assert torch.equal(one[:], first[:])


def test_merge_refuses_what_does_not_fit(tmp_path):
    first = new(tmp_path / "a", base_hash="x")
    other = WeightDataset.create(tmp_path / "b", WeightLayout(LAYOUT.modules, 2, 2.0))
    with pytest.raises(W2WError, match="b has another layout: rank 2, expected 1"):
        WeightDataset.merge(tmp_path / "m", [first, other])
    with pytest.raises(W2WError, match=r"c was made for another base \(hash y\): expected x"):
        based = WeightDataset.create(tmp_path / "c", LAYOUT, base_hash="y")
        WeightDataset.merge(tmp_path / "m", [first, based])
    with pytest.raises(W2WError, match="no datasets"):
        WeightDataset.merge(tmp_path / "m", [])
    assert not (tmp_path / "m").exists()
    clash = WeightDataset.create(tmp_path / "d", LAYOUT)
    clash.append(["subject 003"], rows(1, seed=9))
    with pytest.raises(W2WError, match=r"'subject 003' is stored .* with other weights"):
        WeightDataset.merge(tmp_path / "m", [first, clash])


def test_to_numpy(tmp_path):
    array = new(tmp_path).to_numpy()
    assert array.dtype == np.float32
    assert np.array_equal(array, rows(10).numpy())


def test_torch_dataset(tmp_path):
    labels = {name: {"Bald": i % 2, "Age": i / 4} for i, name in enumerate(names(10)[1:])}
    dataset = new(tmp_path, labels=labels)
    loader = torch.utils.data.DataLoader(dataset.torch_dataset(), batch_size=4)
    assert torch.equal(torch.cat(list(loader)), rows(10))
    items = dataset.torch_dataset(["Age", "Bald"])
    weights, values = next(iter(torch.utils.data.DataLoader(items, batch_size=3)))
    assert torch.equal(weights, rows(10)[:3])
    assert torch.equal(values[1:], torch.tensor([[0.0, 0.0], [0.25, 1.0]]))
    assert values[0].isnan().all()
    assert torch.equal(pickle.loads(pickle.dumps(items))[2][0], rows(10)[2])
    with pytest.raises(W2WError, match="no label 'Hat': expected some of 'Bald', 'Age'"):
        dataset.torch_dataset(["Hat"])


def test_default_shards_are_about_64_mib():
    from weights2weights.dataset._manifest import default_shard_rows

    assert default_shard_rows(4 * 99_648) == 128
    assert default_shard_rows(4) == 4096
    assert default_shard_rows(1 << 30) == 1
