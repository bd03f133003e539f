"""The kohya file: what A1111, ComfyUI and diffusers read alike.

Keys `lora_unet_<module>.lora_down.weight` (A), `.lora_up.weight` (B) and, for each module, a scalar
`.alpha`. In `<module>` every dot has become an underscore, so `attn1.to_q` is `attn1_to_q`, and the
way back has to know which underscores belong to a word. `_WORDS` holds every word in the path of a
linear layer of Stable Diffusion 1, 2 and XL, the UNets that this format knows. Where one of them
continues another (`proj_in` and `proj`), what follows (`in`) begins no word and is no number. So at
each place only the longest word that fits can lead to the end: a name has one reading or none, and
`dotted` finds it.

Names in the older LDM spelling (`input_blocks_4_1_…`), in which most SDXL files come, are respelled
on reading. It counts two resnets per block, as those UNets have.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .._safetensors import CheckedFile, write_safetensors
from ..errors import InputError, shown
from ..layout import WeightLayout, peft_key
from ._parts import Described, pair_names, plain_number, positive_number, refuse_key

PREFIX = "lora_unet_"
OWN_METADATA = {"ss_network_alpha", "ss_network_dim", "ss_network_module", "ss_sd_model_name"}

_PARTS = {"lora_down.weight": "A", "lora_up.weight": "B"}
_KEY = re.compile(rf"{PREFIX}(?P<module>[^.]+)\.(?P<part>lora_down\.weight|lora_up\.weight|alpha)")
_EXPECTED = f"{PREFIX}<module>.lora_down.weight, .lora_up.weight or .alpha"

# fmt: off
_WORDS = {
    "add_embedding", "attentions", "attn1", "attn2", "down_blocks", "ff", "linear_1", "linear_2",
    "mid_block", "net", "proj", "proj_in", "proj_out", "resnets", "time_emb_proj", "time_embedding",
    "to_k", "to_out", "to_q", "to_v", "transformer_blocks", "up_blocks",
}
# fmt: on
_MOST_PARTS = max(word.count("_") for word in _WORDS) + 1

# Width of the text that attn2 reads → what kohya's ss_base_model_version calls that family; A1111
# tells SDXL LoRAs by it.
_FAMILIES = {768: "sd_v1", 1024: "sd_v2", 2048: "sdxl_base_v1-0"}


def recognise(key: str) -> bool:
    """Say whether a tensor's name is of this format."""
    return key.startswith(PREFIX)


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
            if word in _WORDS or _is_index(word):
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


def describe(file: CheckedFile, path: Path) -> Described:
    """Return the LoRA of a kohya file."""
    del path  # everything is in the file itself
    weights: dict[str, str] = {}
    modules: dict[str, str] = {}
    alphas: dict[str, str] = {}
    for (name, part), key in pair_names(file, _KEY, _EXPECTED).items():
        module = dotted(name)
        if module is None:
            refuse_key(file, key, f"a linear layer of Stable Diffusion 1, 2 or XL after {PREFIX}")
        if part == "alpha":
            found, place = alphas, module
        else:
            found, place = weights, peft_key(module, _PARTS[part])
            modules[module] = key
        if place in found:
            raise InputError(f"{found[place]} and {key} are one tensor; expected it once")
        found[place] = key
    return Described(
        names=weights,
        alpha=_one_alpha(file, modules, alphas),
        base=file.metadata.get("ss_sd_model_name", ""),
    )


def _one_alpha(
    file: CheckedFile, modules: Mapping[str, str], alphas: Mapping[str, str]
) -> float | None:
    """Return the alpha that all modules share, None if no module has one."""
    if not alphas:
        return None
    for module, key in modules.items():
        if module not in alphas:
            raise InputError(
                f"{key} has no alpha beside it and other modules have: expected one for each; the"
                " file is not complete"
            )
    for module, key in alphas.items():
        if module not in modules:
            raise InputError(f"{key} has no weights beside it: expected them; fetch the file again")
    values = {key: _alpha(file, key) for key in alphas.values()}
    first, alpha = next(iter(values.items()))
    if other := next((key for key, value in values.items() if value != alpha), None):
        raise InputError(
            f"{first} is {alpha:g} and {other} is {values[other]:g}: expected one alpha for all"
            " modules; scale the lora_up of the others to match it"
        )
    return _unrounded(alpha, file.metadata.get("ss_network_alpha", ""))


def _alpha(file: CheckedFile, key: str) -> float:
    place = file.places[key]
    if math.prod(place.shape) != 1 or place.dtype == "BOOL":
        raise InputError(
            f"{key} is {place.dtype} of shape {list(place.shape)}: expected one number; export the"
            " file anew"
        )
    return positive_number(file.read(key).item(), key)


def _unrounded(alpha: float, text: str) -> float:
    """Return the alpha of the header if the tensors hold its float32 rounding, else theirs."""
    try:
        exact = float(text)
    except ValueError:
        return alpha
    return exact if torch.tensor(exact, dtype=torch.float64).float().item() == alpha else alpha


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    layout: WeightLayout,
    metadata: Mapping[str, str],
) -> Path:
    """Write a kohya file. Alpha stands in every module as float32 and, exactly, in the header."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: expected the name of a .safetensors file in it")
    alpha = torch.tensor(layout.alpha, dtype=torch.float64).float()
    if alpha == 0 or alpha.isinf():
        raise InputError(
            f"alpha {layout.alpha:g} is beyond float32: expected a usual one, as 1 or 27"
        )
    renamed: dict[str, Tensor] = {}
    for module in layout.modules:
        name = PREFIX + underscored(module.name)
        renamed[f"{name}.alpha"] = alpha
        for ending, part in _PARTS.items():
            renamed[f"{name}.{ending}"] = tensors[peft_key(module.name, part)]
    own = {
        "ss_network_alpha": str(plain_number(layout.alpha)),
        "ss_network_dim": str(layout.rank),
        "ss_network_module": "networks.lora",
    }
    if layout.base:
        own["ss_sd_model_name"] = layout.base
    write_safetensors(path, renamed, {**_family(layout), **metadata, **own})
    return path


def _family(layout: WeightLayout) -> dict[str, str]:
    """Name the family under which other programs file the LoRA, as far as its layers tell it."""
    text_readers = ("attn2.to_k", "attn2.to_v")
    widths = {m.in_features for m in layout.modules if m.name.endswith(text_readers)}
    family = _FAMILIES.get(widths.pop(), "") if len(widths) == 1 else ""
    named = {"ss_base_model_version": family or layout.base}
    named["ss_v2"] = "True" if family == "sd_v2" else ""
    return {key: value for key, value in named.items() if value}
