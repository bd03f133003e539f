"""Exports as other programs load them: the image is that of the adapter here, at full strength."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from weights2weights.adapter import adapt
from weights2weights.formats import FORMATS, load_lora, write_lora_file
from weights2weights.layout import WeightLayout

TOLERANCE = 1e-4
TARGETS = {
    "as in the paper": ("to_q", "to_v"),
    "all linear layers": (
        "to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "time_emb_proj", "linear_1",
        "linear_2",
    ),
}  # fmt: skip


def draw(pipe) -> np.ndarray:
    settings = {"num_inference_steps": 2, "output_type": "np"}
    size = 2 * tiny.LATENT_SIZE
    generator = torch.Generator().manual_seed(3)
    result = pipe("a photo of a cat", size, size, generator=generator, **settings)
    return result.images[0]


def distance(image: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(image - other).max())


def draw_elsewhere(pipe, path: Path, kind: str) -> np.ndarray:
    """Load an export with the program it is for, and draw."""
    if kind == "peft":
        from peft import PeftModel

        base, pipe.unet = pipe.unet, PeftModel.from_pretrained(tiny.unet(), path)
        image, pipe.unet = draw(pipe), base
        return image
    pipe.load_lora_weights(path)
    image = draw(pipe)
    pipe.unload_lora_weights()
    return image


def example(unet, targets: tuple[str, ...], rank: int) -> tuple[WeightLayout, Tensor]:
    layout = WeightLayout.from_denoiser(unet, targets, rank=rank, alpha=27.0, base="tiny")
    generator = torch.Generator().manual_seed(rank)
    return layout, torch.randn(layout.num_parameters, generator=generator) / 10


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS.keys())
def test_every_export_draws_the_image_of_the_adapter(tiny_pipeline, tmp_path, targets, rank):
    layout, weights = example(tiny_pipeline.unet, targets, rank)
    plain = draw(tiny_pipeline)
    with adapt(tiny_pipeline.unet, layout, weights[None]):
        ours = draw(tiny_pipeline)
    assert distance(ours, plain) > 100 * TOLERANCE, "the LoRA must show"
    for kind in FORMATS:
        name = "adapter" if kind == "peft" else f"{kind}.safetensors"
        path = write_lora_file(tmp_path / name, weights, layout, kind)
        assert distance(draw_elsewhere(tiny_pipeline, path, kind), ours) <= TOLERANCE, kind
    assert distance(draw(tiny_pipeline), plain) == 0


def test_the_tolerance_would_notice_a_lost_alpha(tiny_pipeline, tmp_path):
    """The trap itself: diffusers takes a file without alpha for alpha = rank."""
    import safetensors.torch

    layout, weights = example(tiny_pipeline.unet, TARGETS["as in the paper"], 1)
    path = write_lora_file(tmp_path / "a.safetensors", weights, layout, "diffusers")
    full = draw_elsewhere(tiny_pipeline, path, "diffusers")
    safetensors.torch.save_file(safetensors.torch.load_file(path), path)
    weak = draw_elsewhere(tiny_pipeline, path, "diffusers")
    assert distance(full, weak) > 100 * TOLERANCE


def test_what_peft_saves_is_read(tiny_unet, tmp_path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=2, lora_alpha=27, target_modules=["to_q", "to_v"], init_lora_weights=False
    )
    model = get_peft_model(tiny_unet, config)
    model.save_pretrained(tmp_path / "adapter")
    got = load_lora(tmp_path / "adapter")
    assert got.layout.hash == WeightLayout.from_denoiser(tiny.unet(), rank=2, alpha=27.0).hash
    state = model.state_dict()
    for key, tensor in got.layout.unflatten(got.weights).items():
        assert torch.equal(tensor, state[key.replace(".weight", ".default.weight")])


def test_what_diffusers_saves_is_read(tiny_pipeline, tmp_path):
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    config = LoraConfig(
        r=2, lora_alpha=27, target_modules=["to_q", "to_v"], init_lora_weights=False
    )
    tiny_pipeline.unet.add_adapter(config)
    layers = get_peft_model_state_dict(tiny_pipeline.unet)
    metadata = _collate_lora_metadata({"unet": tiny_pipeline.unet})
    tiny_pipeline.save_lora_weights(tmp_path, convert_state_dict_to_diffusers(layers), **metadata)
    got = load_lora(tmp_path)
    assert got.layout.hash == WeightLayout.from_denoiser(tiny.unet(), rank=2, alpha=27.0).hash
    assert torch.equal(
        got.weights, got.layout.flatten({f"base_model.model.{k}": v for k, v in layers.items()})
    )
