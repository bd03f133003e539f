"""The commands on spaces: every option arrives, JSON comes out, failures are one line."""

import json
import os
import re

import numpy as np
import pandas
import pytest
import torch
from click.testing import CliRunner

from test_published import published
from weights2weights import cli
from weights2weights.dataset import WeightDataset
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import Model, load_model, save_model
from weights2weights.sampling import sample, sampling_of
from weights2weights.space import WeightSpace, _space

LAYOUT = WeightLayout((LoRAModule("up.attn1.to_q", 12, 8),), 1, 27.0, "someone/base")
NAMES = [f"p{row}" for row in range(40)]


def run(*args, code: int = 0):
    result = CliRunner().invoke(cli.main, list(map(str, args)), prog_name="w2w")
    assert result.exit_code == code, result.output + result.stderr
    return result


def facts(*args) -> dict:
    return json.loads(run(*args, "--json").stdout)


def dataset(path, names=NAMES, seed=0) -> WeightDataset:
    rows = torch.randn(len(names), 20, generator=torch.Generator().manual_seed(seed))
    labels = {name: {"Bald": i % 2} for i, name in enumerate(names)}
    made = WeightDataset.create(path, LAYOUT, labels=labels)
    for name, row in zip(names, rows, strict=True):
        made.write(name, row)
    return made


@pytest.fixture
def weights(tmp_path):
    return dataset(tmp_path / "weights").path


@pytest.fixture
def space(tmp_path, weights):
    run("fit", weights, "--out", tmp_path / "space", "--components", 6)
    return tmp_path / "space"


def test_fit_reports_what_it_fitted(tmp_path, weights):
    result = facts("fit", weights, "--out", tmp_path / "s", "--components", 6)
    space = WeightSpace.from_pretrained(tmp_path / "s")
    assert (result["models"], result["numbers"], result["components"]) == (40, 20, 6)
    assert result["captured_variance"] == pytest.approx(space.captured_variance)
    assert result["labels"] == ["Bald"]
    assert result["space"] == space.hash
    assert result["seconds"] > 0
    assert "captured_variance" in run("fit", weights, "--out", tmp_path / "s").stdout


def test_every_option_of_fit_arrives(tmp_path, weights, monkeypatch):
    given = {}

    def fit_pca(blocks, components, **options):
        given.update(options, components=components)
        return original(blocks, components)

    original = _space.fit_pca
    monkeypatch.setattr(_space, "fit_pca", fit_pca)
    table = pandas.DataFrame({"name": NAMES, "Tall": np.arange(40) % 2})
    table.to_csv(tmp_path / "l.csv", index=False)
    run(
        *("fit", weights, "--out", tmp_path / "s", "--components", 3, "--oversampling", 7),
        *("--tolerance", 0.01, "--max-passes", 9, "--seed", 5, "--device", "cpu"),
        *("--labels", tmp_path / "l.csv", "--dtype", "float16"),
    )
    assert given.pop("generator").initial_seed() == 5
    assert given == {
        "components": 3,
        "oversampling": 7,
        "tolerance": 0.01,
        "max_passes": 9,
        "device": "cpu",
        "progress": True,
    }
    space = WeightSpace.from_pretrained(tmp_path / "s")
    assert space.components.dtype == torch.float16
    assert space.labels.columns.tolist() == ["Tall"]


def test_fit_stores_sampling_defaults(tmp_path, weights):
    run("fit", weights, "--out", tmp_path / "s", "--components", 6, "--sampling", 2, 0.5)
    space = WeightSpace.from_pretrained(tmp_path / "s")
    assert sampling_of(space) == (2, 0.5)
    assert not sample(space, 3)[:, 2:].any()
    run("fit", weights, "--out", tmp_path / "x", "--sampling", 0, 1, code=2)


def test_fit_fails_in_one_line(tmp_path, weights):
    result = run("fit", tmp_path / "nothing", "--out", tmp_path / "s", code=1)
    assert len(result.stderr.splitlines()) == 1
    result = run("fit", weights, "--out", tmp_path / "s", "--device", "abacus", code=1)
    assert "device 'abacus' cannot be used here" in result.stderr


def test_sample_writes_models_and_a_report(tmp_path, space):
    flags = ("-n", 3, "--seed", 4, "--components", 5, "--scale", 0.7)
    result = facts("sample", space, *flags, "--out", tmp_path / "new")
    opened = WeightSpace.from_pretrained(space)
    expected = sample(opened, 3, seed=4, components=5, scale=0.7)
    for row, path in enumerate(result["files"]):
        model = load_model(path)
        assert torch.equal(model.coefficients, expected[row])
        assert model.origin == {
            "verb": "sample",
            "seed": 4,
            "row": row,
            "scale": 0.7,
            "components": 5,
        }
        assert model.space == opened.hash
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert report == {key: result[key] for key in report}
    assert report["samples"] == 3
    assert report["nearest_largest"] < 1
    assert "nearest" in run("sample", space, "-n", 1, "--out", tmp_path / "one").stdout


