"""The verbs of directions, edits and merges: flags arrive, files come out, failures are a line."""

import json

import pandas
import pytest
import torch
from click.testing import CliRunner

from weights2weights import _shipped, cli
from weights2weights.dataset import WeightDataset
from weights2weights.directions import edit, find_direction, find_directions
from weights2weights.errors import W2WError
from weights2weights.formats import write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.merging import cosine, merge_weights
from weights2weights.models import Model, load_model, save_model
from weights2weights.space import WeightSpace, find_space

LAYOUT = WeightLayout((LoRAModule("up.attn1.to_q", 12, 8),), 1, 27.0, "someone/base")
NAMES = [f"p{row}" for row in range(60)]


def run(*args, code: int = 0):
    result = CliRunner().invoke(cli.main, list(map(str, args)), prog_name="w2w")
    assert result.exit_code == code, result.output + result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
    return result


def facts(*args) -> dict:
    return json.loads(run(*args, "--json").stdout)


@pytest.fixture(scope="module")
def space() -> WeightSpace:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 6, generator=generator) * torch.arange(6, 0, -1)
    noise = torch.randn(60, 3, generator=generator)
    labels = pandas.DataFrame(
        {
            "Male": rows[:, 0] + rows[:, 1] + noise[:, 0] > 0,
            "Bald": rows[:, 1] - rows[:, 2] + noise[:, 1] > 2,
            "Age": 40 + rows[:, 3] + noise[:, 2],
            "All": [1] * 60,
        },
        index=NAMES,
    )
    components, _ = torch.linalg.qr(torch.randn(20, 6, generator=generator))
    mean, std = torch.randn(20, generator=generator), torch.rand(20, generator=generator) + 0.1
    bare = WeightSpace(LAYOUT, mean, std, components.T.contiguous(), base_hash="cafe")
    return bare.with_models(rows, NAMES, labels)


@pytest.fixture
def folder(space, tmp_path):
    return space.save_pretrained(tmp_path / "space")


@pytest.fixture
def point(space, tmp_path):
    return save_model(tmp_path / "eve.safetensors", space.model(torch.ones(6), {"verb": "sample"}))


def test_directions_tells_all_of_every_label(space, folder):
    told = facts("directions", folder)
    assert list(told["directions"]) == ["Male", "Bald", "Age"]
    assert list(told["left_out"]) == ["All"]
    assert "one class only" in told["left_out"]["All"]
    found = find_directions(space, ["Male", "Bald", "Age"])
    for name, direction in found.items():
        row = told["directions"][name]
        assert (row["auc"], row["r2"]) == (direction.auc, direction.r2)
        assert (row["positives"], row["negatives"]) == (direction.positives, direction.negatives)
        assert row["std"] == pytest.approx(direction.std)
        assert row["range"] == pytest.approx(direction.range)
        assert set(row["cosines"]) == {*found} - {name}
    assert told["mean_auc"] == pytest.approx((found["Male"].auc + found["Bald"].auc) / 2)
    between = [abs(c) for row in told["directions"].values() for c in row["cosines"].values()]
    assert told["entanglement"] == pytest.approx(sum(between) / 6)
    text = run("directions", folder).stdout
    assert f"Male   AUC {found['Male'].auc:.3f}" in text
    assert f"Age    R² {found['Age'].r2:.3f}" in text


def test_every_flag_of_directions_arrives(space, folder, tmp_path):
    flags = ("--keep", "Male", "--method", "ridge", "--components", 4, "--seed", 3)
    told = facts("directions", folder, "--label", "Bald", *flags)
    options = {"method": "ridge", "components": 4, "seed": 3}
    expected = find_direction(space, "Bald", keep=["Male"], **options)
    assert list(told["directions"]) == ["Bald"]
    assert told["directions"]["Bald"]["auc"] == expected.auc
    assert told["directions"]["Bald"]["keep"] == ["Male"]
    table = tmp_path / "own.csv"
    pandas.DataFrame({"name": NAMES, "Tall": [i % 2 for i in range(60)]}).to_csv(table, index=False)
    assert list(facts("directions", folder, "--labels", table)["directions"]) == ["Tall"]
    assert "no label 'Bold'" in run("directions", folder, "--label", "Bold", code=1).stderr
    assert "one class only" in run("directions", folder, "--label", "All", code=1).stderr


