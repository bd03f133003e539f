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
    alphas = {module: key for (module, part), key in keys.items() if part == "alpha"}
    weights = {place: key for place, key in keys.items() if place[1] != "alpha"}
    return Described(
        names={peft_key(*place): key for place, key in weights.items()},
        alpha=_one_alpha(file, {m: key for (m, _), key in weights.items()}, alphas),
        base=file.metadata.get("ss_sd_model_name", ""),
    )


def _one_alpha(
    file: CheckedFile, modules: Mapping[str, str], alphas: Mapping[str, str]
) -> float | None:
    """Return the alpha that all modules share, or None if there is none."""
    if not alphas:
        return None
    for one, other, what in ((modules, alphas, "alpha"), (alphas, modules, "weights")):
        if lonely := one.keys() - other.keys():
            raise InputError(
                f"{one[min(lonely)]} has no {what} next to it; the file is incomplete: download it"
                " again"
            )
    values: dict[float, str] = {}
    for key in alphas.values():
        place = file.places[key]
        if math.prod(place.shape) != 1 or place.dtype == "BOOL":
            found = f"{place.dtype} of shape {list(place.shape)}"
            raise InputError(f"{key} is {found}; expected one number")
        values[positive_number(file.read(key).item(), key)] = key
    if len(values) > 1:
        found = ", ".join(f"{alpha:g} ({key})" for alpha, key in list(values.items())[:2])
        raise InputError(
            f"states alpha {found}; expected one alpha for all modules; scale the lora_up of the"
            " others to match it"
        )
    (alpha,) = values
    try:  # the header holds all digits, the tensors their float32 rounding
        exact = float(file.metadata.get("ss_network_alpha", ""))
    except ValueError:
        return alpha
    return exact if _float32(exact).item() == alpha else alpha


def _float32(value: float) -> Tensor:
    """Round a float to float32; beyond its range, to infinity rather than an error."""
    return torch.tensor(value, dtype=torch.float64).float()


def write(
    path: Path, tensors: Mapping[str, Tensor], layout: WeightLayout, metadata: Mapping[str, str]
) -> Path:
    """Write a kohya file, with alpha as float32 in every module and exactly in the header."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a .safetensors file in it")
    renamed: dict[str, Tensor] = {}
    for module in layout.modules:
        name = PREFIX + underscored(module.name)
        renamed[f"{name}.lora_down.weight"] = tensors[peft_key(module.name, "A")]
        renamed[f"{name}.lora_up.weight"] = tensors[peft_key(module.name, "B")]
        renamed[f"{name}.alpha"] = _float32(layout.alpha)
    readers = [m for m in layout.modules if m.name.endswith(("attn2.to_k", "attn2.to_v"))]
    widths = {module.in_features for module in readers}
    family = _FAMILIES.get(widths.pop(), "") if len(widths) == 1 else ""
    own = {
        "ss_network_alpha": str(plain_number(layout.alpha)),
        "ss_network_dim": str(layout.rank),
        "ss_network_module": "networks.lora",
    }
    if layout.base:
        own["ss_sd_model_name"] = layout.base
    if version := family or layout.base:
        metadata = {"ss_base_model_version": version, **metadata}
    if family == "sd_v2":
        metadata = {"ss_v2": "True", **metadata}
    write_safetensors(path, renamed, {**metadata, **own})
    return path
