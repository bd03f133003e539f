"""The weight layout: its golden offsets, and that nothing is lost between tensors and vectors."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from weights2weights.errors import W2WError
from weights2weights.layout import (
    LoRAModule,
    WeightLayout,
    peft_key,
)

# The UNets as their published configs describe them; all other fields are diffusers' defaults.
SD15 = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "sample_size": 64,
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}


def meta_unet(config: dict) -> nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config)


@pytest.fixture(scope="module")
def sd15() -> nn.Module:
    return meta_unet(SD15)


@pytest.fixture(scope="module")
def sdxl() -> nn.Module:
    return meta_unet(SDXL)


@pytest.fixture
def small() -> WeightLayout:
    modules = (LoRAModule("b.attn.to_q", 4, 3), LoRAModule("a.attn.to_v", 2, 5))
    return WeightLayout(modules, rank=2, alpha=27.0, base="small")


# --- the published space -------------------------------------------------------------------------


def test_paper_layout_has_the_published_offsets(sd15):
    layout = WeightLayout.from_denoiser(sd15)
    first_offsets: dict[str, int] = {}
    for entry in layout.entries:
        parts = entry.module.split(".")
        block = parts[0] if parts[0] == "mid_block" else ".".join(parts[:2])
        first_offsets.setdefault(block, entry.offset)
    assert {**first_offsets, "end": layout.num_parameters} == {
        "down_blocks.0": 0,
        "down_blocks.1": 6_016,
        "down_blocks.2": 16_512,
        "mid_block": 35_968,
        "up_blocks.1": 45_696,
        "up_blocks.2": 74_880,
        "up_blocks.3": 90_624,
        "end": 99_648,
    }
    assert len(layout.entries) == 128
    assert layout.targets == ("to_q", "to_v")
    assert layout.scale == 27


def test_order_is_that_of_sorted_keys_and_not_of_named_modules(sd15):
    layout = WeightLayout.from_denoiser(sd15)
    keys = [entry.key for entry in layout.entries]
    assert keys == sorted(keys)
    assert [m.name for m in layout.modules] != [
        name for name, _ in sd15.named_modules() if name.endswith(("to_q", "to_v"))
    ]


def test_paper_hash_is_stable(sd15):
    # Stored files name their layout by this hash; a change of it makes them unreadable.
    assert WeightLayout.from_denoiser(sd15).hash == "87f572c0f830ab13"


def test_same_names_and_sizes_as_peft(sd15):
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    unet = meta_unet(SD15)
    layout = WeightLayout.from_denoiser(unet, rank=4)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=list(layout.targets)), unet)
    theirs = {
        f"base_model.model.{key}": tensor for key, tensor in get_peft_model_state_dict(unet).items()
    }
    assert not layout.difference(layout_of(theirs))


@pytest.mark.parametrize("rank", [1, 2, 4, 8, 16, 32, 64])
def test_sdxl_at_every_rank(sdxl, rank):
    layout = WeightLayout.from_denoiser(sdxl, rank=rank, alpha=float(rank))
    # 10 transformer blocks of width 640 and 60 of width 1280, cross-attending to 2048 channels
    blocks = {640: 10, 1280: 60}
    expected = sum(count * (7 * width + 2048) for width, count in blocks.items())
    assert layout.num_parameters == rank * expected
    assert layout.scale == 1


def test_other_targets(sd15):
    layout = WeightLayout.from_denoiser(sd15, targets=("to_out.0", "to_k"))
    assert layout.targets == ("to_k", "to_out.0")
    assert all(module.name.endswith((".to_out.0", ".to_k")) for module in layout.modules)


# --- from a network ------------------------------------------------------------------------------


def test_target_matches_whole_name_parts():
    network = nn.ModuleDict({"to_q": nn.Linear(2, 3), "not_to_q": nn.Linear(2, 3)})
    layout = WeightLayout.from_denoiser(network, targets=["to_q"])
    assert layout.modules == (LoRAModule("to_q", 2, 3),)


def test_target_without_a_layer_is_named_with_what_there_is():
    network = nn.ModuleDict({"to_q": nn.Linear(2, 3), "to_k": nn.Linear(2, 3)})
    with pytest.raises(W2WError, match=r"\['to_v'\] match no layer of ModuleDict.*to_k, to_q"):
        WeightLayout.from_denoiser(network)


def test_target_that_is_not_linear_is_named():
    network = nn.ModuleDict({"to_q": nn.Conv2d(2, 3, 1), "to_v": nn.Linear(2, 3)})
    with pytest.raises(
        W2WError,
        match=r"'to_q' matches to_q, a Conv2d; expected targets that match only nn\.Linear",
    ):
        WeightLayout.from_denoiser(network)


def test_no_targets_is_an_error():
    with pytest.raises(W2WError, match="match no layer"):
        WeightLayout.from_denoiser(nn.Linear(1, 1), targets=[])


# --- tensors and vectors -------------------------------------------------------------------------

# Names that are easy to sort wrongly: prefixes of each other, digits, signs before and after "."
PARTS = st.sampled_from(["a", "b", "a-b", "ab", "0", "2", "10", "attn1", "to_q", "to_v", "Z", "é"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
WIDTHS = st.integers(1, 9)
LAYOUTS = st.builds(
    WeightLayout,
    st.lists(
        st.builds(LoRAModule, NAMES, WIDTHS, WIDTHS), min_size=1, unique_by=lambda m: m.name
    ).map(tuple),
    st.integers(1, 6),
    st.floats(0.25, 64.0),
)
BATCHES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
TORCH_DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def random_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Draw any bit pattern: NaNs with payloads, infinities, negative zeros and subnormals too."""
    generator = torch.Generator().manual_seed(seed)
    count = int(np.prod(shape)) * dtype.itemsize
    bits = torch.randint(256, (count,), generator=generator, dtype=torch.uint8)
    return bits.view(dtype).reshape(shape)


