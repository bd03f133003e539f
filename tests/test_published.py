"""The authors' files: the exact layout, the exact formulas, and pickles that mean harm."""

import logging
import os
from collections import OrderedDict

import numpy as np
import pandas
import pytest
import torch

from weights2weights import published as module
from weights2weights.errors import W2WError
from weights2weights.formats import load_lora
from weights2weights.formats.authors import load_authors_model, published_layout
from weights2weights.inspection import info
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import load_model
from weights2weights.opening import stack_models
from weights2weights.published import import_published, import_published_dataset
from weights2weights.sampling import sample
from weights2weights.space import WeightSpace, verify_space

LAYOUT = WeightLayout(
    tuple(
        LoRAModule(f"{block}.attentions.0.transformer_blocks.0.{part}", 6, 4)
        for block in ("down_blocks.0", "mid_block", "up_blocks.1")
        for part in ("attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v")
    ),
    1,
    27.0,
)
NUMBERS, MODELS, COMPONENTS, PROJECTED = LAYOUT.num_parameters, 25, 12, 8
NAMES = sorted(map(str, range(MODELS)))  # folders in string order: 0, 1, 10, 11, …


def table() -> pandas.DataFrame:
    generator = np.random.default_rng(0)
    signs = generator.choice([-1, 1], (MODELS, 5))
    columns = pandas.Index(["Male", "Young", "Bald", "Bangs", "Big_Nose"], dtype=object)
    return pandas.DataFrame(signs, pandas.Index(NAMES, dtype=object), columns)


