"""The space: points and models, saving and loading, neighbours, what does not fit."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file as safetensors_file
from safetensors.torch import save_file

from weights2weights import space as package
from weights2weights.dataset import WeightDataset
from weights2weights.errors import W2WError
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import Model
from weights2weights.pca import TensorBlocks, fit_pca
from weights2weights.space import WeightSpace, _integers, find_space, verify_space

LAYOUT = WeightLayout(
    (LoRAModule("up.attn1.to_q", 7, 5), LoRAModule("up.attn1.to_v", 7, 5)), 2, 27.0, "someone/base"
)
NUMBERS, MODELS = LAYOUT.num_parameters, 30
NAMES = tuple(f"person {i}" for i in range(MODELS))


def rows(count: int = MODELS, seed: int = 0) -> torch.Tensor:
    """Models that differ in six ways, and a little in all."""
    generator = torch.Generator().manual_seed(seed)
    ways = torch.randn(6, NUMBERS, generator=torch.Generator().manual_seed(99))
    strengths = torch.randn(count, 6, generator=generator) * torch.arange(6, 0, -1)
    return strengths @ ways + 0.1 * torch.randn(count, NUMBERS, generator=generator) + 3


def labels() -> pandas.DataFrame:
    return pandas.DataFrame(
        {
            "Bald": [1, -1] * (MODELS // 2),
            "Young": [0, 1, None] * (MODELS // 3),
            "age": np.linspace(20, 80, MODELS),
        },
        index=list(NAMES),
    )


def fitted(components: int = 6, **options) -> WeightSpace:
    return WeightSpace.fit_blocks(
        TensorBlocks(rows(), 7),
        components,
        layout=LAYOUT,
        names=NAMES,
        labels=labels(),
        base_hash="abc",
        **options,
    )


@pytest.fixture
def space() -> WeightSpace:
    return fitted()


@pytest.fixture
def dataset(tmp_path) -> WeightDataset:
    dataset = WeightDataset.create(tmp_path / "weights", LAYOUT, names=NAMES, base_hash="abc")
    dataset.append(NAMES, rows(), labels=labels())
    return dataset


def assert_same(one: WeightSpace, other: WeightSpace) -> None:
    for name in ("mean", "std", "components", "coefficients", "variances"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.names, one.layout, one.base_hash) == (other.names, other.layout, other.base_hash)
    pandas.testing.assert_frame_equal(one.labels, other.labels)
    assert one.facts == other.facts
    assert one.hash == other.hash


# Points and models.


def test_follows_the_formulas(space):
    weights = rows(4, seed=1)
    standard = (weights - space.mean) / space.std
    torch.testing.assert_close(space.project(weights), standard @ space.components.T)
    points = torch.randn(4, 6)
    expected = points @ space.components * space.std + space.mean
    torch.testing.assert_close(space.to_weights(points), expected)
    torch.testing.assert_close(space.mean, rows().mean(0))
    torch.testing.assert_close(space.std, rows().std(0))


@given(st.integers(0, 1000), st.sampled_from([(), (1,), (3,), (2, 3)]), st.integers(1, 6))
@settings(max_examples=30)
def test_project_undoes_reconstruct(seed, batch, width):
    space = fitted()
    points = torch.randn(*batch, width, generator=torch.Generator().manual_seed(seed))
    again = space.project(space.to_weights(points))
    assert again.shape == (*batch, 6)
    torch.testing.assert_close(again[..., :width], points, rtol=1e-4, atol=1e-4)
    assert (again[..., width:].abs() < 1e-4).all()


def test_missing_coefficients_count_as_zero(space):
    points = torch.randn(3, 4)
    whole = torch.cat([points, torch.zeros(3, 2)], dim=1)
    torch.testing.assert_close(space.to_weights(points), space.to_weights(whole))


def test_any_float_dtype_comes_in_and_float32_goes_out(space):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert space.project(rows(2).to(dtype)).dtype == torch.float32
        assert space.to_weights(torch.zeros(2, 6, dtype=dtype)).dtype == torch.float32


def test_parts_of_converted_components_change_nothing(space, monkeypatch):
    half = space.to(dtype=torch.float16)
    whole = half.project(rows(3)), half.to_weights(torch.ones(3, 6))
    monkeypatch.setattr(package._space, "_CHUNK", 2 * NUMBERS)
    torch.testing.assert_close(half.project(rows(3)), whole[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(half.to_weights(torch.ones(3, 6)), whole[1])
    torch.testing.assert_close(whole[0], space.project(rows(3)), rtol=5e-3, atol=5e-3)


def test_outside_restores_and_residual_measures(space):
    inside = space.to_weights(torch.randn(3, 6))
    stranger = inside + torch.randn(3, NUMBERS)
    torch.testing.assert_close(
        space.to_weights(space.project(stranger)) + space.residual(stranger), stranger
    )
    assert (space.relative_residual(inside) < 1e-4).all()
    assert (space.relative_residual(stranger) > 0.05).all()
    assert (space.relative_residual(stranger) <= 1).all()
    assert space.relative_residual(stranger[0]).shape == ()


def test_gradients_reach_the_coefficients(space):
    points = torch.zeros(2, 6, requires_grad=True)
    space.to_weights(points).sum().backward()
    expected = (space.components * space.std).sum(1)
    torch.testing.assert_close(points.grad, expected.expand(2, 6))


def test_wrong_lengths_are_told(space):
    with pytest.raises(W2WError, match=rf"\[3, 9\]: expected a last axis of {NUMBERS}"):
        space.project(torch.zeros(3, 9))
    with pytest.raises(W2WError, match="7 coefficients: expected at most 6"):
        space.to_weights(torch.zeros(7))


def test_truncate_keeps_the_first_components(space):
    small = space.truncate(2)
    assert len(small) == 2
    assert small.coefficients.shape == (MODELS, 2)
    assert small.captured_variance < space.captured_variance
    assert small.hash == space.hash
    torch.testing.assert_close(small.project(rows(2)), space.project(rows(2))[:, :2])
    assert small.captured_variance == pytest.approx(
        fit_pca(TensorBlocks(rows()), 2).captured_variance, rel=1e-4
    )
    for count in (0, 7):
        with pytest.raises(W2WError, match=f"{count} components: expected 1 to 6"):
            space.truncate(count)


def test_shapes_must_fit():
    with pytest.raises(W2WError, match=rf"mean of shape \[3\]: expected \[{NUMBERS}\]"):
        WeightSpace(LAYOUT, torch.zeros(3), torch.ones(3), torch.eye(3)[:2])
    whole = torch.zeros(NUMBERS), torch.ones(NUMBERS), torch.eye(NUMBERS)[:2]
    with pytest.raises(W2WError, match=r"coefficients of shape \[4, 2\]: expected \[0, 2\]"):
        WeightSpace(LAYOUT, *whole, torch.zeros(4, 2))
    with pytest.raises(W2WError, match="coefficients on 3 components: expected at most 2"):
        WeightSpace(LAYOUT, *whole, torch.zeros(1, 3), ("one",))
    with pytest.raises(W2WError, match="rows of 3 numbers"):
        WeightSpace.fit_blocks(TensorBlocks(torch.randn(9, 3)), 2, layout=LAYOUT)


def test_space_without_models_still_projects():
    space = WeightSpace(LAYOUT, torch.zeros(NUMBERS), torch.ones(NUMBERS), torch.eye(NUMBERS)[:2])
    assert space.project(torch.arange(1.0 * NUMBERS)).tolist() == [0, 1]
    assert (len(space.names), len(space.coefficient_std), len(space.labels)) == (0, 0, 0)
    with pytest.raises(W2WError, match="no training models"):
        space.neighbours(torch.zeros(2))


# Fitting.


def test_fit_takes_everything_from_the_dataset(dataset, space):
    ours = WeightSpace.fit(dataset, 6)
    torch.testing.assert_close(ours.coefficients, space.coefficients, rtol=1e-5, atol=1e-5)
    assert_same(dataclasses.replace(ours, coefficients=space.coefficients), space)


def test_coefficients_spread_and_labels_are_those_of_the_models(space):
    torch.testing.assert_close(space.coefficients, space.project(rows()))
    torch.testing.assert_close(space.coefficient_std, space.coefficients.std(0))
    torch.testing.assert_close(space.coefficient_std**2, space.variances, rtol=1e-4, atol=1e-4)
    assert space.coefficient_mean.abs().max() < 1e-4
    assert space.labels["Bald"].tolist() == [True, False] * 15
    assert str(space.labels["Young"].dtype) == "boolean"
    assert space.labels["Young"].isna().sum() == 10
    assert str(space.labels["age"].dtype) == "Float64"
    assert 0.9 < space.captured_variance <= 1


def test_labels_are_put_into_the_order_of_the_models():
    table = labels().iloc[::-1]
    again = WeightSpace.fit_blocks(
        TensorBlocks(rows()), 3, layout=LAYOUT, names=NAMES, labels=table.iloc[:-1]
    )
    assert again.labels["age"].iloc[1] == labels()["age"].iloc[1]
    assert again.labels["age"].isna().tolist() == [True] + [False] * 29


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pandas.DataFrame({"x": [1, 2]}, index=["a", "a"]), "name 'a' appears twice"),
        (pandas.DataFrame([[1, 2]], index=["a"], columns=["x", "x"]), "label 'x' appears twice"),
    ],
)
def test_labels_that_cannot_be_kept(table, message):
    with pytest.raises(W2WError, match=message):
        WeightSpace.fit_blocks(
            TensorBlocks(torch.randn(2, NUMBERS)), 1, layout=LAYOUT, names="ab", labels=table
        )


# Neighbours.


def test_neighbours_are_those_of_scikit_learn(space):
    from sklearn.metrics.pairwise import cosine_similarity

    points = torch.randn(4, 6)
    found = space.neighbours(points, 3)
    expected = np.sort(cosine_similarity(points, space.coefficients), axis=1)[:, :-4:-1]
    np.testing.assert_allclose(found.similarities, expected, rtol=1e-5)
    name, similarity = found.of(2)[0]
    assert similarity == pytest.approx(float(expected[2, 0]))
    assert name == NAMES[int(found.indices[2, 0])]


def test_a_training_model_is_its_own_neighbour(space):
    found = space.neighbours(space.coefficients, 1)
    assert found.indices[:, 0].tolist() == list(range(MODELS))
    torch.testing.assert_close(found.similarities, torch.ones(MODELS, 1))
    assert space.neighbours(space.coefficients[0], 99).similarities.shape == (MODELS,)
    batch = space.neighbours(space.coefficients.reshape(5, 6, 6), 2)
    assert batch.indices.shape == (5, 6, 2)
    assert batch.of(7)[0][0] == NAMES[7]


# Model files.


def test_point_becomes_a_model_and_back(space):
    point = torch.randn(6)
    model = space.model(point, {"verb": "test"})
    assert torch.equal(space.coefficients_of(model), point)
    torch.testing.assert_close(space.weights_of(model), space.to_weights(point))
    assert (model.space, model.base_hash) == (space.hash, "abc")


def test_truncated_space_takes_the_models_of_the_whole_one_and_back(space):
    small, point = space.truncate(2), torch.randn(6)
    assert torch.equal(small.coefficients_of(space.model(point, {})), point[:2])
    padded = space.coefficients_of(small.model(point[:2], {}))
    assert torch.equal(padded, torch.cat([point[:2], torch.zeros(4)]))
    with pytest.raises(W2WError, match="truncated to 2 components"):
        small.weights_of(space.model(point, {}))


def test_lora_is_projected_and_kept_whole(space):
    weights = rows(1, seed=3)[0]
    model = Model(LAYOUT, weights=weights)
    torch.testing.assert_close(space.coefficients_of(model), space.project(weights))
    assert torch.equal(space.weights_of(model), weights)


def test_model_of_another_space_or_layout_is_refused(space):
    other = Model(LAYOUT, coefficients=torch.zeros(6), space="f" * 16)
    for use in (space.coefficients_of, space.weights_of):
        with pytest.raises(W2WError, match="a model of space ffffffffffffffff"):
            use(other)
        layout = WeightLayout((LoRAModule("to_q", 3, 3),), 1, 1.0)
        with pytest.raises(W2WError, match="the model has another layout"):
            use(Model(layout, weights=torch.zeros(6)))
        with pytest.raises(W2WError, match=r"another base \(hash xyz\): expected abc"):
            use(Model(LAYOUT, weights=torch.zeros(NUMBERS), base_hash="xyz"))


# Keeping.


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16], ids=str)
def test_comes_back_from_disk_as_it_was(space, tmp_path, dtype):
    folder = space.save_pretrained(tmp_path / "a space", dtype=dtype)
    again = WeightSpace.from_pretrained(folder)
    assert again.hash == space.hash
    if dtype == torch.float16:
        assert again.components.dtype == again.coefficients.dtype == torch.float16
        torch.testing.assert_close(again.components.float(), space.components, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(
            again.project(rows(2)), space.project(rows(2)), atol=3e-2, rtol=0
        )
    else:
        assert_same(again, space)
    assert verify_space(folder) == []


def test_int8_keeps_the_hash_and_rounds_by_half_a_unit(space, tmp_path, monkeypatch):
    monkeypatch.setattr(package._store, "_CHUNK_BYTES", 3 * 4 * NUMBERS)  # written in parts
    components = space.components.clone()
    components[0, :3] = torch.tensor([1e-9, -1e-9, 0.0])  # too small for a unit; signs stay
    exact = dataclasses.replace(space, components=components)
    folder = exact.save_pretrained(tmp_path, dtype=torch.int8)
    again = WeightSpace.from_pretrained(folder)
    assert verify_space(folder) == []
    assert again.hash == exact.hash != space.hash
    assert again.components.dtype == again.coefficients.dtype == torch.float16
    unit = components.abs().amax(1, keepdim=True) / 127
    moved = (again.components.float() - components).abs()
    seen = components.abs() >= unit / 2  # smaller ones become a whole unit, to keep their sign
    assert (moved <= unit * torch.where(seen, 0.55, 1.01)).all()  # 0.05 by float16 in memory
    stored = safetensors_file(folder / "space.safetensors")
    assert stored["components"].dtype == torch.int8
    assert stored["components"].abs().amax(1).tolist() == [127] * len(space)
    torch.testing.assert_close(stored["component_scales"], unit[:, 0])


def test_int4_keeps_the_hash_and_takes_the_best_of_its_steps(space, tmp_path, monkeypatch):
    monkeypatch.setattr(package._store, "_CHUNK_BYTES", 3 * 4 * NUMBERS)  # written in parts
    components = space.components.clone()
    components[0, :3] = torch.tensor([1e-9, -1e-9, 0.0])
    exact = dataclasses.replace(space, components=components)
    folder = exact.save_pretrained(tmp_path, dtype=torch.int4)
    again = WeightSpace.from_pretrained(folder)
    assert verify_space(folder) == []
    assert again.hash == exact.hash
    stored = safetensors_file(folder / "space.safetensors")
    assert stored["components"].dtype == torch.uint8
    assert stored["components"].shape == (len(space), -(-NUMBERS // 2))
    # read here anew, from what the format says
    halves = torch.empty(len(space), 2 * stored["components"].shape[1])
    halves[:, ::2], halves[:, 1::2] = stored["components"] % 16, stored["components"] // 16
    levels = halves[:, :NUMBERS] - 8 + 0.5
    told = levels * stored["component_scales"][:, None]
    torch.testing.assert_close(again.components.float(), told, atol=0, rtol=1e-3)
    assert ((told - components).norm(dim=1) < 0.13 * components.norm(dim=1)).all()
    for factor in (0.9, 1.1):  # no other step is better
        step = stored["component_scales"][:, None] * factor
        other = ((components / step).floor().clamp(-8, 7) + 0.5) * step
        slack = 1.01 * (other - components).norm(dim=1)
        assert ((told - components).norm(dim=1) <= slack).all()


def test_numbers_of_an_odd_row_fit_into_half_bytes():
    rows = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    scales = _integers.scales_of(rows, torch.int4)
    packed = _integers.to_integers(rows, scales, torch.int4)
    assert packed.shape == (3, 4)
    again = _integers.from_integers(packed, scales, 7).float()
    inside = rows.abs() <= 8 * scales[:, None]
    assert ((again - rows).abs() <= 0.501 * scales[:, None])[inside].all()
    assert torch.equal(again.sign(), rows.sign())


def test_int4_stores_again_what_it_stored(space, tmp_path):
    first = WeightSpace.from_pretrained(space.save_pretrained(tmp_path / "1", dtype=torch.int4))
    again = WeightSpace.from_pretrained(first.save_pretrained(tmp_path / "2", dtype=torch.int4))
    torch.testing.assert_close(again.components, first.components, atol=0, rtol=2e-3)


def test_int4_gives_way_where_numbers_never_vary(space, tmp_path):
    components = space.components.clone()
    components[:, 5] = 0.0
    still = dataclasses.replace(space, components=components)
    again = WeightSpace.from_pretrained(still.save_pretrained(tmp_path, dtype=torch.int4))
    assert not again.components[:, 5].any()
    stored = safetensors_file(tmp_path / "space.safetensors")
    assert stored["components"].dtype == torch.int8


def test_a_mean_in_integers_is_refused(space, tmp_path):
    path = space.save_pretrained(tmp_path, dtype=torch.int4) / "space.safetensors"
    save_file(safetensors_file(path) | {"mean": torch.zeros(NUMBERS, dtype=torch.uint8)}, path)
    told = rf"holds mean as U8 \[{NUMBERS}\]: expected F32 or F16 \[{NUMBERS}\]"
    with pytest.raises(W2WError, match=told):
        WeightSpace.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int4])
def test_integers_give_way_where_they_would_change_the_hash(space, tmp_path, dtype):
    components = space.components.clone()
    components[0, 0] = -0.0
    exact = dataclasses.replace(space, components=components)
    again = WeightSpace.from_pretrained(exact.save_pretrained(tmp_path, dtype=dtype))
    assert again.hash == exact.hash
    assert torch.equal(again.components, components.half())


@pytest.mark.parametrize("dtype", [torch.int8, torch.int4])
def test_integers_and_scales_come_together(space, tmp_path, dtype):
    path = space.save_pretrained(tmp_path, dtype=dtype) / "space.safetensors"
    tensors = safetensors_file(path)
    for broken in (
        {name: tensor for name, tensor in tensors.items() if name != "component_scales"},
        tensors | {"components": space.components},
    ):
        save_file(broken, path)
        told = "expected component_scales beside components in integers, and only there"
        with pytest.raises(W2WError, match=told):
            WeightSpace.from_pretrained(tmp_path)


def test_saving_twice_gives_the_same_bytes_and_replaces(space, tmp_path):
    one, two = space.save_pretrained(tmp_path / "1"), space.save_pretrained(tmp_path / "2")
    space.truncate(2).save_pretrained(two)
    assert len(WeightSpace.from_pretrained(two)) == 2
    space.save_pretrained(two)
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_reference_library_reads_the_tensors(space, tmp_path):
    folder = space.save_pretrained(tmp_path)
    tensors = safetensors_file(folder / "space.safetensors")
    assert set(tensors) == {"mean", "std", "variances", "components"}
    assert torch.equal(tensors["components"], space.components)
    table = pandas.read_parquet(folder / "models.parquet")
    assert table.columns.tolist() == ["name", "Bald", "Young", "age"]


def test_transposed_components_are_written_in_parts(space, tmp_path, monkeypatch):
    monkeypatch.setattr(package._store, "_CHUNK_BYTES", 3 * 4 * NUMBERS)
    columns = space.components.T.contiguous()
    view = WeightSpace(LAYOUT, space.mean, space.std, columns.T)
    again = WeightSpace.from_pretrained(view.save_pretrained(tmp_path))
    assert torch.equal(again.components, space.components)


def test_numbers_too_large_for_float16_stay_float32(space, tmp_path):
    large = dataclasses.replace(space, coefficients=space.coefficients * 1e6)
    again = WeightSpace.from_pretrained(large.save_pretrained(tmp_path, dtype=torch.float16))
    assert again.coefficients.dtype == torch.float32
    assert again.components.dtype == torch.float16


def test_card_tells_what_is_known_and_no_more(space, tmp_path):
    card = (space.save_pretrained(tmp_path) / "README.md").read_text()
    assert 'base_model: "someone/base"' in card
    assert "library_name: weights2weights" in card
    for text in (space.hash, LAYOUT.hash, "Bald, Young, age", "rank 2, alpha 27"):
        assert text in card
    assert "license" not in card
    assert str(tmp_path) not in card


def damage(folder: Path, name: str, how) -> None:
    path = folder / name
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("config.json", lambda raw: raw[:50], "is not valid JSON"),
        ("config.json", lambda raw: b"{}", "is not that of a space"),
        (
            "config.json",
            lambda raw: raw.replace(b'"format_version": 1', b'"format_version": 9'),
            "format version 9: expected 1",
        ),
        ("config.json", lambda raw: raw.replace(b'"facts"', b'"fact"'), "lacks facts"),
        (
            "config.json",
            lambda raw: raw.replace(b'"numbers": 48', b'"numbers": 49'),
            "contradicts its layout",
        ),
        ("space.safetensors", lambda raw: raw[:-9], "is not valid safetensors"),
        ("space.safetensors", lambda raw: raw.replace(b'"std"', b'"sad"'), "expected mean, std"),
        ("models.safetensors", lambda raw: raw[:4], "bytes long"),
        ("models.parquet", lambda raw: raw[:-9], "cannot be read"),
    ],
)
def test_damaged_folder_is_one_clear_line(space, tmp_path, name, how, message):
    folder = space.save_pretrained(tmp_path)
    damage(folder, name, how)
    with pytest.raises(W2WError, match=message) as error:
        WeightSpace.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_verify_finds_flipped_bits_and_missing_files(space, tmp_path):
    folder = space.save_pretrained(tmp_path)
    damage(folder, "space.safetensors", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))
    (folder / "models.parquet").unlink()
    problems = verify_space(folder)
    assert len(problems) == 2
    assert "other bytes" in problems[0]
    assert "missing" in problems[1]


def test_verify_finds_numbers_that_are_not_finite(space, tmp_path):
    components = space.components.clone()
    components[1, 1] = torch.nan
    broken = dataclasses.replace(space, components=components)
    assert verify_space(broken.save_pretrained(tmp_path)) == [
        "components hold NaN or infinite numbers"
    ]


def test_unfinished_save_is_no_space(space, tmp_path, monkeypatch):
    folder = space.save_pretrained(tmp_path)

    def full(*_):
        raise W2WError("disk full")

    monkeypatch.setattr(package._store, "write_labels", full)
    with pytest.raises(W2WError, match="disk full"):
        space.truncate(3).save_pretrained(folder)
    with pytest.raises(W2WError, match="holds no space"):
        WeightSpace.from_pretrained(folder)


def test_what_is_no_space_is_told(tmp_path):
    for source in (tmp_path / "nothing", "nowhere", "a/b/c"):
        with pytest.raises(W2WError, match="expected an existing folder"):
            find_space(source)
    with pytest.raises(W2WError, match="holds no space"):
        WeightSpace.from_pretrained(tmp_path)


def test_hub_that_cannot_be_reached_is_told(tmp_path):
    with pytest.raises(W2WError, match="cannot be fetched from the hub"):
        WeightSpace.from_pretrained("someone/space", cache_dir=tmp_path, local_files_only=True)


def test_push_uploads_a_whole_space(space, tmp_path, monkeypatch):
    import huggingface_hub

    calls = {}

    class Hub:
        def __init__(self, token=None):
            calls["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            calls["repo"] = (repo_id, private, exist_ok)
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, repo_id, folder_path, commit_message):
            calls["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            calls["space"] = WeightSpace.from_pretrained(folder_path).hash
            return "https://hub/commit"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert space.push_to_hub("me/mine", private=True, token="t") == "https://hub/commit"
    assert calls["repo"] == ("me/mine", True, True)
    assert calls["token"] == "t"
    assert calls["space"] == space.hash
    assert calls["files"] == [
        "README.md",
        "config.json",
        "models.parquet",
        "models.safetensors",
        "space.safetensors",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")
def test_loading_maps_the_file(tmp_path):
    """Of 32 MB of components, nothing is in memory until it is used."""
    layout = WeightLayout((LoRAModule("to_q", 60_000, 40_000),), 1, 1.0)
    components = torch.zeros(80, layout.num_parameters)
    space = WeightSpace(layout, torch.zeros(100_000), torch.ones(100_000), components)
    folder = space.save_pretrained(tmp_path)
    code = f"""
import resource, sys
import pandas, pyarrow.parquet, safetensors.torch
from weights2weights.space import WeightSpace
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
space = WeightSpace.from_pretrained({str(folder)!r})
print(peak() - before)
"""
    grown = int(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    )
    assert grown < 20


def test_config_says_what_it_should(space, tmp_path):
    config = json.loads((space.save_pretrained(tmp_path) / "config.json").read_text())
    assert config["components"] == 6
    assert config["models"] == MODELS
    assert config["labels"] == ["Bald", "Young", "age"]
    assert config["facts"]["captured_variance"] == space.captured_variance