def test_edit_of_a_point(space, folder, point, tmp_path):
    out = tmp_path / "edited.safetensors"
    flags = ("--set", "Bald=2", "--set", "Age=-1.5", "--keep", "Male", "--space", folder)
    told = facts("edit", point, *flags, "--out", out)
    found = find_directions(space, ["Bald", "Age"], keep=["Male"])
    model = load_model(out)
    expected = edit(torch.ones(6), {found["Bald"]: 2, found["Age"]: -1.5})
    torch.testing.assert_close(model.coefficients, expected)
    assert model.weights is None
    assert model.space == space.hash
    assert model.base_hash == "cafe"
    origin = model.origin
    assert (origin["verb"], origin["set"]) == ("edit", {"Bald": 2.0, "Age": -1.5})
    assert (origin["keep"], origin["model"]) == (["Male"], {"verb": "sample"})
    assert told["set"] == origin["set"]
    assert told["directions"]["Bald"]["auc"] == found["Bald"].auc
    assert told["relative_residual"] == 0
    assert told["seconds"] < 1
    # the other order gives the same file, but for what it says of its origin
    again = tmp_path / "again.safetensors"
    turned = ("--set", "Age=-1.5", "--set", "Bald=2", "--keep", "Male", "--space", folder)
    run("edit", point, *turned, "--out", again)
    assert torch.equal(load_model(again).coefficients, model.coefficients)


def test_edit_of_a_lora_outside_the_space(space, folder, tmp_path):
    weights = torch.randn(20, generator=torch.Generator().manual_seed(4))
    lora = write_lora_file(tmp_path / "lora.safetensors", weights, LAYOUT, "diffusers")
    out = tmp_path / "edited.safetensors"
    told = facts("edit", lora, "--set", "Male=paper", "--space", folder, "--out", out)
    found = find_direction(space, "Male")
    changes = {found: found.range[1]}
    model = load_model(out)
    torch.testing.assert_close(model.weights, edit(weights, changes, space=space))
    torch.testing.assert_close(
        model.coefficients, edit(space.project(weights), changes), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        space.residual(model.weights), space.residual(weights), rtol=0, atol=1e-4
    )
    assert told["relative_residual"] > 0.1
    assert model.origin["model"]["format"] == "diffusers"
    # and edited again, from its own file: back to where it was
    back = tmp_path / "back.safetensors"
    strength = -found.range[1]
    run("edit", out, "--set", f"Male={strength}", "--space", folder, "--out", back)
    torch.testing.assert_close(load_model(back).weights, weights, rtol=0, atol=1e-5)


def test_every_flag_of_edit_arrives(space, folder, point, tmp_path):
    table = tmp_path / "own.csv"
    tall = [float(value) for value in space.coefficients[:, 2]]
    pandas.DataFrame({"name": NAMES, "Tall": tall}).to_csv(table, index=False)
    flags = ("--method", "mean_difference", "--components", 5, "--seed", 2, "--labels", table)
    out = tmp_path / "e.safetensors"
    told = facts("edit", point, "--set", "Tall=1", *flags, "--space", folder, "--out", out)
    labels = pandas.DataFrame({"Tall": tall}, index=NAMES)
    options = {"method": "mean_difference", "components": 5, "seed": 2}
    (found,) = find_directions(space, labels=labels, **options).values()
    torch.testing.assert_close(load_model(out).coefficients, edit(torch.ones(6), {found: 1}))
    assert told["directions"]["Tall"]["components"] == 5
    assert told["directions"]["Tall"]["r2"] == pytest.approx(found.r2)


def test_edit_of_one_model_of_a_dataset(space, folder, tmp_path):
    rows = space.to_weights(space.coefficients[:2])
    dataset = WeightDataset.create(tmp_path / "weights", LAYOUT)
    for name, row in zip(NAMES, rows, strict=False):
        dataset.write(name, row)
    out = tmp_path / "e.safetensors"
    run("edit", dataset.path / "p1", "--set", "Male=1", "--space", folder, "--out", out)
    expected = edit(rows[1], {find_direction(space, "Male"): 1}, space=space)
    torch.testing.assert_close(load_model(out).weights, expected)
    told = run("edit", dataset.path, "--set", "Male=1", "--space", folder, "--out", out, code=1)
    assert "holds 2 models: expected one" in told.stderr


@pytest.mark.parametrize("change", ["Male", "Male=", "=2", "Male=much", "Male=nan", "Male=inf"])
def test_strengths_that_cannot_be_read(folder, point, tmp_path, change):
    out = tmp_path / "e.safetensors"
    told = run("edit", point, "--set", change, "--space", folder, "--out", out, code=2)
    assert "expected such as Bald=2" in told.stderr
    assert not out.exists()


