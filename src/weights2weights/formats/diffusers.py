"""The diffusers file: `pytorch_lora_weights.safetensors`.

Keys `unet.<module>.lora_A.weight`; alpha in the header, as the JSON of PEFT's LoraConfig with every
field prefixed by `unet.`, under `lora_adapter_metadata`. Read by `pipe.load_lora_weights`, which
takes a file without that entry for alpha = rank and says nothing: 1/27 of the strength of ours.

Older versions wrote `lora.down.weight` for lora_A, and no alpha; they are read too.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .._json import parse_json
from .._safetensors import CheckedFile, write_safetensors
from ..errors import InputError, shown
from ..layout import WeightLayout, peft_key
from ._parts import Described, alpha_of_config, pair_names
from .peft import config_of

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
HEADER_ENTRY = "lora_adapter_metadata"
OWN_METADATA = {"format", HEADER_ENTRY}

_KEY = re.compile(
    r"unet\.(?P<module>.+)\.(?P<part>lora_[AB]|lora\.down|lora\.up)"
    r"((?<=lora_[AB])\.(?P<adapter>[^.]+))?\.weight"
)
_EXPECTED = "unet.<module>.lora_A.weight or lora_B"
_PARTS = {"lora_A": "A", "lora.down": "A", "lora_B": "B", "lora.up": "B"}


def recognise(key: str) -> bool:
    """Say whether a tensor's name is of this format."""
    return key.startswith("unet.")


def describe(file: CheckedFile, path: Path) -> Described:
    """Return the LoRA of a diffusers file."""
    del path  # everything is in the file itself
    named = pair_names(file, _KEY, _EXPECTED)
    names = {(module, _PARTS[part]): key for (module, part), key in named.items()}
    if len(names) < len(named):
        raise InputError("holds a tensor under both lora_A and lora.down; expected it once")
    fields = _read_fields(file.metadata)
    config = {k.removeprefix("unet."): v for k, v in fields.items() if k.startswith("unet.")}
    shapes = {place: file.places[key].shape for place, key in names.items()}
    alpha = alpha_of_config(config, shapes, HEADER_ENTRY)
    base = config.get("base_model_name_or_path")
    return Described(
        names={peft_key(*place): key for place, key in names.items()},
        alpha=alpha,
        base=base if isinstance(base, str) else "",
    )


def _read_fields(metadata: Mapping[str, str]) -> dict:
    if not metadata.get(HEADER_ENTRY):
        return {}
    fields = parse_json(metadata[HEADER_ENTRY], HEADER_ENTRY)
    if not isinstance(fields, dict):
        raise InputError(f"{HEADER_ENTRY} holds {shown(fields)}: expected a JSON object")
    return fields


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    layout: WeightLayout,
    metadata: Mapping[str, str],
) -> Path:
    """Write a diffusers file; into a folder, under the name that `load_lora_weights` looks for."""
    path = path / WEIGHTS_NAME if path.is_dir() else path
    fields = {f"unet.{field}": value for field, value in config_of(layout).items()}
    write_safetensors(
        path,
        {f"unet.{key.removeprefix('base_model.model.')}": tensors[key] for key in tensors},
        {**metadata, "format": "pt", HEADER_ENTRY: json.dumps(fields, sort_keys=True)},
    )
    return path