def bits_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@given(LAYOUTS, BATCHES, TORCH_DTYPES, st.randoms())
def test_torch_round_trip_is_bit_exact_in_any_order(layout, batch, dtype, shuffler):
    weights = random_bits((*batch, layout.num_parameters), dtype, shuffler.randrange(2**32))
    tensors = list(layout.unflatten(weights).items())
    shuffler.shuffle(tensors)
    again = layout.flatten(dict(tensors))
    assert again.dtype == dtype
    assert again.shape == weights.shape
    assert bits_of(again) == bits_of(weights)


@given(LAYOUTS, st.randoms())
def test_every_number_stands_where_the_entries_say(layout, shuffler):
    keys = [entry.key for entry in layout.entries]
    assert keys == sorted(keys)
    numbered = layout.unflatten(torch.arange(layout.num_parameters, dtype=torch.float64))
    assert list(numbered) == keys
    for entry in layout.entries:
        assert numbered[entry.key].shape == entry.shape
        stop = entry.offset + entry.count
        assert numbered[entry.key].flatten().tolist() == list(range(entry.offset, stop))
    covered = [
        n for _, a, b in layout.slices() for part in (a, b) for n in range(part.start, part.stop)
    ]
    assert covered == list(range(layout.num_parameters))


@given(LAYOUTS, st.randoms())
def test_listing_order_of_modules_does_not_matter(layout, shuffler):
    modules = list(layout.modules)
    shuffler.shuffle(modules)
    again = replace(layout, modules=tuple(modules))
    assert again == layout
    assert again.hash == layout.hash


@given(LAYOUTS)
def test_layout_is_read_back_from_its_state_dict_and_its_json(layout):
    tensors = layout.unflatten(torch.zeros(layout.num_parameters))
    backwards = dict(reversed(tensors.items()))
    assert layout_of(backwards, layout.alpha) == layout
    assert WeightLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@settings(max_examples=20)
@given(LAYOUTS)
def test_gradients_pass_through_both_ways(layout):
    weights = torch.randn(2, layout.num_parameters, requires_grad=True)
    (layout.flatten(layout.unflatten(weights)) * 3).sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.full_like(weights, 3))


