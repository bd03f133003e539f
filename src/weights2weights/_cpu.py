"""Two parts of the UNet in a form that trains faster on CPUs; results differ by rounding only.

Measured on the people UNet, a training step of 64 samples in bfloat16 on one thread: 595 ms with
diffusers' own plain attention and gates, 570 with `SplitGate`, 540 with `PlainAttention` as well.
The rest is convolutions and matrix products, half of the time near the processor's limit.
"""

from typing import Any, no_type_check

import torch
import torch.nn.functional as F
from torch import nn


def use_fast_modules(unet: Any) -> None:
    """Replace a UNet's GEGLU layers and attention processors, keeping names and weights."""
    from diffusers.models.activations import GEGLU
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for module in list(unet.modules()):
        for name, child in module.named_children():
            if type(child) is GEGLU:
                setattr(module, name, SplitGate(child.proj))
            elif type(child) is Attention:
                processor: Any = PlainAttention() if _is_bare(child) else AttnProcessor()
                child.set_processor(processor)


class PlainAttention:
    """Attention as in diffusers' `AttnProcessor`, with fewer passes over large tensors.

    It scales the keys instead of the scores: in cross-attention there are fewer of them, and with
    LoRAs on queries and values no gradient flows back through them.
    """

    @no_type_check
    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, *args, **kwargs
    ):
        """Return the output "n tokens width" of an attention layer, for its processor."""
        if attention_mask is not None:
            from diffusers.models.attention_processor import AttnProcessor

            given = (attn, hidden_states, encoder_hidden_states, attention_mask)
            return AttnProcessor()(*given, *args, **kwargs)
        heads = attn.heads
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, value = attn.to_q(hidden_states), attn.to_v(context)
        query, key, value = (
            x.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)
            for x in (query, attn.to_k(context) * attn.scale, value)
        )
        found = torch.bmm(torch.bmm(query, key.mT).softmax(-1), value)
        found = found.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](found))


class SplitGate(nn.Module):
    """GEGLU as two products, whose contiguous results make GELU 3 times faster on CPUs.

    Attributes:
        proj: the linear layer of the GEGLU that it replaces.
    """

    def __init__(self, proj: nn.Linear):
        super().__init__()
        self.proj = proj

    @no_type_check
    def forward(self, x, *args, **kwargs):
        """Return value · gelu(gate), half as wide as `proj`."""
        if type(self.proj) is not nn.Linear:  # it carries a LoRA, say
            value, gate = self.proj(x).chunk(2, dim=-1)
            return value * F.gelu(gate)
        weights = self.proj.weight.chunk(2)
        biases = (None, None) if self.proj.bias is None else self.proj.bias.chunk(2)
        value, gate = map(F.linear, (x, x), weights, biases)
        return value * F.gelu(gate)


def _is_bare(attn: Any) -> bool:
    """Return whether an attention layer has nothing beyond that of a plain transformer block."""
    extras = ("spatial_norm", "group_norm", "norm_cross", "residual_connection", "upcast_attention")
    more = any(getattr(attn, name, None) for name in (*extras, "upcast_softmax"))
    return not more and attn.rescale_output_factor == 1