def test_edit_fails_in_one_line(space, folder, point, tmp_path):
    out = ("--out", tmp_path / "e.safetensors")
    in_space = ("--space", folder)
    told = run("edit", point, "--set", "Bold=1", *in_space, *out, code=1)
    assert "did you mean Bald?" in told.stderr
    told = run("edit", point, "--set", "All=1", *in_space, *out, code=1)
    assert "one class only" in told.stderr
    run("edit", tmp_path / "nothing", "--set", "Bald=1", *in_space, *out, code=1)
    run("edit", point, "--set", "Bald=1", "--space", tmp_path / "nowhere", *out, code=1)
    run("edit", point, "--set", "Bald=1", "--set", "Bald=2", *in_space, *out, code=2)
    run("edit", point, "--set", "Bald=1", "--keep", "Bald", *in_space, *out, code=2)
    run("edit", point, *in_space, *out, code=2)
    elsewhere = Model(LAYOUT, coefficients=torch.ones(6), space="0123456789abcdef")
    elsewhere = save_model(tmp_path / "elsewhere.safetensors", elsewhere)
    told = run("edit", elsewhere, "--set", "Bald=1", *in_space, *out, code=1)
    assert "elsewhere is a point of space 0123456789abcdef, not of the given one" in told.stderr
    other = Model(LAYOUT, weights=torch.ones(20), base_hash="beef")
    other = save_model(tmp_path / "other.safetensors", other)
    told = run("edit", other, "--set", "Bald=1", *in_space, *out, code=1)
    assert "the model was made for another base (hash beef): expected cafe" in told.stderr


def test_merge_with_a_style(space, folder, point, tmp_path):
    layout = WeightLayout((LoRAModule("up.attn1.to_k", 12, 8), *LAYOUT.modules), 2, 4.0)
    weights = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(1))
    style = write_lora_file(tmp_path / "style.safetensors", weights, layout, "diffusers")
    out = tmp_path / "both.safetensors"
    told = facts("merge", point, "--with", style, "--weight", 0.8, "--space", folder, "--out", out)
    subject = space.to_weights(torch.ones(6))
    merged, expected = merge_weights(LAYOUT, subject, layout, weights, weight=0.8)
    model = load_model(out)
    assert torch.equal(model.weights, expected)
    assert model.layout == merged
    assert told["cosine"] == pytest.approx(cosine(LAYOUT, subject, layout, weights))
    assert (told["rank"], told["modules"], told["weight"]) == (3, 2, 0.8)
    assert told["numbers"] == merged.num_parameters
    # two LoRAs need no space
    run("merge", style, "--with", style, "--out", out)
    assert load_model(out).layout.rank == 4


def test_points_of_one_space_merge_only_when_asked_to_interpolate(space, folder, point, tmp_path):
    other = save_model(tmp_path / "adam.safetensors", space.model(3 * torch.ones(6), {}))
    out = ("--out", tmp_path / "m.safetensors")
    told = run("merge", point, "--with", other, *out, code=1)
    assert "only interpolate between them" in told.stderr
    assert "--interpolate" in told.stderr
    told = facts("merge", point, "--with", other, "--interpolate", 0.25, *out)
    assert told["interpolated"] == 0.25
    assert told["space"] == space.hash
    assert torch.equal(load_model(tmp_path / "m.safetensors").coefficients, torch.full((6,), 1.5))
    lora = write_lora_file(
        tmp_path / "l.safetensors", space.to_weights(3 * torch.ones(6)), LAYOUT, "diffusers"
    )
    run("merge", point, "--with", lora, "--interpolate", 0.25, "--space", folder, *out)
    between = load_model(tmp_path / "m.safetensors")
    torch.testing.assert_close(between.coefficients, torch.full((6,), 1.5), rtol=0, atol=1e-4)
    run("merge", point, "--with", other, "--interpolate", 0.5, "--weight", 1, *out, code=2)


def test_the_word_people_means_the_shipped_space(space, tmp_path, monkeypatch):
    """Also beside a folder of that name that is no space: `w2w sample --out people` makes one."""
    monkeypatch.setattr(_shipped, "WORLDS", tmp_path / "worlds")
    world = tmp_path / "worlds" / "people"
    (world / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people").mkdir()
    with pytest.raises(W2WError, match="'people' has no space in this installation"):
        find_space("people")
    shipped = space.save_pretrained(world / "space")
    assert find_space("people") == shipped
    own = space.save_pretrained(tmp_path / "people")
    assert find_space("people").resolve() == own
