"""The space: points and weights, fitting, neighbours, model files, saving and loading."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file as safetensors_file
from safetensors.torch import save_file

from weights2weights.dataset import WeightDataset
from weights2weights.errors import InputError, ResourceError
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import Model
from weights2weights.opening import stack_models
from weights2weights.pca import TensorBlocks, fit_pca
from weights2weights.space import WeightSpace, _space, _store, find_space, verify_space

LAYOUT = WeightLayout(
    (LoRAModule("up.attn1.to_q", 7, 5), LoRAModule("up.attn1.to_v", 7, 5)), 2, 27.0, "someone/base"
)
PARAMETERS, MODELS = LAYOUT.num_parameters, 30
NAMES = tuple(f"person {i:02d}" for i in range(MODELS))


def rows(count: int = MODELS, seed: int = 0) -> torch.Tensor:
    """Models that vary along six directions, plus a little noise."""
    generator = torch.Generator().manual_seed(seed)
    ways = torch.randn(6, PARAMETERS, generator=torch.Generator().manual_seed(99))
    strengths = torch.randn(count, 6, generator=generator) * torch.arange(6, 0, -1)
    return strengths @ ways + 0.1 * torch.randn(count, PARAMETERS, generator=generator) + 3


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
    dataset = WeightDataset.create(tmp_path / "weights", LAYOUT, base_hash="abc", labels=labels())
    for name, row in zip(NAMES, rows(), strict=True):
        dataset.write(name, row)
    return dataset


def assert_same(one: WeightSpace, other: WeightSpace) -> None:
    for name in ("mean", "std", "components", "coefficients"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.names, one.layout, one.base_hash) == (other.names, other.layout, other.base_hash)
    pandas.testing.assert_frame_equal(one.labels, other.labels)
    assert one.metadata == other.metadata
    assert one.hash == other.hash


# Points and weights.


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
def test_project_inverts_to_weights(seed, batch, width):
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


def test_any_float_dtype_is_accepted_and_float32_returned(space):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert space.project(rows(2).to(dtype)).dtype == torch.float32
        assert space.to_weights(torch.zeros(2, 6, dtype=dtype)).dtype == torch.float32


def test_converting_components_in_parts_changes_nothing(space, monkeypatch):
    half = space.to(dtype=torch.float16)
    whole = half.project(rows(3)), half.to_weights(torch.ones(3, 6))
    monkeypatch.setattr(_space, "_CHUNK", 2 * PARAMETERS)
    torch.testing.assert_close(half.project(rows(3)), whole[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(half.to_weights(torch.ones(3, 6)), whole[1])
    torch.testing.assert_close(whole[0], space.project(rows(3)), rtol=5e-3, atol=5e-3)


def test_residual_is_what_projection_loses(space):
    inside = space.to_weights(torch.randn(3, 6))
    stranger = inside + torch.randn(3, PARAMETERS)
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


def test_wrong_lengths_are_refused(space):
    with pytest.raises(InputError, match=rf"\[3, 9\], expected a last axis of {PARAMETERS}"):
        space.project(torch.zeros(3, 9))
    with pytest.raises(InputError, match="7 coefficients, expected at most 6"):
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
        with pytest.raises(InputError, match=f"components is {count}, expected 1 to 6"):
            space.truncate(count)


def test_shapes_must_match():
    with pytest.raises(InputError, match=rf"mean has shape \[3\], expected \[{PARAMETERS}\]"):
        WeightSpace(LAYOUT, torch.zeros(3), torch.ones(3), torch.eye(3)[:2])
    whole = torch.zeros(PARAMETERS), torch.ones(PARAMETERS), torch.eye(PARAMETERS)[:2]
    with pytest.raises(InputError, match=r"coefficients has shape \[4, 2\], expected \[0, 2\]"):
        WeightSpace(LAYOUT, *whole, torch.zeros(4, 2))
    with pytest.raises(InputError, match="coefficients on 3 components, expected at most 2"):
        WeightSpace(LAYOUT, *whole, torch.zeros(1, 3), ("one",))
    with pytest.raises(InputError, match="rows of 3 values"):
        WeightSpace.fit_blocks(TensorBlocks(torch.randn(9, 3)), 2, layout=LAYOUT)


def bare(components: int) -> WeightSpace:
    """A space without models, along the first parameters."""
    d = PARAMETERS
    return WeightSpace(LAYOUT, torch.zeros(d), torch.ones(d), torch.eye(d)[:components])


def test_space_without_models_still_projects():
    space = bare(2)
    assert space.project(torch.arange(1.0 * PARAMETERS)).tolist() == [0, 1]
    assert (len(space.names), len(space.coefficient_std), len(space.labels)) == (0, 0, 0)
    with pytest.raises(InputError, match="no training models"):
        space.neighbours(torch.zeros(2))


# Fitting.


def test_fit_takes_everything_from_the_dataset(dataset, space):
    ours = WeightSpace.fit(dataset, 6)
    torch.testing.assert_close(ours.coefficients, space.coefficients, rtol=1e-5, atol=1e-5)
    assert_same(dataclasses.replace(ours, coefficients=space.coefficients), space)


def test_coefficients_variances_and_labels_are_those_of_the_models(space):
    torch.testing.assert_close(space.coefficients, space.project(rows()))
    torch.testing.assert_close(space.coefficient_std, space.coefficients.std(0))
    variances = fit_pca(TensorBlocks(rows()), 6).variances
    torch.testing.assert_close(space.coefficient_std**2, variances, rtol=1e-4, atol=1e-4)
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
def test_labels_that_cannot_be_stored(table, message):
    with pytest.raises(InputError, match=message):
        WeightSpace.fit_blocks(
            TensorBlocks(torch.randn(2, PARAMETERS)), 1, layout=LAYOUT, names="ab", labels=table
        )


# Neighbours.


def test_neighbours_agree_with_scikit_learn(space):
    from sklearn.metrics.pairwise import cosine_similarity

    points = torch.randn(4, 6)
    found = space.neighbours(points, 3)
    expected = np.sort(cosine_similarity(points, space.coefficients), axis=1)[:, :-4:-1]
    np.testing.assert_allclose(found.similarities, expected, rtol=1e-5)


def test_a_training_model_is_its_own_neighbour(space):
    found = space.neighbours(space.coefficients, 1)
    assert found.indices[:, 0].tolist() == list(range(MODELS))
    torch.testing.assert_close(found.similarities, torch.ones(MODELS, 1))
    assert space.neighbours(space.coefficients[0], 99).similarities.shape == (MODELS,)
    batch = space.neighbours(space.coefficients.reshape(5, 6, 6), 2)
    assert batch.indices.shape == (5, 6, 2)
    assert batch.indices[1, 1, 0] == 7


# Model files.


def test_point_becomes_a_model_and_back(space):
    point = torch.randn(6)
    model = space.model(point, {"verb": "test"})
    assert torch.equal(space.coefficients_of(model), point)
    assert (model.space, model.base_hash) == (space.hash, "abc")


def test_truncated_and_whole_space_read_each_others_models(space):
    small, point = space.truncate(2), torch.randn(6)
    assert torch.equal(small.coefficients_of(space.model(point, {})), point[:2])
    padded = space.coefficients_of(small.model(point[:2], {}))
    assert torch.equal(padded, torch.cat([point[:2], torch.zeros(4)]))
    with pytest.raises(InputError, match="truncated to 2 components"):
        stack_models(space.model(point, {}), space=small)


def test_lora_is_projected_but_keeps_its_weights(space):
    weights = rows(1, seed=3)[0]
    model = Model(LAYOUT, weights=weights)
    torch.testing.assert_close(space.coefficients_of(model), space.project(weights))
    assert torch.equal(stack_models(model, space=space)[1][0], weights)


def test_model_of_another_space_layout_or_base_is_refused(space):
    other = Model(LAYOUT, coefficients=torch.zeros(6), space="f" * 16)
    with pytest.raises(InputError, match="a point of space ffffffffffffffff"):
        space.coefficients_of(other)
    layout = WeightLayout((LoRAModule("to_q", 3, 3),), 1, 1.0)
    with pytest.raises(InputError, match="the model has another layout"):
        space.coefficients_of(Model(layout, weights=torch.zeros(6)))
    with pytest.raises(InputError, match=r"another base \(hash xyz\): expected abc"):
        space.coefficients_of(Model(LAYOUT, weights=torch.zeros(PARAMETERS), base_hash="xyz"))


# Saving and loading.


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
    monkeypatch.setattr(_store, "_CHUNK_BYTES", 3 * 4 * PARAMETERS)  # converted in parts
    folder = space.save_pretrained(tmp_path, dtype=torch.int8)
    again = WeightSpace.from_pretrained(folder)
    assert verify_space(folder) == []
    assert again.hash == space.hash
    assert again.components.dtype == again.coefficients.dtype == torch.float16
    unit = space.components.abs().amax(1, keepdim=True) / 127
    moved = (again.components.float() - space.components).abs()
    assert (moved <= 0.55 * unit).all()  # 0.05 by float16 in memory
    stored = safetensors_file(folder / "space.safetensors")
    assert stored["components"].dtype == torch.int8
    assert stored["components"].abs().amax(1).tolist() == [127] * len(space)
    torch.testing.assert_close(stored["component_scales"], unit[:, 0])


def test_copies_have_one_hash_and_other_fits_another(space, tmp_path):
    copies = [
        space.truncate(1),
        space.to(dtype=torch.float16),
        space.with_models(rows(2)[:, :3], "ab"),
    ]
    for dtype in (torch.float32, torch.float16, torch.int8):
        saved = space.truncate(4).save_pretrained(tmp_path / str(dtype), dtype=dtype)
        copies.append(WeightSpace.from_pretrained(saved))
    assert {copy.hash for copy in copies} == {space.hash}
    assert fitted().hash == space.hash
    turned = dataclasses.replace(space, components=space.components.flip(0), fit_id="")
    moved = dataclasses.replace(space, mean=space.mean + 1)
    assert len({space.hash, turned.hash, moved.hash}) == 3


def test_a_mean_in_integers_is_refused(space, tmp_path):
    path = space.save_pretrained(tmp_path) / "space.safetensors"
    save_file(safetensors_file(path) | {"mean": torch.zeros(PARAMETERS, dtype=torch.int8)}, path)
    message = rf"holds mean as torch.int8 \[{PARAMETERS}\]: expected 1 axes of torch.float32"
    with pytest.raises(InputError, match=message):
        WeightSpace.from_pretrained(tmp_path)


def test_int8_components_and_their_scales_belong_together(space, tmp_path):
    path = space.save_pretrained(tmp_path, dtype=torch.int8) / "space.safetensors"
    tensors = safetensors_file(path)
    scales = tensors["component_scales"]
    for broken, message in (
        ({k: v for k, v in tensors.items() if k != "component_scales"}, "if and only if"),
        (tensors | {"components": space.components}, "if and only if"),
        (tensors | {"component_scales": scales[:2]}, "2 component_scales for 6 components"),
    ):
        save_file(broken, path)
        with pytest.raises(InputError, match=message):
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
    assert set(tensors) == {"mean", "std", "components"}
    assert torch.equal(tensors["components"], space.components)
    table = pandas.read_parquet(folder / "models.parquet")
    assert table.columns.tolist() == ["name", "Bald", "Young", "age"]


def test_transposed_components_are_written_in_parts(space, tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "_CHUNK_BYTES", 3 * 4 * PARAMETERS)
    columns = space.components.T.contiguous()
    view = WeightSpace(LAYOUT, space.mean, space.std, columns.T)
    again = WeightSpace.from_pretrained(view.save_pretrained(tmp_path))
    assert torch.equal(again.components, space.components)


def test_coefficients_too_large_for_float16_stay_float32(space, tmp_path):
    large = dataclasses.replace(space, coefficients=space.coefficients * 1e6)
    again = WeightSpace.from_pretrained(large.save_pretrained(tmp_path, dtype=torch.float16))
    assert again.coefficients.dtype == torch.float32
    assert again.components.dtype == torch.float16


def test_card_claims_what_is_known_and_no_more(space, tmp_path):
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
        ("config.json", lambda raw: b"{}", "does not belong to a space"),
        (
            "config.json",
            lambda raw: raw.replace(b'"format_version": 1', b'"format_version": 9'),
            "format version 9, expected 1",
        ),
        ("config.json", lambda raw: raw.replace(b'"metadata"', b'"data"'), "lacks metadata"),
        (
            "config.json",
            lambda raw: raw.replace(b'"alpha": 27.0', b'"alpha": 28.0'),
            "contradicts space.safetensors",
        ),
        (
            "config.json",
            lambda raw: raw.replace(b'"rank": 2', b'"rank": 3'),
            r"mean has shape \[48\], expected \[72\]",
        ),
        (
            "config.json",
            lambda raw: re.sub(b'"captured_variance": [0-9.]+', b'"captured_variance": ["a"]', raw),
            r"metadata captured_variance is \['a'\], expected a number",
        ),
        (
            "config.json",
            lambda raw: re.sub(b'"error_bound": [0-9.]+', b'"error_bound": "none"', raw),
            "metadata error_bound is 'none', expected a number",
        ),
        (
            "config.json",
            lambda raw: raw.replace(b'"someone/base"', b'"\\ud800"'),
            "surrogates not allowed",
        ),
        ("space.safetensors", lambda raw: raw[:-9], "is not valid safetensors"),
        ("space.safetensors", lambda raw: raw.replace(b'"std"', b'"sad"'), "expected mean, std"),
        ("models.safetensors", lambda raw: raw[:4], "bytes long"),
        ("models.parquet", lambda raw: raw.replace(b"Bald", b"B\xed\xa0\x80"), "models.parquet"),
        ("models.parquet", lambda raw: raw[:-9], "cannot be read"),
    ],
)
def test_damaged_folder_fails_in_one_line(space, tmp_path, name, how, message):
    folder = space.save_pretrained(tmp_path)
    damage(folder, name, how)
    with pytest.raises(InputError, match=message) as error:
        WeightSpace.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("name", [b"\xed\xa0\x80", b"a\xff", b""])
def test_names_that_are_not_text_fail_in_one_line(space, tmp_path, name):
    folder = space.with_models(torch.zeros(1, 6), ["one"]).save_pretrained(tmp_path)
    array = pyarrow.array([name], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"name": array}), folder / "models.parquet")
    with pytest.raises(InputError, match=r"models\.parquet") as error:
        WeightSpace.from_pretrained(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["\ud800", ""])
def test_names_that_cannot_be_stored_are_refused(space, tmp_path, name):
    with pytest.raises(InputError):
        space.with_models(torch.zeros(1, 6), [name]).save_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "space.safetensors", "models.parquet"])
def test_named_pipe_in_place_of_a_file_does_not_hang(space, tmp_path, name):
    folder = space.save_pretrained(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=name):
        WeightSpace.from_pretrained(folder)
    with suppress(InputError):
        assert verify_space(folder) == [f"{name} is missing"]


def test_verify_finds_flipped_bits_and_missing_files(space, tmp_path):
    folder = space.save_pretrained(tmp_path)
    damage(folder, "space.safetensors", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))
    (folder / "models.parquet").unlink()
    problems = verify_space(folder)
    assert len(problems) == 2
    assert "has changed" in problems[0]
    assert "missing" in problems[1]


def test_verify_finds_values_that_are_not_finite(space, tmp_path):
    components = space.components.clone()
    components[1, 1] = torch.nan
    broken = dataclasses.replace(space, components=components)
    assert verify_space(broken.save_pretrained(tmp_path)) == [
        "components has NaN or infinite values"
    ]


def test_unfinished_save_is_not_a_space(space, tmp_path, monkeypatch):
    folder = space.save_pretrained(tmp_path)

    def full(*_):
        raise ResourceError("disk full")

    monkeypatch.setattr(_store, "write_labels", full)
    with pytest.raises(ResourceError, match="disk full"):
        space.truncate(3).save_pretrained(folder)
    with pytest.raises(InputError, match="is not a space"):
        WeightSpace.from_pretrained(folder)


def test_source_that_is_not_a_space_is_refused(tmp_path):
    for source in (tmp_path / "nothing", "nowhere", "a/b/c"):
        with pytest.raises(InputError, match="expected an existing folder"):
            find_space(source)
    with pytest.raises(InputError, match="is not a space"):
        WeightSpace.from_pretrained(tmp_path)


def test_points_and_weights_may_be_numpy(space):
    weights = space.to_weights(np.ones(len(space), np.float32))
    torch.testing.assert_close(space.project(weights.numpy()), torch.ones(len(space)))


@pytest.mark.parametrize("name", ["./nowhere", "~/nowhere", "../nowhere"])
def test_a_path_is_not_asked_of_the_hub(name):
    with pytest.raises(InputError, match="expected an existing folder"):
        WeightSpace.from_pretrained(name)


def test_unreachable_hub_fails_in_one_line(tmp_path):
    with pytest.raises(ResourceError, match="cannot be downloaded"):
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


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux reports it")
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


def test_config_states_the_fit(space, tmp_path):
    config = json.loads((space.save_pretrained(tmp_path) / "config.json").read_text())
    assert config["hash"] == space.hash
    assert config["metadata"]["of"] == "weights"
    assert config["metadata"]["captured_variance"] == space.captured_variance


def test_truncated_import_can_be_saved(tmp_path):
    """Its captured variance is unknown and stays so."""
    again = WeightSpace.from_pretrained(bare(3).truncate(2).save_pretrained(tmp_path))
    assert math.isnan(again.captured_variance)
    assert again.hash == bare(3).hash


def test_shown_as_text_and_in_a_notebook(space):
    text, page = repr(space), space._repr_html_()
    for part in ("30", "6", "someone/base"):
        assert part in text and part in page
    assert f"{space.captured_variance:.1%}" in text
    evil = dataclasses.replace(space, labels=labels().rename(columns={"Bald": "<script>"}))
    assert "<script>" not in evil._repr_html_()
    assert "&lt;script&gt;" in evil._repr_html_()
