"""The model file: comes back as it was, and refuses what contradicts itself."""

import json

import pytest
import torch

from weights2weights._safetensors import open_checked, write_safetensors
from weights2weights.errors import W2WError
from weights2weights.formats import write_lora_file
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import Model, is_model, load_model, save_model

LAYOUT = WeightLayout(
    (LoRAModule("down_blocks.0.attentions.0.attn1.to_q", 4, 3),), 1, 27.0, "people"
)


def model(**changes) -> Model:
    facts = {
        "coefficients": torch.arange(5.0),
        "space": "0123456789abcdef",
        "base_hash": "b",
        "origin": {"verb": "sample", "seed": 3, "names": ["é"]},
    }
    return Model(LAYOUT, **{**facts, **changes})


@pytest.mark.parametrize("parts", ["coefficients", "weights", "both"])
def test_comes_back_as_it_was(tmp_path, parts):
    changes = {} if parts == "coefficients" else {"weights": torch.arange(7.0)}
    if parts == "weights":
        changes |= {"coefficients": None, "space": ""}
    before = model(**changes)
    path = save_model(tmp_path / "new folder" / "m.safetensors", before)
    assert is_model(path)
    again = load_model(path)
    for name in ("layout", "space", "base_hash", "origin"):
        assert getattr(again, name) == getattr(before, name)
    for name in ("coefficients", "weights"):
        one, other = getattr(again, name), getattr(before, name)
        assert torch.equal(one, other) if other is not None else one is None


def test_equal_models_give_equal_bytes(tmp_path):
    one, two = (save_model(tmp_path / f"{i}.safetensors", model()) for i in range(2))
    assert one.read_bytes() == two.read_bytes()


def test_golden_header(tmp_path):
    with open_checked(save_model(tmp_path / "m.safetensors", model())) as file:
        assert set(file.places) == {"coefficients"}
        assert file.metadata["format"] == "weights2weights-model"
        assert file.metadata["format_version"] == "1"
        assert file.metadata["layout_hash"] == LAYOUT.hash
        assert json.loads(file.metadata["layout"]) == LAYOUT.to_dict()


@pytest.mark.parametrize("kind", ["peft", "diffusers", "kohya"])
def test_lora_of_another_program_is_a_model_with_weights(tmp_path, kind):
    layout = WeightLayout(
        (LoRAModule("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", 4, 3),), 1, 27.0
    )
    path = tmp_path / ("lora" if kind == "peft" else "lora.safetensors")
    path = write_lora_file(path, torch.arange(7.0), layout, kind)
    assert not is_model(path)
    read = load_model(path)
    assert torch.equal(read.weights, torch.arange(7.0))
    assert (read.coefficients, read.space, read.layout.hash) == (None, "", layout.hash)
    assert read.origin["format"] == kind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coefficients": None}, "without coefficients and weights"),
        ({"weights": torch.zeros(3)}, r"weights of shape \[3\]: expected \[7\]"),
        ({"space": ""}, "the hash of their space"),
        ({"coefficients": torch.tensor([1.0, torch.nan])}, "NaN or infinite"),
    ],
)
def test_what_is_not_a_model(changes, message):
    with pytest.raises(W2WError, match=message):
        model(**changes)


def test_name_that_nobody_would_recognise(tmp_path):
    with pytest.raises(W2WError, match=r"ending in \.safetensors"):
        save_model(tmp_path / "m.pt", model())


def rewrite(path, tensors=None, **strings):
    with open_checked(path) as file:
        kept = {name: file.read(name) for name in file.places} if tensors is None else tensors
        metadata = {**file.metadata, **strings}
    write_safetensors(path, kept, {key: text for key, text in metadata.items() if text})


@pytest.mark.parametrize(
    ("tensors", "strings", "message"),
    [
        (None, {"format_version": "2"}, "format version '2': expected 1"),
        (None, {"layout": ""}, "no 'layout' in the header"),
        (None, {"layout": "{"}, "the layout is not valid JSON"),
        (None, {"layout_hash": "0" * 16}, "expected 0000000000000000"),
        (None, {"origin": "[]"}, "more than coefficients"),
        ({"coefficients": torch.zeros(3), "x": torch.zeros(1)}, {}, "more than coefficients"),
        ({"coefficients": torch.zeros(3, dtype=torch.int8)}, {}, "expected one axis of floats"),
        ({"coefficients": torch.zeros(3, 2)}, {}, "expected one axis of floats"),
    ],
)
def test_file_that_contradicts_itself(tmp_path, tensors, strings, message):
    path = save_model(tmp_path / "m.safetensors", model())
    rewrite(path, tensors, **strings)
    with pytest.raises(W2WError, match=message) as error:
        load_model(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_no_file_and_no_model(tmp_path):
    with pytest.raises(W2WError, match="does not exist"):
        load_model(tmp_path / "m.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(W2WError):
        load_model(tmp_path / "x.safetensors")
