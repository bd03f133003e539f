"""Kohya names: every linear layer of a UNet has one, and it leads back to that layer only."""

from functools import cache

import pytest
import torch
from torch import nn

from weights2weights.errors import W2WError
from weights2weights.formats import _kohya_names as kohya

SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
UNETS = {
    "Stable Diffusion 1": {"cross_attention_dim": 768},
    "Stable Diffusion 2": {"cross_attention_dim": 1024, "use_linear_projection": True},
    "Stable Diffusion XL": SDXL,
}

BLOCK = "transformer_blocks"


@cache
def linear_layers(unet: str) -> frozenset[str]:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel(**UNETS[unet])
    modules = network.named_modules()
    return frozenset(name for name, layer in modules if isinstance(layer, nn.Linear))


def test_a_name_can_be_read_in_one_way_only():
    """The condition of the module's docstring, for all names at once.

    A word that continues another goes on with what begins no word. Then of two words that fit at
    one place the shorter is a dead end, and by induction a name has one reading at most.
    """
    begins = {word.split("_")[0] for word in kohya.WORDS}
    for short in kohya.WORDS:
        for long in kohya.WORDS:
            if long.startswith(f"{short}_"):
                next_part = long.removeprefix(f"{short}_").split("_")[0]
                assert next_part not in begins
                assert not next_part.isdecimal()


@pytest.mark.parametrize("unet", UNETS)
def test_every_linear_layer_comes_back(unet):
    layers = linear_layers(unet)
    names = {kohya.underscored(layer): layer for layer in layers}
    assert len(names) == len(layers) > 180
    assert all(kohya.dotted(name) == layer for name, layer in names.items())


@pytest.mark.parametrize("unet", UNETS)
def test_diffusers_reads_the_same_layer_from_every_name(unet):
    from diffusers.loaders import lora_conversion_utils
    from diffusers.utils import convert_unet_state_dict_to_peft

    for layer in linear_layers(unet):
        name = "lora_unet_" + kohya.underscored(layer)
        tensors = {f"{name}.{part}.weight": torch.zeros(1, 1) for part in ("lora_down", "lora_up")}
        tensors[f"{name}.alpha"] = torch.tensor(27.0)
        found, alphas = lora_conversion_utils._convert_non_diffusers_lora_to_diffusers(tensors)
        found = convert_unet_state_dict_to_peft(
            {key.removeprefix("unet."): tensor for key, tensor in found.items()}
        )
        assert set(found) == {f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"}
        assert list(alphas.values()) == [27.0]


def test_words_are_those_of_unets_and_no_more():
    used = {
        word
        for unet in UNETS
        for layer in linear_layers(unet)
        for word in layer.split(".")
        if not word.isdecimal()
    }
    assert used == kohya.WORDS


@pytest.mark.parametrize(
    ("ldm", "layer"),
    [
        ("input_blocks_4_1_B_0_attn1_to_q", "down_blocks.1.attentions.0.B.0.attn1.to_q"),
        ("input_blocks_8_1_B_9_attn2_to_out_0", "down_blocks.2.attentions.1.B.9.attn2.to_out.0"),
        ("middle_block_1_B_3_ff_net_0_proj", "mid_block.attentions.0.B.3.ff.net.0.proj"),
        ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
        ("middle_block_2_emb_layers_1", "mid_block.resnets.1.time_emb_proj"),
        ("output_blocks_5_1_B_1_attn2_to_v", "up_blocks.1.attentions.2.B.1.attn2.to_v"),
        ("output_blocks_0_0_emb_layers_1", "up_blocks.0.resnets.0.time_emb_proj"),
        ("time_embed_2", "time_embedding.linear_2"),
        ("label_emb_0_0", "add_embedding.linear_1"),
    ],
)
def test_ldm_names_are_respelled(ldm, layer):
    ldm, layer = ldm.replace("_B_", f"_{BLOCK}_"), layer.replace(".B.", f".{BLOCK}.")
    assert kohya.dotted(ldm) == layer


def test_ldm_names_of_sdxl_reach_every_attention_once():
    """Its attentions sit in input blocks 4, 5, 7, 8, middle block 1 and output blocks 0 to 5."""
    layers = linear_layers("Stable Diffusion XL")
    inside = {
        layer.removeprefix("mid_block.attentions.0.").replace(".", "_")
        for layer in layers
        if layer.startswith("mid_block.attentions.0.")
    }
    shallow = {
        name
        for name in inside
        if not name.startswith(tuple(f"transformer_blocks_{i}_" for i in range(2, 10)))
    }
    deep = {f"input_blocks_{i}_1" for i in (7, 8)} | {f"output_blocks_{i}_1" for i in range(3)}
    flat = {f"input_blocks_{i}_1" for i in (4, 5)} | {f"output_blocks_{i}_1" for i in range(3, 6)}
    names = {f"{block}_{name}" for block in deep | {"middle_block_1"} for name in inside}
    names |= {f"{block}_{name}" for block in flat for name in shallow}
    reached = [kohya.dotted(name) for name in names]
    assert len(set(reached)) == len(reached)
    assert set(reached) == {layer for layer in layers if ".attentions." in layer}


@pytest.mark.parametrize(
    "name",
    [
        "", "_", "to_q_", "_to_q", "to__q", "to_q_01", "TO_Q", "to", "proj_on", "to_q_٣",
        "input_blocks_0_0_to_q", "input_blocks_4_to_q", "input_blocks_4_2_to_q",
        "middle_block_3_to_q", "middle_block_1_1_to_q", "double_blocks_0_img_attn_qkv",
    ],
)  # fmt: skip
def test_what_names_no_layer_is_not_guessed(name):
    assert kohya.dotted(name) is None


@pytest.mark.parametrize(
    "layer",
    [
        "to.q",
        "to_q.01",
        "down.blocks_0.to_q",
        "time_embed.0",
        "down_blocks.0.attentions.0.add_k_proj",
    ],
)
def test_a_layer_that_could_not_come_back_gets_no_name(layer):
    with pytest.raises(W2WError, match=r"no kohya name.*export it as peft or diffusers"):
        kohya.underscored(layer)
