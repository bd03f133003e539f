"""The kohya file: what A1111, ComfyUI and diffusers read alike.

Keys `lora_unet_<module>.lora_down.weight` (A), `.lora_up.weight` (B) and, for each module, a scalar
`.alpha`; see `_kohya_names` for `<module>`.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .._safetensors import CheckedFile, write_safetensors
from ..errors import InputError
from ..layout import WeightLayout, peft_key
from ._keys import Described, read_keys
from ._kohya_names import dotted, underscored
from ._settings import plain_number, positive_number

PREFIX = "lora_unet_"
OWN_METADATA = {"ss_network_alpha", "ss_network_dim", "ss_network_module", "ss_sd_model_name"}

_KEY = re.compile(rf"{PREFIX}(?P<module>[^.]+)\.(?P<part>lora_down\.weight|lora_up\.weight|alpha)")
_PARTS = {"lora_down.weight": "A", "lora_up.weight": "B", "alpha": "alpha"}
_EXPECTED = (
    f"{PREFIX}<module>.lora_down.weight, .lora_up.weight or .alpha for a linear layer of Stable"
    " Diffusion 1, 2 or XL"
)

# Width of the text that attn2 reads → what kohya's ss_base_model_version calls that family, by
# which A1111 recognises LoRAs of SDXL.
_FAMILIES = {768: "sd_v1", 1024: "sd_v2", 2048: "sdxl_base_v1-0"}


def describe(file: CheckedFile, path: Path) -> Described:
    """Return the LoRA of a kohya file."""
    keys = read_keys(file, _KEY, _PARTS, _EXPECTED, dotted)
    modules = {module: key for (module, part), key in keys.items() if part != "alpha"}
    alphas = {module: key for (module, part), key in keys.items() if part == "alpha"}
    return Described(
        names={peft_key(*place): key for place, key in keys.items() if place[1] != "alpha"},
        alpha=_one_alpha(file, modules, alphas) if alphas else None,
        base=file.metadata.get("ss_sd_model_name", ""),
    )


def _one_alpha(file: CheckedFile, modules: Mapping[str, str], alphas: Mapping[str, str]) -> float:
    """Return the alpha that all modules share."""
    for module, key in [*modules.items(), *alphas.items()]:
        if module not in alphas:
            raise InputError(
                f"{key} has no alpha next to it and other modules have: expected one for each; the"
                " file is not complete"
            )
        if module not in modules:
            raise InputError(
                f"{key} has no weights next to it: expected them; download the file again"
            )
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
            " file again"
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
    path: Path, tensors: Mapping[str, Tensor], layout: WeightLayout, metadata: Mapping[str, str]
) -> Path:
    """Write a kohya file, with alpha as float32 in every module and exactly in the header."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: expected the name of a .safetensors file in it")
    alpha = torch.tensor(layout.alpha, dtype=torch.float64).float()
    renamed: dict[str, Tensor] = {}
    for module in layout.modules:
        name = PREFIX + underscored(module.name)
        renamed[f"{name}.lora_down.weight"] = tensors[peft_key(module.name, "A")]
        renamed[f"{name}.lora_up.weight"] = tensors[peft_key(module.name, "B")]
        renamed[f"{name}.alpha"] = alpha
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
    """Name the family under which other programs file the LoRA, as far as its layers show it."""
    text_readers = ("attn2.to_k", "attn2.to_v")
    widths = {m.in_features for m in layout.modules if m.name.endswith(text_readers)}
    family = _FAMILIES.get(widths.pop(), "") if len(widths) == 1 else ""
    named = {"ss_base_model_version": family or layout.base}
    named["ss_v2"] = "True" if family == "sd_v2" else ""
    return {key: value for key, value in named.items() if value}
