"""LoRAs for other programs: files that keep everything, and pipelines that draw what we draw."""

import pytest
import torch

import tiny
from weights2weights.adapter import adapt
from weights2weights.errors import W2WError
from weights2weights.exports import load_into, save_lora
from weights2weights.formats import load_lora
from weights2weights.layout import WeightLayout
from weights2weights.models import save_model
from weights2weights.space import WeightSpace

PROMPT = "sks person"


@pytest.fixture
def space(tiny_pipeline) -> WeightSpace:
    layout = WeightLayout.from_denoiser(tiny_pipeline.unet, rank=2, alpha=8.0)
    d = layout.num_parameters
    generator = torch.Generator().manual_seed(0)
    components, _ = torch.linalg.qr(torch.randn(d, 4, generator=generator))
    mean = 0.3 * torch.randn(d, generator=generator)
    return WeightSpace(layout, mean, torch.full((d,), 0.5), components.T.contiguous())


def draw(pipeline) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    images = pipeline(PROMPT, num_inference_steps=3, generator=generator, output_type="np").images
    return torch.from_numpy(images)


@pytest.mark.parametrize("form", ["point", "weights", "model", "file", "lora"])
def test_a_pipeline_draws_what_our_adapter_draws(tiny_pipeline, space, tmp_path, form):
    point = torch.tensor([3.0, -2.0, 1.0, 4.0])
    weights = space.to_weights(point)
    with adapt(tiny_pipeline.unet, space.layout, weights[None]):
        expected = draw(tiny_pipeline)
    plain = draw(tiny_pipeline)
    assert (plain - expected).abs().max() > 0.02
    model = space.model(point, {})
    given = {
        "point": (point, {"space": space}),
        "weights": (weights, {"layout": space.layout}),
        "model": (model, {"space": space}),
        "file": (save_model(tmp_path / "m.safetensors", model), {"space": space}),
        "lora": (save_lora(tmp_path / "l.safetensors", point, space=space, format="kohya"), {}),
    }
    models, options = given[form]
    assert load_into(tiny_pipeline, models, **options) is tiny_pipeline
    torch.testing.assert_close(draw(tiny_pipeline), expected, rtol=0, atol=1e-4)
    load_into(tiny_pipeline, models, scale=0.0, **options)  # again, in place of the first
    torch.testing.assert_close(draw(tiny_pipeline), plain, rtol=0, atol=1e-4)
    tiny_pipeline.delete_adapters("w2w")
    torch.testing.assert_close(draw(tiny_pipeline), plain, rtol=0, atol=1e-5)


def test_a_pipeline_of_another_base_is_left_alone(tiny_pipeline, space):
    wider = WeightLayout.from_denoiser(tiny.unet(cross_attention_dim=16), targets=("to_k",))
    with pytest.raises(W2WError, match=r"is a Linear of 12 to .*: expected nn.Linear of 16 to"):
        load_into(tiny_pipeline, torch.zeros(wider.num_parameters), layout=wider)
    assert not tiny_pipeline.get_list_adapters()
    with pytest.raises(W2WError, match="a dict has no unet or transformer"):
        load_into({}, torch.zeros(4), space=space)


@pytest.mark.parametrize("kind", ["diffusers", "kohya", "peft"])
def test_a_file_holds_the_weights_of_the_model(space, tmp_path, kind):
    point = torch.tensor([1.0, 2.0, 3.0, 4.0])
    path = tmp_path / ("lora" if kind == "peft" else "lora.safetensors")
    written = save_lora(path, point, space=space, format=kind, metadata={"note": "mine"})
    read = load_lora(written)
    assert read.layout == space.layout
    assert read.metadata["note"] == "mine"
    assert torch.equal(read.weights, space.to_weights(point[None])[0])


def test_a_lora_file_keeps_its_dtype_and_strings(space, tmp_path):
    from weights2weights import formats

    half = space.to_weights(torch.ones(4)).half()
    source = formats.write_lora_file(
        tmp_path / "a.safetensors", half, space.layout, "kohya", {"x": "1"}
    )
    read = load_lora(save_lora(tmp_path / "b.safetensors", source))
    assert (read.format, read.metadata["x"]) == ("diffusers", "1")
    assert read.weights.dtype == torch.float16
    assert torch.equal(read.weights, half)


def test_one_file_holds_one_model(space, tmp_path):
    with pytest.raises(W2WError, match="2 models: expected one"):
        save_lora(tmp_path / "a.safetensors", torch.zeros(2, 4), space=space)
    with pytest.raises(W2WError, match="states alpha 8, and 1 was given"):
        save_lora(tmp_path / "a.safetensors", torch.zeros(4), space=space, alpha=1.0)
