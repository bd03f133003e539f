"""Kohya's names of layers, to and from the paths of a UNet.

Every dot of a path becomes an underscore, so reading a name back takes the list of all words in the
paths of linear layers of Stable Diffusion 1, 2 and XL. Where one word continues another (`proj_in`
and `proj`), the rest (`in`) begins no word and is not an index, so only the longest word that fits
can lead to the end: a name has one reading or none. The older LDM spelling (`input_blocks_4_1_…`)
of most SDXL files is respelled on reading, counting two resnets per block, as those UNets have.
"""

import re

from ..errors import InputError, shown

# fmt: off
WORDS = {
    "add_embedding", "attentions", "attn1", "attn2", "down_blocks", "ff", "linear_1", "linear_2",
    "mid_block", "net", "proj", "proj_in", "proj_out", "resnets", "time_emb_proj", "time_embedding",
    "to_k", "to_out", "to_q", "to_v", "transformer_blocks", "up_blocks",
}
# fmt: on
# Longest word first; an index has no leading zero.
_WORD = re.compile(f"({'|'.join(sorted(WORDS, key=len, reverse=True))}|0|[1-9][0-9]*)(_|\\Z)")

_LDM_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)_(\d{1,3})(?:_(\d))?_(.+)")
_LDM_LAYERS = {
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
# The one spelling of SDXL's size embedding that diffusers understands is the older one.
_TO_LDM = {ours: ldm for ldm, ours in _LDM_LAYERS.items() if ours.startswith("add_embedding")}


def underscored(module: str) -> str:
    """Return the kohya name of a layer.

    Raises:
        W2WError: `dotted` would not return the layer, so that no program could recognise the name.
    """
    name = module.replace(".", "_")
    name = _TO_LDM.get(name, name)
    if dotted(name) != module:
        raise InputError(
            f"layer {shown(module)} has no kohya name that leads back to it; expected the linear"
            " layers of Stable Diffusion 1, 2 or XL; export it as peft or diffusers"
        )
    return name


def dotted(name: str) -> str | None:
    """Return the layer of a kohya name, diffusers or LDM spelling; None if it names none."""
    name, words, end = _from_ldm(name), [], 0
    while match := _WORD.match(name, end):
        words.append(match[1])
        end = match.end()
    whole = words and end == len(name) and name[-1] != "_"
    return ".".join(words) if whole else None


def _from_ldm(name: str) -> str:
    """Respell an LDM name in the diffusers way; other names pass unchanged.

    Input block 1 + 3i + j is layer j of down block i, output block 3i + j layer j of up block i;
    inside, 0 is the resnet and 1 the attention. The middle block counts resnet, attention, resnet.
    """
    match = _LDM_BLOCK.fullmatch(name)
    if match is None:
        return _LDM_LAYERS.get(name, name)
    side, number, inner, rest = match[1], int(match[2]), match[3], match[4]
    rest = "time_emb_proj" if rest == "emb_layers_1" else rest
    if side == "middle_block" and inner is None and number < 3:
        kind, layer = ("attentions", 0) if number == 1 else ("resnets", number // 2)
        return f"mid_block_{kind}_{layer}_{rest}"
    if side == "middle_block" or inner not in ("0", "1") or (side == "input_blocks" and not number):
        return name
    block, layer = divmod(number - 1 if side == "input_blocks" else number, 3)
    kind = ("resnets", "attentions")[int(inner)]
    return f"{'down' if side == 'input_blocks' else 'up'}_blocks_{block}_{kind}_{layer}_{rest}"