def test_tensors_are_views_of_their_vector(small):
    weights = torch.zeros(2, small.num_parameters)
    for tensor in small.unflatten(weights).values():
        tensor += 1
    assert torch.equal(weights, torch.ones_like(weights))


def test_mixed_precisions_go_to_the_one_that_holds_all(small):
    tensors = small.unflatten(torch.ones(small.num_parameters, dtype=torch.float16))
    first = next(iter(tensors))
    tensors[first] = tensors[first].to(torch.bfloat16)
    assert small.flatten(tensors).dtype == torch.float32


def test_slices_are_computed_once(small):
    assert small.slices() is small.slices()


def test_vector_of_another_length_is_an_error(small):
    with pytest.raises(
        W2WError, match="shape 3×27: expected a last axis of 28, rank 2 on 2 modules"
    ):
        small.unflatten(torch.zeros(3, 27))


def test_tensors_that_do_not_fit_are_listed_both_ways(small):
    tensors = small.unflatten(torch.zeros(small.num_parameters))
    del tensors[peft_key("b.attn.to_q", "A")]
    tensors[peft_key("a.attn.to_v", "A")] = torch.zeros(2, 3)
    tensors["unet.foreign"] = torch.zeros(1)
    with pytest.raises(W2WError) as error:
        small.flatten(tensors)
    assert "1 missing (base_model.model.b.attn.to_q.lora_A.weight)" in str(error.value)
    assert "1 left over (unet.foreign)" in str(error.value)
    assert "lora_A.weight is 2×3, not 2×2" in str(error.value)


def test_batch_axes_must_agree(small):
    tensors = small.unflatten(torch.zeros(3, small.num_parameters))
    last = peft_key("b.attn.to_q", "B")
    tensors[last] = tensors[last][:2]
    with pytest.raises(W2WError, match="is 2×3×2, not 3×3×2"):
        small.flatten(tensors)


def test_whole_numbers_are_no_weights(small):
    tensors = small.unflatten(torch.zeros(small.num_parameters))
    tensors[peft_key("a.attn.to_v", "A")] = torch.zeros(2, 2).int()
    with pytest.raises(W2WError, match=r"int\d+; expected floating-point"):
        small.flatten(tensors)


# --- from a state dict ---------------------------------------------------------------------------


def layout_of(tensors: Mapping[str, torch.Tensor], alpha: float = 27.0) -> WeightLayout:
    return WeightLayout.from_shapes({key: tuple(t.shape) for key, t in tensors.items()}, alpha)


def state_dict(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {
        peft_key(name.rpartition("_")[0], name[-1]): torch.zeros(shape)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (state_dict(q_A=(1, 4)), "q has only lora_A; expected lora_A and lora_B"),
        (state_dict(q_B=(4, 1)), "q has only lora_B; expected lora_A and lora_B"),
        (state_dict(q_A=(1, 4), q_B=(4, 2)), "A of 1×4 and B of 4×2; expected rank × in"),
        (
            state_dict(q_A=(1, 4, 1, 1), q_B=(4, 1)),
            "shape 1×4×1×1 is not a LoRA weight; expected a matrix",
        ),
        (
            state_dict(q_A=(1, 4), q_B=(4, 1), v_A=(2, 4), v_B=(4, 2)),
            "ranks 1, 2; resize the LoRA to one rank",
        ),
        (state_dict(q_A=(0, 4), q_B=(4, 0)), "rank 0"),
        (state_dict(q_A=(1, 0), q_B=(4, 1)), "in_features=0, .* widths of at least 1"),
        ({"unet.q.lora_A.weight": torch.zeros(1, 4)}, "'unet.q.lora_A.weight' of shape 1×4 is not"),
        ({}, "no modules"),
    ],
)
def test_state_dict_that_is_no_lora(tensors, message):
    with pytest.raises(W2WError, match=message):
        layout_of(tensors)


