"""A dataset is a folder of LoRA files: what goes in comes out, and any program opens the files."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from weights2weights.dataset import WeightDataset, is_dataset, pack
from weights2weights.errors import W2WError
from weights2weights.formats import load_lora, write_lora_file
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


def new(folder: Path, count: int = 10, **options) -> WeightDataset:
    dataset = WeightDataset.create(folder, LAYOUT, **options)
    for name, row in zip(names(count), rows(count), strict=True):
        dataset.write(name, row)
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
        assert len(found) == 10
        assert found.names == tuple(names(10))
        assert found.layout == LAYOUT
        assert found.layout.base == "tiny"
        assert found.base_hash == "abc"
        assert found.recipe == {"steps": 8, "prompts": ["a", "b"]}
        assert found.failed == {}
        assert torch.equal(found[:], rows(10))
        assert found.verify() == {}
    assert repr(dataset) == f"WeightDataset({str(tmp_path / 'set')!r}, 10 × 7)"


def test_golden_bytes(tmp_path):
    """The file format; a change here needs a new version number."""
    layout = WeightLayout((LoRAModule("to_q", 1, 1),), rank=1, alpha=1.0)
    dataset = WeightDataset.create(tmp_path, layout, base_hash="b", recipe={"steps": 3})
    dataset.write("Ada", torch.tensor([1.0, 2.0]), seed=7, info={"loss": 0.5})
    dataset.write_failure("c", "no images")
    found = {
        name: hashlib.sha256(data).hexdigest()[:16] for name, data in contents(tmp_path).items()
    }
    assert found == {
        "Ada.safetensors": "91e0fbdf8bee79d4",
        "dataset.json": "9fbf710842149c55",
        "failed/c.json": "7d5d3caa1f9ecd18",
    }


def test_a_row_is_a_lora_file_with_its_provenance(tmp_path):
    dataset = new(tmp_path, 1, base_hash="abc", recipe={"steps": 8})
    path = dataset.write("zoë", rows(1)[0], seed=3, info={"loss": 0.25})
    assert path == tmp_path / "zoë.safetensors"
    lora = load_lora(path)
    assert (lora.format, lora.layout) == ("diffusers", LAYOUT)
    assert torch.equal(lora.weights, rows(1)[0])
    data = path.read_bytes()
    tensors = data[8 + int.from_bytes(data[:8], "little") :]
    assert lora.metadata["w2w_sha256"] == hashlib.sha256(tensors).hexdigest()
    expected = {"subject": "zoë", "seed": "3", "base": "abc", "layout": LAYOUT.hash}
    assert {key: lora.metadata[f"w2w_{key}"] for key in expected} == expected
    assert json.loads(lora.metadata["w2w_info"]) == dataset.info("zoë") == {"loss": 0.25}
    assert dataset.info("subject 000") == {}


def test_diffusers_opens_a_row_at_its_full_strength(tmp_path):
    pipe = tiny.pipeline(tmp_path)
    layout = WeightLayout.from_denoiser(pipe.unet, alpha=27.0)
    weights = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(0))
    path = WeightDataset.create(tmp_path / "set", layout).write("ada", weights)
    pipe.load_lora_weights(str(path), adapter_name="ada")
    module = layout.modules[0].name
    assert pipe.unet.get_submodule(module).scaling == {"ada": 27.0}
    loaded = pipe.unet.get_submodule(f"{module}.lora_A").ada.weight
    assert torch.equal(loaded.flatten(), weights[: loaded.numel()])


@settings(deadline=None, max_examples=25)
@given(
    wanted=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=9, unique=True),
    values=st.floats(-60000, 60000, width=16),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    data=st.data(),
)
def test_round_trip_of_any_names_order_and_numbers(tmp_path_factory, wanted, values, dtype, data):
    folders = [tmp_path_factory.mktemp("set") for _ in range(2)]
    weights = {name: torch.full((D,), values, dtype=dtype) for name in wanted}
    for i, name in enumerate(wanted):
        weights[name][0] = i
    for folder in folders:
        dataset = WeightDataset.create(folder, LAYOUT)
        for name in data.draw(st.permutations(wanted)):
            dataset.write(name, weights[name])
    found = WeightDataset.open(folders[0])
    assert found.names == tuple(sorted(wanted))
    assert torch.equal(found[:], torch.stack([weights[name].float() for name in found.names]))
    assert found.verify() == {}
    assert {path.parent for path in folders[0].rglob("*.safetensors")} == {folders[0]}
    assert contents(folders[0]) == contents(folders[1])


@pytest.mark.parametrize(
    "name", ["../up", "a/b\\c", ".hidden", "a.", "tab\there", "CON", "50%", "%41", "名前", "🙂"]
)
def test_odd_names_stay_inside_the_folder(tmp_path, name):
    path = WeightDataset.create(tmp_path / "set", LAYOUT).write(name, rows(1)[0])
    assert path.parent == tmp_path / "set" and not path.name.startswith(".")
    assert WeightDataset.open(tmp_path / "set").names == (name,)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\udcff"])
def test_names_that_no_file_can_have_are_one_line(tmp_path, name):
    dataset = WeightDataset.create(tmp_path, LAYOUT)
    for write in (lambda: dataset.write(name, rows(1)[0]), lambda: dataset.write_failure(name, "")):
        with pytest.raises(W2WError, match="rename the subject") as error:
            write()
        assert str(error.value).isprintable()


def test_names_that_a_disk_does_not_distinguish_are_refused(tmp_path, monkeypatch):
    from weights2weights.dataset import _folder

    dataset = WeightDataset.create(tmp_path, LAYOUT)
    dataset.write("Ada", rows(1)[0])
    (tmp_path / "ada.safetensors").symlink_to("Ada.safetensors")  # as if the disk ignored case
    with pytest.raises(W2WError, match="'ada' and 'Ada' share the file"):
        dataset.write("ada", rows(1)[0])
    assert _folder.row_name(_folder.file_stem("Ada")) == "Ada"


def test_half_characters_anywhere_are_one_line(tmp_path):
    broken = "a\udcff"
    for make in (
        lambda: WeightLayout(LAYOUT.modules, 1, 1.0, base=broken),
        lambda: WeightDataset.create(tmp_path / "b", LAYOUT, base_hash=broken),
        lambda: WeightDataset.create(tmp_path / "c", LAYOUT, recipe={"prompt": broken}),
        lambda: WeightDataset.create(tmp_path / "d", LAYOUT, labels={broken: {"Bald": 1}}),
        lambda: WeightDataset.create(tmp_path / "e", LAYOUT, labels={"a": {broken: 1}}),
        lambda: WeightDataset.create(tmp_path / "f", LAYOUT).write(
            "a", rows(1)[0], info={"": broken}
        ),
    ):
        with pytest.raises(W2WError) as error:
            make()
        assert str(error.value).isprintable()
    dataset = WeightDataset.create(tmp_path / "g", LAYOUT)
    dataset.write_failure("a", f"{broken}.png cannot be read")
    assert dataset.failed == {"a": "a\\udcff.png cannot be read"}


def test_indexing(tmp_path):
    dataset, all_rows = new(tmp_path), rows(10)
    assert torch.equal(dataset[3], all_rows[3])
    assert torch.equal(dataset[-1], all_rows[-1])
    assert torch.equal(dataset[torch.tensor(3)], all_rows[3])
    assert torch.equal(dataset["subject 007"], all_rows[7])
    assert torch.equal(dataset[2:9:3], all_rows[2:9:3])
    assert torch.equal(dataset[[9, 0, 0, 5]], all_rows[[9, 0, 0, 5]])
    assert torch.equal(dataset[["subject 002", "subject 001"]], all_rows[[2, 1]])
    assert torch.equal(dataset[np.array([1, 2])], all_rows[1:3])
    assert dataset[[]].shape == (0, D)
    assert torch.equal(torch.stack(list(dataset)), all_rows)
    assert "subject 003" in dataset and "nobody" not in dataset
    for mask in ([True] * 10, np.ones(10, bool), torch.ones(10, dtype=torch.bool), True):
        with pytest.raises(W2WError, match="chosen by booleans"):
            dataset[mask]
    with pytest.raises(IndexError):
        dataset[10]
    with pytest.raises(W2WError, match="has no model called 'nobody'; it has 10"):
        dataset["nobody"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rows_per_block", [1, 3, 7, 10, 99])
def test_blocks_run_again_and_again(tmp_path, rows_per_block, packed):
    dataset = new(tmp_path / "set")
    if packed:
        dataset = pack(dataset, tmp_path / "packed", shard_bytes=4 * D * 4)
    blocks = dataset.blocks(rows_per_block)
    assert (blocks.rows, blocks.columns) == (10, D)
    for _ in range(2):
        found = list(blocks)
        assert len(found) == len(blocks)
        assert all(len(block) == min(rows_per_block, 10) for block in found[:-1])
        assert torch.equal(torch.cat(found), rows(10))


def test_blocks_need_memory_for_two_blocks(tmp_path):
    layout = WeightLayout((LoRAModule("to_q", 250_000, 250_000),), rank=1, alpha=1.0)
    dataset = WeightDataset.create(tmp_path, layout)
    for name in names(24):  # 2 MB a row, 48 MB in all
        dataset.write(name, torch.full((layout.num_parameters,), float(len(name))))
    pytest.importorskip("resource")
    script = (
        "import resource, sys\n"
        "from weights2weights.dataset import WeightDataset\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "dataset = WeightDataset.open(sys.argv[1]); dataset[[0, 1]]; before = peak()\n"
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


def test_writing_again_replaces(tmp_path):
    dataset = new(tmp_path)
    before = contents(tmp_path)
    dataset.write("subject 004", rows(10)[4])
    assert contents(tmp_path) == before
    dataset.write("subject 004", rows(1, seed=5)[0])
    assert torch.equal(WeightDataset.open(tmp_path)["subject 004"], rows(1, seed=5)[0])
    assert len(dataset) == 10


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(D + 1), r"'a': weights of shape \[8\]: expected \[7\]"),
        (torch.zeros(D, dtype=torch.float64), "'a': weights of torch.float64"),
        (torch.tensor([0.0] * (D - 1) + [float("nan")]), "'a': .* NaN or infinite"),
        (torch.tensor([0.0] * (D - 1) + [float("-inf")]), "'a': .* NaN or infinite"),
    ],
)
def test_weights_that_no_model_has_are_refused_by_name(tmp_path, weights, message):
    dataset = WeightDataset.create(tmp_path, LAYOUT)
    with pytest.raises(W2WError, match=message):
        dataset.write("a", weights)
    assert len(WeightDataset.open(tmp_path)) == 0


def test_failures(tmp_path):
    dataset = new(tmp_path, 2)
    dataset.write_failure("../eve", "no images", info={"batch": ["../eve"]})
    dataset.write_failure("adam", "loss is NaN")
    for found in (dataset, WeightDataset.open(tmp_path)):
        assert found.failed == {"../eve": "no images", "adam": "loss is NaN"}
        assert found.failures["../eve"]["info"] == {"batch": ["../eve"]}
    with pytest.raises(W2WError, match="'subject 000' has a model"):
        dataset.write_failure("subject 000", "late")
    dataset.write_failure("adam", "out of memory")
    assert dataset.failed["adam"] == "out of memory"
    dataset.write("adam", rows(1)[0])
    assert set(dataset.failed) == {"../eve"}
    assert [path.name for path in (tmp_path / "failed").iterdir()] == ["%2E.%2Feve.json"]


def test_create_opens_what_has_the_same_settings(tmp_path):
    options = {"recipe": {"steps": 3}, "base_hash": "b"}
    new(tmp_path, 2, **options)
    assert len(WeightDataset.create(tmp_path, LAYOUT, **options)) == 2
    for change, message in [
        ({"recipe": {"steps": 4}}, "made with steps 3, and 4 is wanted"),
        ({"recipe": {}}, "made with steps 3, and None is wanted"),
        ({"base_hash": "c"}, "made with base_hash 'b', and 'c' is wanted"),
    ]:
        with pytest.raises(W2WError, match=message):
            WeightDataset.create(tmp_path, LAYOUT, **{**options, **change})
    other = WeightLayout(LAYOUT.modules, rank=2, alpha=2.0)
    with pytest.raises(W2WError, match=r"rank 2, expected 1|rank 1, expected 2"):
        WeightDataset.create(tmp_path, other, **options)


def test_create_refuses_what_it_would_harm(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(W2WError, match=r"is not empty and holds no dataset \('cat.png'\)"):
        WeightDataset.create(tmp_path / "photos", LAYOUT)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.png"]
    with pytest.raises(W2WError, match="cannot make"):
        WeightDataset.create(tmp_path / "photos" / "cat.png", LAYOUT)
    with pytest.raises(W2WError, match="JSON cannot hold"):
        WeightDataset.create(tmp_path / "nan", LAYOUT, recipe={"rate": float("nan")})


def test_open_says_what_is_wrong(tmp_path):
    with pytest.raises(W2WError, match="holds no dataset"):
        WeightDataset.open(tmp_path)
    with pytest.raises(W2WError, match="No such file"):
        WeightDataset.open(tmp_path / "absent")
    (tmp_path / "p.png").touch()
    with pytest.raises(W2WError, match="is a file; expected the folder of a dataset"):
        WeightDataset.open(tmp_path / "p.png")
    new(tmp_path / "set")
    path = tmp_path / "set" / "dataset.json"
    facts = json.loads(path.read_bytes())
    for change, message in [
        ({"version": 2}, "has version 2: expected 1"),
        ({"format": "cake"}, "does not describe a dataset"),
        ({"layout_hash": "0" * 16}, "expected '0000"),
        ({"recipe": None}, "damaged \\(at recipe\\)"),
        ({"layout": {}}, "layout"),
        ({"shards": ["../../secret"]}, "damaged \\(at shards\\)"),
        ({"shards": ["shards/absent.safetensors"]}, "cannot be used .* download it again"),
    ]:
        path.write_text(json.dumps({**facts, **change}))
        with pytest.raises(W2WError, match=message) as caught:
            WeightDataset.open(tmp_path / "set")
        assert "\n" not in str(caught.value)
    path.write_bytes(b"{")
    with pytest.raises(W2WError, match="not valid JSON"):
        WeightDataset.open(tmp_path / "set")


def test_labels_arrive_before_and_after_their_models(tmp_path):
    dataset = WeightDataset.create(tmp_path, LAYOUT, labels={"a": {"Bald": 1}, "z": {"Bald": 0}})
    for name in "bac":
        dataset.write(name, rows(1)[0])
    dataset.label(pd.DataFrame({"Male": [-1, 1], "Bald": [0, None]}, index=["c", "a"]))
    found = WeightDataset.open(tmp_path).labels
    assert (list(found.index), found.index.name) == (["a", "b", "c"], "name")
    assert found["Bald"].tolist() == [True, pd.NA, False]
    assert found["Male"].tolist() == [True, pd.NA, False]
    before = contents(tmp_path)
    dataset.label({"c": {"Male": -1}})
    assert contents(tmp_path) == before
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(W2WError, match=r"labels.csv cannot be read"):
        _ = dataset.labels


def test_a_folder_of_anybodys_loras_is_a_dataset(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    write_lora_file(folder / "anna.safetensors", rows(3)[0].half(), LAYOUT, "diffusers")
    write_lora_file(folder / "bo", rows(3)[1], LAYOUT, "peft")
    write_lora_file(
        folder / "cleo.safetensors", rows(3)[2], LAYOUT, "diffusers", {"trigger": "sks"}
    )
    (folder / "readme.txt").touch()
    (folder / "labels.csv").write_text("name,Bald\nbo,1\n")
    assert is_dataset(folder) and not is_dataset(folder / "bo") and not is_dataset(tmp_path)
    dataset = WeightDataset.open(folder)
    assert (dataset.names, dataset.layout) == (("anna", "bo", "cleo"), LAYOUT)
    assert torch.equal(dataset["anna"], rows(3)[0].half().float())
    assert torch.equal(dataset[1:], rows(3)[1:])
    with pytest.raises(W2WError, match=r"holds 'bo'; expected bo.safetensors"):
        dataset.write("bo", rows(1)[0])
    assert dataset.labels["Bald"].tolist() == [pd.NA, True, pd.NA]
    wide = WeightLayout(LAYOUT.modules, rank=2, alpha=2.0)
    write_lora_file(folder / "dora.safetensors", torch.ones(2 * D), wide, "diffusers")
    with pytest.raises(W2WError, match=r"1 of 4 LoRAs differ .*dora.safetensors has .* rank 2"):
        WeightDataset.open(folder)


def test_moving_aside_keeps_what_was_moved_before(tmp_path):
    dataset = new(tmp_path, 1)
    first, _ = dataset.move_aside("subject 000"), dataset.write("subject 000", rows(1)[0])
    second = dataset.move_aside("subject 000")
    assert first != second and first.exists() and second.exists()


def test_a_notebook_shows_a_table(tmp_path):
    html = new(tmp_path, 2, labels={"subject 000": {"Bald": 1}})._repr_html_()
    assert all(text in html for text in ("WeightDataset", "Bald", "tiny"))


def test_merging_is_copying_files(tmp_path):
    dataset = new(tmp_path / "a", base_hash="x")
    other = WeightDataset.create(tmp_path / "b", LAYOUT, base_hash="x")
    other.write("zoe", rows(1, seed=3)[0])
    shutil.copy(tmp_path / "b" / "zoe.safetensors", tmp_path / "a")
    found = WeightDataset.open(tmp_path / "a")
    assert found.names == (*dataset.names, "zoe")
    assert found.verify() == {}
    foreign = WeightDataset.create(tmp_path / "c", LAYOUT, base_hash="y")
    shutil.copy(foreign.write("yan", rows(1)[0]), tmp_path / "a")
    found = WeightDataset.open(tmp_path / "a")
    assert list(found.verify()) == ["yan"]
    with pytest.raises(W2WError, match=r"yan.safetensors was made for another base \(hash y\)"):
        found["yan"]


def test_packed_is_the_same_dataset(tmp_path):
    dataset = new(
        tmp_path / "set", base_hash="x", recipe={"a": 1}, labels={"subject 003": {"B": 1}}
    )
    dataset.write("ada", rows(1, seed=2)[0].half(), seed=9, info={"loss": 1})
    dataset.write_failure("eve", "no images")
    for name in ("packed", "again"):
        packed = pack(dataset, tmp_path / name, shard_bytes=4 * D * 4)
    assert contents(tmp_path / "packed") == contents(tmp_path / "again")
    assert len(list((tmp_path / "packed" / "shards").iterdir())) == 3
    assert (packed.names, packed.failed) == (dataset.names, dataset.failed)
    assert (packed.layout, packed.base_hash, packed.recipe) == (LAYOUT, "x", {"a": 1})
    assert torch.equal(packed[:], dataset[:])
    assert packed.info("ada") == {"loss": 1}
    assert packed.labels.equals(dataset.labels)
    assert packed.verify() == {}
    packed.write("late", rows(1)[0])
    assert len(WeightDataset.open(packed.path)) == 12
    with pytest.raises(W2WError, match="is not empty"):
        pack(dataset, packed.path)
    (packed.path / "dataset.json").unlink()  # as if interrupted near the end
    (packed.path / "late.safetensors").unlink()
    (packed.path / ".w2w-tmp-0").touch()
    dataset.label({"nobody yet": {"B": 0}})
    assert pack(dataset, packed.path, shard_bytes=4 * D * 4).names == dataset.names
    assert "nobody yet,0" in (packed.path / "labels.csv").read_text()
    with pytest.raises(W2WError, match="is a file"):
        pack(dataset, packed.path / "labels.csv")
    with pytest.raises(W2WError, match="no models"):
        pack(WeightDataset.create(tmp_path / "none", LAYOUT), tmp_path / "out")


def test_a_loader_reads_batches_also_in_workers(tmp_path):
    dataset = new(tmp_path)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    assert torch.equal(torch.cat(list(loader)), rows(10))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[:], rows(10))