def published(folder, *, weights: bool = False) -> dict[str, torch.Tensor]:
    """Write files as the authors did."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(MODELS, NUMBERS, generator=generator) * 0.1 + 1
    mean, std = rows.mean(0), rows.std(0)
    standard = (rows - mean) / std
    axes = torch.linalg.svd(standard, full_matrices=False)[2][:COMPONENTS].T.contiguous()
    projected = standard @ axes[:, :PROJECTED]
    dimensions = OrderedDict(
        (entry.key, [torch.Size([entry.count]), torch.Size(entry.shape)])
        for entry in LAYOUT.entries
    )
    files, identities = folder / "files", folder / "weights_datasets" / "identities"
    for part in (files, identities):
        part.mkdir(parents=True, exist_ok=True)
    torch.save(axes, files / "V.pt")
    torch.save(mean, files / "mean.pt")
    torch.save(std, files / "std.pt")
    torch.save(projected, files / "proj_1000pc.pt")
    torch.save(torch.linalg.pinv(projected), files / "pinverse_1000pc.pt")
    torch.save(dimensions, files / "weight_dimensions.pt")
    torch.save(table(), identities / "identity_df.pt")
    if weights:
        torch.save(rows, identities / "all_weights.pt")
    return {"rows": rows, "mean": mean, "std": std, "V": axes, "proj": projected}


def test_space_of_the_files_follows_their_formulas(tmp_path):
    files = published(tmp_path)
    space = import_published(tmp_path)
    assert space.layout.hash == LAYOUT.hash
    assert (len(space), space.num_parameters, space.layout.alpha) == (COMPONENTS, NUMBERS, 27)
    assert space.names == tuple(NAMES)
    weights = files["rows"][:4]
    coefficients = ((weights - files["mean"]) / files["std"]) @ files["V"]
    torch.testing.assert_close(space.project(weights), coefficients, rtol=1e-5, atol=1e-5)
    back = coefficients @ files["V"].T * files["std"] + files["mean"]
    torch.testing.assert_close(space.to_weights(coefficients), back, rtol=1e-5, atol=1e-5)
    some = coefficients[:, :5] @ files["V"][:, :5].T * files["std"] + files["mean"]
    torch.testing.assert_close(space.to_weights(coefficients[:, :5]), some, rtol=1e-5, atol=1e-5)
    assert torch.equal(space.coefficients, files["proj"])
    torch.testing.assert_close(space.coefficient_mean, files["proj"].mean(0))
    torch.testing.assert_close(space.coefficient_std, files["proj"].std(0))
    assert not sample(space, 2)[:, PROJECTED:].any()


def test_labels_come_by_name(tmp_path):
    published(tmp_path)
    labels = import_published(tmp_path).labels
    assert labels.columns.tolist() == ["Male", "Young", "Bald", "Bangs", "Big_Nose"]
    assert labels.index.tolist() == NAMES
    for column in labels:
        assert (labels[column] == (table()[column] == 1)).all()


def test_whole_weights_give_coefficients_on_all_components(tmp_path):
    files = published(tmp_path, weights=True)
    space = import_published(tmp_path)
    assert space.coefficients.shape == (MODELS, COMPONENTS)
    expected = ((files["rows"] - files["mean"]) / files["std"]) @ files["V"]
    torch.testing.assert_close(space.coefficients, expected, rtol=1e-5, atol=1e-5)
    assert sample(space, 1)[:, PROJECTED:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_imported_space_can_be_saved(tmp_path, dtype):
    files = published(tmp_path)
    space = import_published(tmp_path, components=10)
    folder = space.save_pretrained(tmp_path / "space", dtype=dtype)
    again = WeightSpace.from_pretrained(folder)
    assert (len(again), again.hash) == (10, import_published(tmp_path).hash)
    torch.testing.assert_close(
        again.components.float(), files["V"][:, :10].T.contiguous(), rtol=1e-3, atol=1e-6
    )
    assert again.components.is_contiguous()
    assert verify_space(folder) == []


def test_flat_folder_without_labels_will_do(tmp_path):
    published(tmp_path / "whole")
    for path in (tmp_path / "whole" / "files").iterdir():
        path.rename(tmp_path / path.name)
    space = import_published(tmp_path)
    assert space.names == tuple(map(str, range(MODELS)))
    assert space.labels.shape == (MODELS, 0)


@pytest.mark.parametrize("name", ["V", "proj_1000pc", "all_weights"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, name):
    published(tmp_path, weights=name == "all_weights")
    path = next(tmp_path.rglob(f"{name}.pt"))
    tensor = torch.load(path, weights_only=True)
    tensor[-1, 2] = float("nan")
    torch.save(tensor, path)
    with pytest.raises(W2WError, match=rf"{name}\.pt holds NaN"):
        import_published(tmp_path)
    if name == "V":
        assert len(import_published(tmp_path, components=2)) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_components_of_another_precision_will_do(tmp_path, dtype):
    published(tmp_path, weights=True)
    expected = import_published(tmp_path).coefficients
    path = tmp_path / "files" / "V.pt"
    torch.save(torch.load(path, weights_only=True).to(dtype), path)
    found = import_published(tmp_path).coefficients
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_constant_number_gets_std_one(tmp_path):
    files = published(tmp_path)
    files["std"][3] = 0
    torch.save(files["std"], tmp_path / "files" / "std.pt")
    assert import_published(tmp_path).std[3] == 1


def test_space_samples_along_the_components_of_the_paper(tmp_path, monkeypatch):
    published(tmp_path, weights=True)
    assert import_published(tmp_path).metadata["sampling"] == {"components": 1000}
    monkeypatch.setattr(module, "PAPER_COMPONENTS", 5)
    space = import_published(tmp_path)
    assert space.coefficients.shape == (MODELS, COMPONENTS)
    assert sample(space, 3)[:, :5].all()
    assert not sample(space, 3)[:, 5:].any()
    assert sample(space, 3, components=COMPONENTS).all()


def test_text_in_the_table_is_left_out_with_a_log_line(tmp_path, caplog):
    published(tmp_path)
    frame = table().assign(file="a.jpg")
    torch.save(frame, tmp_path / "weights_datasets" / "identities" / "identity_df.pt")
    with caplog.at_level(logging.WARNING):
        space = import_published(tmp_path)
    assert list(space.labels.columns) == list(table().columns)
    assert "ignored columns of text: 'file'" in caplog.text


def test_weights_become_a_dataset_that_can_be_continued(tmp_path):
    files = published(tmp_path, weights=True)
    for _ in range(2):
        dataset = import_published_dataset(tmp_path, tmp_path / "loras")
    assert dataset.layout.hash == LAYOUT.hash
    assert list(dataset.names) == NAMES
    assert torch.equal(dataset[NAMES], files["rows"])
    assert (dataset.labels["Bald"] == (table()["Bald"] == 1)).all()


def test_any_file_of_weights_becomes_a_dataset(tmp_path):
    published(tmp_path)
    rows = torch.randn(3, NUMBERS)
    torch.save(rows, tmp_path / "files" / "dog_weights.pt")
    dataset = import_published_dataset(tmp_path / "files" / "dog_weights.pt", tmp_path / "dogs")
    assert torch.equal(dataset[["0", "1", "2"]], rows)


def test_one_model_of_the_authors(tmp_path):
    published(tmp_path)
    path = tmp_path / "w2wmodel.pt"
    for dtype in (torch.float32, torch.bfloat16):
        torch.save(torch.nn.Parameter(torch.arange(6.0).to(dtype)[None]), path)
        layout, vector = load_authors_model(path)
        assert torch.equal(vector, torch.arange(6.0))
        assert layout.hash == LAYOUT.hash
    torch.save(torch.zeros(2, 6), path)
    with pytest.raises(
        W2WError, match=r"holds float32 \[2, 6\]; expected floating-point numbers of shape"
    ):
        load_authors_model(path)


def test_a_model_of_the_authors_is_a_point_of_the_imported_space(tmp_path):
    published(tmp_path)
    path, space = tmp_path / "w2wmodel.pt", import_published(tmp_path)
    point = torch.randn(1, 10)
    torch.save(point, path)
    model = load_model(path)
    assert torch.equal(space.coefficients_of(model)[:10], point[0])
    torch.testing.assert_close(stack_models(path, space=space)[1], space.to_weights(point))
    again = WeightSpace.from_pretrained(space.save_pretrained(tmp_path / "space"))
    assert torch.equal(again.coefficients_of(model)[:10], point[0])
    other = WeightSpace(space.layout, space.mean, space.std, space.components)
    with pytest.raises(W2WError, match="space weights2weights, Dravid 2024"):
        other.coefficients_of(model)
    with pytest.raises(W2WError, match="10 coefficients of the published space"):
        load_lora(path)
    assert info(path)["format"] == "authors"
    assert info(path)["components"] == 10


def test_a_model_of_the_authors_as_weights_is_a_lora(tmp_path):
    files = published(tmp_path)
    path = tmp_path / "w2wmodel.pt"
    torch.save(files["rows"][:1].clone(), path)
    assert torch.equal(load_model(path).weights, files["rows"][0])
    lora = load_lora(path, alpha=9.0)
    assert (lora.format, lora.layout.alpha) == ("authors", 9)
    assert torch.equal(lora.weights, files["rows"][0])


def test_the_published_layout_needs_no_file(tmp_path):
    torch.save(torch.zeros(1, 99_648), tmp_path / "w2wmodel.pt")
    layout, vector = load_authors_model(tmp_path / "w2wmodel.pt")
    assert layout == published_layout()
    assert len(vector) == layout.num_parameters


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(1, 10**12),
        torch.zeros(1, 6, device="meta"),
        torch.zeros(1, 6).to_sparse(),
        torch.zeros(1, 6, dtype=torch.int64),
        torch.full((1, 6), torch.nan),
        {"a": torch.zeros(1, 6)},
    ],
    ids=["huge", "meta", "sparse", "integers", "nan", "dict"],
)
def test_what_is_not_one_model_is_one_line(tmp_path, tensor):
    torch.save(tensor, tmp_path / "w2wmodel.pt")
    with pytest.raises(W2WError) as error:
        load_authors_model(tmp_path / "w2wmodel.pt")
    assert "\n" not in str(error.value)


def test_damage_to_a_model_gives_the_same_numbers_or_one_line(tmp_path):
    vector = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "w2wmodel.pt"
    torch.save(vector, path)
    original = path.read_bytes()
    refused = 0
    for place in range(0, len(original), 3):
        for damaged in (
            original[:place] + bytes([original[place] ^ 1 << place % 8]) + original[place + 1 :],
            original[:place],
        ):
            path.write_bytes(damaged)
            try:
                assert torch.equal(load_authors_model(path)[1], vector[0])
            except W2WError as error:
                refused += 1
                assert str(error).isprintable()
    assert refused > len(original) // 3


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("V.pt", torch.zeros(NUMBERS - 1, 3), r"V.pt holds float32 \[119, 3\]"),
        ("V.pt", torch.zeros(NUMBERS, 3, dtype=torch.int64), "expected floating-point"),
        ("mean.pt", torch.zeros(3), "mean.pt holds"),
        ("mean.pt", torch.full((NUMBERS,), torch.nan), "NaN"),
        (
            "std.pt",
            {"a": torch.zeros(1)},
            r"holds a dict; expected floating-point numbers of shape \[1, 120\]",
        ),
        ("proj_1000pc.pt", torch.zeros(MODELS + 1, 8), "25 rows; expected 26"),
        ("weight_dimensions.pt", {"x": [[1], [1]]}, "is not a LoRA weight"),
        ("weight_dimensions.pt", {"x": 3}, "name → "),
        ("weight_dimensions.pt", torch.zeros(1), "name → "),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, value, message):
    published(tmp_path)
    torch.save(value, tmp_path / "files" / name)
    with pytest.raises(W2WError, match=message):
        import_published(tmp_path)


def test_other_order_of_tensors_is_refused(tmp_path):
    published(tmp_path)
    path = tmp_path / "files" / "weight_dimensions.pt"
    dimensions = torch.load(path, weights_only=True)
    dimensions.move_to_end(next(iter(dimensions)))
    torch.save(dimensions, path)
    with pytest.raises(W2WError, match="another order"):
        import_published(tmp_path)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(W2WError, match=r"holds no weight_dimensions\.pt"):
        import_published(tmp_path)
    published(tmp_path)
    with pytest.raises(W2WError, match="13 components: expected 1 to 12"):
        import_published(tmp_path, components=13)
    for content in (b"", b"nonsense", (tmp_path / "files" / "V.pt").read_bytes()[:700]):
        (tmp_path / "files" / "V.pt").write_bytes(content)
        with pytest.raises(W2WError, match=r"V\.pt cannot be read as tensors"):
            import_published(tmp_path)


def test_tensor_file_that_is_a_program_is_not_run(tmp_path):
    published(tmp_path)

    class Touch:
        """What attackers do: a pickle that runs a program when it is opened."""

        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save(Touch(), tmp_path / "files" / "mean.pt")
    with pytest.raises(W2WError, match=r"mean\.pt cannot be read as tensors"):
        import_published(tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_folder_of_the_published_size(tmp_path):
    """10,000 components of 99,648 numbers for 64,974 models: 4.3 GB in, 2.2 GB out, formulas."""
    layout = published_layout()
    numbers, models, components, projected = layout.num_parameters, 64_974, 10_000, 1_000
    assert numbers == 99_648
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(numbers, generator=generator), torch.rand(numbers, generator=generator)
    std += 0.1
    axes = torch.empty(numbers, components)
    for part in axes.split(4096):
        part.normal_(generator=generator).div_(numbers**0.5)
    proj = torch.randn(models, projected, generator=generator)
    names = sorted(map(str, range(models)))
    signs = np.random.default_rng(0).choice([-1, 1], (models, 40))
    columns = pandas.Index([f"label {i}" for i in range(40)], dtype=object)
    labels = pandas.DataFrame(signs, pandas.Index(names, dtype=object), columns)
    dimensions = {e.key: [torch.Size([e.count]), torch.Size(e.shape)] for e in layout.entries}
    for name, value in {
        "V": axes,
        "mean": mean,
        "std": std,
        "proj_1000pc": proj,
        "weight_dimensions": dimensions,
        "identity_df": labels,
    }.items():
        torch.save(value, tmp_path / f"{name}.pt")
    weights = torch.randn(3, numbers, generator=generator)
    coefficients = ((weights - mean) / std) @ axes
    points = torch.randn(2, components, generator=generator)
    back = (points @ axes.T) * std + mean
    del axes

    space = import_published(tmp_path)
    assert (len(space), space.num_parameters, space.names) == (components, numbers, tuple(names))
    assert (space.labels["label 7"] == (labels["label 7"] == 1)).all()
    torch.testing.assert_close(space.project(weights), coefficients, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(space.to_weights(points), back, rtol=1e-5, atol=1e-4)
    drawn = sample(space, 2, seed=1)
    spread = proj.std(0)
    assert ((drawn[:, :projected] - proj.mean(0)).abs() < 6 * spread).all()

    saved = space.save_pretrained(tmp_path / "space", dtype=torch.float16)
    again = WeightSpace.from_pretrained(saved)
    assert again.hash == space.hash
    torch.testing.assert_close(again.project(weights), coefficients, rtol=1e-2, atol=5e-3)