# --- what a layout can be ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a..b", ".a", "to_q.lora_A", "to_q.lora_Ax.y"])
def test_names_that_no_layer_has(name):
    with pytest.raises(W2WError, match="module name"):
        WeightLayout((LoRAModule(name, 1, 1),), 1, 1.0)


def test_half_a_character_in_a_name_is_one_line(small):
    with pytest.raises(W2WError, match="cannot be encoded as UTF-8"):
        replace(small, base="\udc80")
    with pytest.raises(W2WError, match="cannot be encoded as UTF-8"):
        WeightLayout((LoRAModule("to_\ud800", 1, 1),), 1, 1.0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_is_finite_and_positive(small, alpha):
    with pytest.raises(W2WError, match="finite alpha above 0"):
        replace(small, alpha=alpha)


def test_a_module_is_listed_once(small):
    with pytest.raises(W2WError, match=r"duplicate modules: a\.attn\.to_v"):
        replace(small, modules=(*small.modules, small.modules[0]))


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"modules": [["q", 1]], "rank": 1, "alpha": 1},
        {"modules": [["q", 1.5, 2]], "rank": 1, "alpha": 1},
        {"modules": [["q", 1, 2]], "rank": True, "alpha": 1},
        {"modules": [["q", 1, 2]], "rank": 1, "alpha": "much"},
        {"modules": [["q", 1, 2]], "rank": 1, "alpha": 10**400},
        {"modules": 7, "rank": 1, "alpha": 1},
    ],
)
def test_stored_layout_that_cannot_be_read(facts):
    with pytest.raises(W2WError, match="stored layout cannot be read"):
        WeightLayout.from_dict(facts)


# --- comparing -----------------------------------------------------------------------------------


def test_equal_layouts_do_not_differ(small):
    assert small.difference(replace(small, base="another name of the same base")) == ""
    small.require_equal(replace(small, base=""), "a file")


def test_hash_covers_what_the_numbers_mean_and_not_the_base(small):
    assert replace(small, base="other").hash == small.hash
    others = [
        replace(small, rank=1),
        replace(small, alpha=1.0),
        replace(small, modules=small.modules[:1]),
        replace(small, modules=(LoRAModule("c", 4, 3), small.modules[1])),
        replace(small, modules=(LoRAModule("b.attn.to_q", 3, 4), small.modules[0])),
    ]
    assert len({layout.hash for layout in [small, *others]}) == 1 + len(others)
    assert all(small.difference(other) for other in others)


def test_difference_tells_rank_and_alpha_once(small):
    difference = small.difference(replace(small, rank=4, alpha=16.0))
    assert difference == "rank 4, expected 2; alpha 16, expected 27"


def test_difference_lists_missing_left_over_and_reshaped(small):
    other = WeightLayout(
        (LoRAModule("a.attn.to_v", 2, 6), LoRAModule("c.to_k", 1, 1)), rank=2, alpha=27.0
    )
    missing, left_over = (
        f"{peft_key(module, 'A')}, {peft_key(module, 'B')}" for module in ("b.attn.to_q", "c.to_k")
    )
    assert small.difference(other) == (
        f"2 missing ({missing}); 2 left over ({left_over});"
        f" 1 of another shape ({peft_key('a.attn.to_v', 'B')} is 6×2, not 5×2)"
    )


def test_long_lists_are_shortened_to_one_line(sd15, small):
    layout = WeightLayout.from_denoiser(sd15)
    with pytest.raises(
        W2WError, match=r"adam\.safetensors has another layout: .*125 more"
    ) as error:
        layout.require_equal(replace(small, rank=1), "adam.safetensors")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_random_state_dicts_of_the_paper_give_one_vector(sd15):
    layout = WeightLayout.from_denoiser(sd15)
    weights = torch.randn(layout.num_parameters)
    tensors = list(layout.unflatten(weights).items())
    for seed in range(5):
        random.Random(seed).shuffle(tensors)
        assert torch.equal(layout.flatten(dict(tensors)), weights)
