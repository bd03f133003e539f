"""Models are understood in whatever form they come, and what cannot be is refused in one line."""

import numpy as np
import pytest
import torch

from weights2weights.dataset import WeightDataset
from weights2weights.errors import W2WError
from weights2weights.exports import save_lora
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import Model, save_model
from weights2weights.opening import as_models, load_models, one_model, stack_models
from weights2weights.space import WeightSpace

LAYOUT = WeightLayout((LoRAModule("up.attn1.to_q", 12, 8),), 1, 27.0, "someone/base")
D = LAYOUT.num_parameters


def make_space(seed: int = 0, components: int = 3) -> WeightSpace:
    generator = torch.Generator().manual_seed(seed)
    rows, _ = torch.linalg.qr(torch.randn(D, components, generator=generator))
    mean = torch.randn(D, generator=generator)
    return WeightSpace(LAYOUT, mean, torch.ones(D), rows.T.contiguous(), base_hash="cafe")


@pytest.fixture
def space() -> WeightSpace:
    return make_space()


POINTS = torch.arange(6.0).view(2, 3)


def test_points_come_in_any_form(space, tmp_path):
    expected = space.to_weights(POINTS)
    folder = space.save_pretrained(tmp_path / "space")
    models = [space.model(point, {}) for point in POINTS]
    files = [save_model(tmp_path / f"{i}.safetensors", one) for i, one in enumerate(models)]
    for given in (
        POINTS,
        POINTS.double().numpy(),
        list(POINTS),
        models,
        files,
        [models[0], files[1]],
    ):
        layout, weights = stack_models(given, space=space, base_hash="cafe")
        torch.testing.assert_close(weights, expected)
        assert layout == LAYOUT
        assert {model.base_hash for model in as_models(given, space=space)} == {"cafe"}
    assert torch.equal(stack_models(files, space=folder)[1], expected)
    assert torch.equal(stack_models(files, space=str(folder))[1], expected)
    assert [model.name for model in as_models(files)] == ["0", "1"]
    assert torch.equal(stack_models(POINTS[0], space=space)[1], expected[:1])


def test_a_point_may_be_shorter_than_its_space_and_longer_than_a_truncated_one(space):
    short = stack_models(POINTS[:, :2], space=space)[1]
    padded = torch.cat([POINTS[:, :2], torch.zeros(2, 1)], 1)
    torch.testing.assert_close(short, space.to_weights(padded))
    part = space.truncate(2)
    with pytest.raises(W2WError, match="3 coefficients, but the space was truncated to 2"):
        stack_models(space.model(POINTS[1], {}), space=part)


def test_weights_come_in_any_form(space, tmp_path):
    weights = torch.randn(2, D, generator=torch.Generator().manual_seed(1))
    dataset = WeightDataset.create(tmp_path / "loras", LAYOUT)
    for name, row in zip(("ada", "eve"), weights, strict=True):
        dataset.write(name, row)
    models = [Model(LAYOUT, weights=row) for row in weights]
    for options in ({"layout": LAYOUT}, {"space": space}):
        for given in (weights, weights.numpy(), weights.double(), models, tmp_path / "loras"):
            assert torch.equal(stack_models(given, **options)[1], weights)
    named = load_models(tmp_path / "loras")
    assert [model.name for model in named] == ["ada", "eve"]
    assert one_model(tmp_path / "loras" / "eve").name == "eve"
    with pytest.raises(W2WError, match=r"loras holds 2 models: expected one, as .*loras/NAME"):
        one_model(tmp_path / "loras")
    with pytest.raises(W2WError, match="2 models: expected one"):
        one_model(weights, layout=LAYOUT)


def test_a_folder_of_files_is_all_of_them(space, tmp_path):
    save_model(tmp_path / "a.safetensors", space.model(POINTS[0], {}))
    assert [model.name for model in load_models(tmp_path)] == ["a"]
    save_lora(tmp_path / "b.safetensors", POINTS[1], space=space, format="diffusers")
    assert [model.name for model in load_models(tmp_path)] == ["a", "b"]
    assert one_model(tmp_path / "b").name == "b"
    torch.testing.assert_close(stack_models(tmp_path, space=space)[1], space.to_weights(POINTS))


def test_a_folder_of_loras_in_folders_is_a_dataset(tmp_path):
    weights = torch.randn(2, D)
    for name, row in zip(("ada", "eve"), weights, strict=True):
        save_lora(tmp_path / name, row, layout=LAYOUT, format="peft")
    assert [model.name for model in load_models(tmp_path)] == ["ada", "eve"]
    assert torch.equal(stack_models(tmp_path)[1], WeightDataset.open(tmp_path)[:])


class Result:
    points = POINTS


def test_a_result_with_points_is_taken_as_its_points(space):
    assert torch.equal(stack_models(Result(), space=space)[1], space.to_weights(POINTS))


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (POINTS, {}, "does not say what it holds: give space=… for points, layout=… for weights"),
        (POINTS, {"layout": LAYOUT}, r"weights of shape \[3\]: expected \[20\]"),
        (torch.zeros(2, 7), {"space": make_space()}, "at most 3, points of the space, or of 20"),
        (torch.zeros(2, 2, 3), {"space": make_space()}, r"float32 of shape \[2, 2, 3\]"),
        (torch.zeros(0, 3), {"space": make_space()}, r"shape \[0, 3\]"),
        (np.zeros((2, 3), np.int64), {"space": make_space()}, "int64"),
        (torch.zeros(D), {"space": make_space(components=D)}, "may be points or weights"),
        ([], {"space": make_space()}, "no models; expected at least one"),
        (torch.full((D,), torch.nan), {"layout": LAYOUT}, "NaN or infinite"),
    ],
)
def test_arrays_that_fit_nothing_are_refused(models, options, message):
    with pytest.raises(W2WError, match=message):
        as_models(models, **options)


def test_points_of_another_space_name_both_hashes(space):
    other = make_space(seed=1)
    model = space.model(POINTS[0], {})
    with pytest.raises(W2WError, match=f"space {space.hash}, not of the given one .{other.hash}"):
        stack_models(model, space=other)
    with pytest.raises(W2WError, match=f"is a point of space {space.hash}, which it needs"):
        stack_models(model)


def test_models_of_several_layouts_or_bases_do_not_stack(space):
    louder = WeightLayout(LAYOUT.modules, 1, 1.0)
    one = Model(LAYOUT, weights=torch.zeros(D), base_hash="cafe", name="ada")
    with pytest.raises(W2WError, match="eve has another layout: alpha 1, expected 27"):
        stack_models([one, Model(louder, weights=torch.zeros(D), name="eve")])
    with pytest.raises(W2WError, match="eve was made for another base"):
        stack_models([one, Model(LAYOUT, weights=torch.zeros(D), base_hash="beef", name="eve")])
    with pytest.raises(W2WError, match="ada was made for another base"):
        stack_models(one, base_hash="beef")


@pytest.mark.parametrize("name", ["absent", "absent/ada", "empty"])
def test_paths_without_models_are_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(W2WError, match=name) as error:
        load_models(tmp_path / name)
    assert "\n" not in str(error.value)