def test_neighbours_of_models_and_loras(tmp_path, weights, space):
    run("sample", space, "-n", 1, "--out", tmp_path)
    lora = Model(LAYOUT, weights=WeightDataset.open(weights)["p7"])
    copy = save_model(tmp_path / "copy.safetensors", lora)
    drawn = tmp_path / "sample-0-0000.safetensors"
    result = facts("neighbours", drawn, copy, "--space", space, "-n", 2)
    assert [len(found) for found in result["neighbours"].values()] == [2, 2]
    nearest = result["neighbours"][str(copy)][0]
    assert nearest["name"] == "p7"
    assert nearest["similarity"] == pytest.approx(1, abs=1e-5)
    text = run("neighbours", copy, "--space", space).stdout.splitlines()
    assert text[0] == str(copy)
    assert text[1].split() == ["p7", "1"]


def test_neighbours_of_a_folder_are_those_of_every_model(tmp_path, space):
    run("sample", space, "-n", 2, "--out", tmp_path / "new")
    found = facts("neighbours", tmp_path / "new", "--space", space)["neighbours"]
    assert list(found) == [str(tmp_path / "new" / f"sample-0-000{row}") for row in (0, 1)]


def test_neighbours_of_a_dataset_and_of_one_of_its_models(weights, space):
    result = facts("neighbours", weights, "--space", space, "-n", 1)["neighbours"]
    names = WeightDataset.open(weights).names
    assert list(result) == [str(weights / name) for name in names]
    assert [found[0]["name"] for found in result.values()] == list(names)
    one = facts("neighbours", weights / "p7", "--space", space, "-n", 1)["neighbours"]
    assert one == {str(weights / "p7"): result[str(weights / "p7")]}


def test_import_published(tmp_path):
    published(tmp_path / "files of the authors")
    result = facts(
        *("import-published", tmp_path / "files of the authors", "--out", tmp_path / "space"),
        *("--components", 10, "--alpha", 13, "--base", "me/base", "--dtype", "float16"),
    )
    assert (result["models"], result["components"], result["known_components"]) == (25, 10, 8)
    space = WeightSpace.from_pretrained(tmp_path / "space")
    assert (space.layout.alpha, space.layout.base) == (13, "me/base")
    assert space.components.dtype == torch.float16
    run("import-published", tmp_path, "--out", tmp_path / "x", code=1)
    run("import-published", tmp_path / "files of the authors", code=2)


def test_import_published_weights_as_a_dataset(tmp_path):
    published(tmp_path / "files of the authors", weights=True)
    result = facts(
        *("import-published", tmp_path / "files of the authors"),
        *("--dataset", tmp_path / "loras", "--out", tmp_path / "space"),
    )
    assert (result["dataset"], result["path"]) == (str(tmp_path / "loras"), str(tmp_path / "space"))
    assert len(WeightDataset.open(tmp_path / "loras")) == result["models"] == 25


def test_info_and_verify_of_space_and_model(tmp_path, space):
    result = facts("info", space)
    expected = {"models": 40, "numbers": 20, "components": 6, "labels": ["Bald"], "of": "weights"}
    assert expected == {key: result[key] for key in expected}
    assert 0 < result["captured_variance"] <= 1
    run("verify", space)
    run("sample", space, "-n", 1, "--seed", 2, "--out", tmp_path)
    model = tmp_path / "sample-2-0000.safetensors"
    about = facts("info", model)
    assert about["origin"]["seed"] == 2
    assert (about["components"], about["space"], about["numbers"]) == (6, result["space"], 20)
    run("verify", model)
    (space / "models.parquet").unlink()
    assert "models.parquet is missing" in run("verify", space, code=1).output
    (space / "config.json").write_text("{")
    run("verify", space, code=1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r'"captured_variance": [\d.]+', '"captured_variance": [1, 2]'),
        (r'"captured_variance": [\d.]+', '"captured_variance": "most"'),
        (r'"someone/base"', r'"\\ud800"'),
        (r'"alpha": 27.0', r'"alpha": "much"'),
        (r'"metadata": \{', '"metadata": [{'),
    ],
)
def test_info_on_a_damaged_config_is_one_line(space, old, new):
    text = (space / "config.json").read_text()
    damaged = re.sub(old, new, text)
    assert damaged != text
    (space / "config.json").write_text(damaged)
    for json_flag in ([], ["--json"]):
        result = run("info", space, *json_flag, code=1)
        assert len(result.stderr.splitlines()) == 1


def test_named_pipe_in_place_of_the_config_does_not_hang(tmp_path, space):
    run("sample", space, "-n", 1, "--out", tmp_path)
    point = tmp_path / "sample-0-0000.safetensors"
    (space / "config.json").unlink()
    os.mkfifo(space / "config.json")
    edit = ("edit", point, "--set", "Bald=1", "--space", space, "--out", tmp_path / "edited")
    export = ("export", point, "--format", "peft", "--space", space, "--out", tmp_path / "x")
    for command in (
        ("info", space),
        ("sample", space, "--out", tmp_path),
        ("neighbours", point, "--space", space),
        edit,
        export,
    ):
        result = run(*command, code=1)
        assert "it has no config.json" in result.stderr
        assert len(result.stderr.splitlines()) == 1
