"""Kohya's names of layers, to and from the paths of a UNet.

Every dot of a path has become an underscore, so `attn1.to_q` is `attn1_to_q`, and the way back has
to know which underscores belong to a word. `WORDS` holds every word in the path of a linear layer
of Stable Diffusion 1, 2 and XL, the UNets that this format knows. Where one of them continues
another (`proj_in` and `proj`), what follows (`in`) begins no word and is not an index. So at each
place only the longest word that fits can lead to the end: a name has one reading or none, and
`dotted` finds it.

Names in the older LDM spelling (`input_blocks_4_1_…`), in which most SDXL files come, are respelled
on reading. That counts two resnets per block, as those UNets have.
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
_MOST_PARTS = max(word.count("_") for word in WORDS) + 1


def underscored(module: str) -> str:
    """Return the kohya name of a layer.

    Raises:
        W2WError: the name does not come back from `dotted`, so that no program could know it again.
    """
    name = module.replace(".", "_")
    # The one spelling of SDXL's size embedding that diffusers understands is the older one.
    name = _TO_LDM.get(name, name)
    if dotted(name) != module:
        raise InputError(
            f"layer {shown(module)} has no kohya name that leads back to it: expected the linear"
            " layers of Stable Diffusion 1, 2 or XL; export it as peft or diffusers"
        )
    return name


def dotted(name: str) -> str | None:
    """Return the layer of a kohya name, diffusers or LDM spelling; None if it names none."""
    name = _from_ldm(name)
    parts, words, start = name.split("_"), [], 0
    while start < len(parts):
        for stop in range(min(start + _MOST_PARTS, len(parts)), start, -1):
            word = "_".join(parts[start:stop])
            if word in WORDS or _is_index(word):
                words.append(word)
                start = stop
                break
        else:
            return None
    return ".".join(words)


def _is_index(word: str) -> bool:
    return word.isascii() and word.isdecimal() and (word == "0" or word[0] != "0")


_LDM_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)_(\d{1,3})(?:_(\d))?_(.+)")
_LDM_LAYERS = {
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_TO_LDM = {ours: ldm for ldm, ours in _LDM_LAYERS.items() if ours.startswith("add_embedding")}


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
