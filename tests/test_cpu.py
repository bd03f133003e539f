"""The parts that CPUs run faster give what diffusers' own give."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor

import tiny
from weights2weights._cpu import PlainAttention, SplitGate, use_fast_modules
from weights2weights.adapter import adapt
from weights2weights.layout import WeightLayout


def gradients(unet: Any, targets: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output of an adapted UNet and the gradient of its LoRAs."""
    layout = WeightLayout.from_denoiser(unet, targets=targets)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, layout.num_parameters, generator=generator).mul_(0.1).requires_grad_()
    with adapt(unet, layout, weights):
        output = unet(*tiny.unet_inputs(4), return_dict=False)[0]
        return output, torch.autograd.grad(output.square().sum(), weights)[0]


@pytest.mark.parametrize("targets", [("to_q", "to_v"), ("proj", "to_k")])
def test_output_and_gradients_are_those_of_diffusers(tiny_unet: Any, targets: tuple[str, ...]):
    tiny_unet.set_attn_processor(AttnProcessor())
    expected = gradients(tiny_unet, targets)
    state = copy.deepcopy(tiny_unet.state_dict())
    use_fast_modules(tiny_unet)
    kinds = {type(module) for module in tiny_unet.modules()}
    assert SplitGate in kinds and GEGLU not in kinds
    assert {type(p) for p in tiny_unet.attn_processors.values()} == {PlainAttention}
    assert tiny_unet.state_dict().keys() == state.keys()
    for ours, theirs in zip(gradients(tiny_unet, targets), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_masks_are_left_to_diffusers():
    attn = Attention(8, heads=2, dim_head=4, processor=AttnProcessor())  # pyright: ignore
    x, mask = torch.randn(2, 3, 8), torch.tensor([[[0.0, 0.0, -1e4]]]).expand(2, 1, 3)
    expected = attn(x, attention_mask=mask)
    attn.set_processor(PlainAttention())  # pyright: ignore[reportArgumentType]
    assert torch.equal(attn(x, attention_mask=mask), expected)


def test_attention_with_more_to_it_keeps_the_processor_of_diffusers():
    parent = torch.nn.ModuleDict({"attn": Attention(8, residual_connection=True)})
    use_fast_modules(parent)
    assert type(parent["attn"].processor) is AttnProcessor


FREED = """
import resource, sys
import torch
from weights2weights.cli.train import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def step():
    kept = [torch.ones(2**18 * (1 + number % 7 * 3)) for number in range(30)]  # 1 to 19 MiB
    while kept:
        gradient = kept.pop() * 2
        gradient = gradient + 1
step()
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries have no such setting")
def test_memory_of_a_step_is_kept_for_the_next():
    def page_faults(kept: str) -> int:
        run = [sys.executable, "-c", FREED, kept]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)

    assert page_faults("kept") < 0.1 * page_faults("given back")
