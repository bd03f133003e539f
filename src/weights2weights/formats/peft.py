"""LoRAs under PEFT's names and settings: PEFT's own folder, and the one file of diffusers.

Also read: the paper's files, which name the adapter inside the key (`lora_A.identity1.weight`), and
older diffusers files, with `lora.down.weight` for lora_A and no alpha.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .._files import make_folder, readable_errors, sync_folder, write_atomic
from .._json import canonical_json, parse_json
from .._safetensors import CheckedFile, write_safetensors
from ..errors import InputError, shown
from ..layout import WeightLayout, peft_key
from ._keys import Described, read_keys
from ._settings import alpha_of_settings, settings_of

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
PREFIX = "base_model.model."

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
DIFFUSERS_ENTRY = "lora_adapter_metadata"
DIFFUSERS_PREFIX = "unet."
TRANSFORMER_PREFIX = "transformer."

OWN_METADATA = {"format", DIFFUSERS_ENTRY}

_KEY = (
    r"(?P<module>.+)\.(?P<part>lora_[AB]|lora\.down|lora\.up)"
    r"((?<=lora_[AB])\.(?P<adapter>[^.]+))?\.weight"
)
_PARTS = {"lora_A": "A", "lora.down": "A", "lora_B": "B", "lora.up": "B"}


def describe(file: CheckedFile, path: Path) -> Described:
    """Return the LoRA of an `adapter_model.safetensors` and the config next to it."""
    config = path.with_name(CONFIG_NAME)
    known = path.name == WEIGHTS_NAME and config.is_file()  # else it is of other weights
    return _describe(file, PREFIX, config.read_bytes() if known else "{}", CONFIG_NAME, "")


def describe_diffusers(file: CheckedFile, path: Path) -> Described:
    """Return the LoRA of a diffusers file, which holds its settings itself."""
    text = file.metadata.get(DIFFUSERS_ENTRY) or "{}"
    of_transformer = all(key.startswith(TRANSFORMER_PREFIX) for key in file.places)
    prefix = TRANSFORMER_PREFIX if of_transformer else DIFFUSERS_PREFIX
    return _describe(file, prefix, text, DIFFUSERS_ENTRY, prefix)


def _describe(
    file: CheckedFile, prefix: str, raw: bytes | str, where: str, of_fields: str
) -> Described:
    fields = parse_json(raw, where)
    if not isinstance(fields, dict):
        raise InputError(f"{where} holds {shown(fields)}; expected a JSON object")
    prefixed = [name for name in fields if name.startswith(of_fields)]
    config: dict[str, Any] = {name.removeprefix(of_fields): fields[name] for name in prefixed}
    pattern = re.compile(re.escape(prefix) + _KEY)
    names = read_keys(file, pattern, _PARTS, f"{prefix}<module>.lora_A.weight or lora_B")
    shapes = {place: file.places[key].shape for place, key in names.items()}
    base = config.get("base_model_name_or_path")
    return Described(
        names={peft_key(*place): key for place, key in names.items()},
        alpha=alpha_of_settings(config, shapes, where),
        base=base if isinstance(base, str) else "",
    )


def write(
    path: Path, tensors: Mapping[str, Tensor], layout: WeightLayout, metadata: Mapping[str, str]
) -> Path:
    """Write an adapter folder; an adapter in it is replaced, other files stay.

    The old config goes first and the new one comes last. Cut in between, the folder holds weights
    without alpha, which is an error on reading and never another model.
    """
    if path.suffix == ".safetensors" or path.is_file():
        raise InputError(f"{path}: a PEFT adapter is a folder; name one, such as {path.stem}")
    config = {**settings_of(layout), "inference_mode": True, "task_type": None}
    make_folder(path)
    with readable_errors("replace", path / CONFIG_NAME):
        (path / CONFIG_NAME).unlink(missing_ok=True)
        sync_folder(path)
    write_safetensors(path / WEIGHTS_NAME, tensors, {**metadata, "format": "pt"})
    write_atomic(path / CONFIG_NAME, [canonical_json(config)])
    return path


def write_diffusers(
    path: Path, tensors: Mapping[str, Tensor], layout: WeightLayout, metadata: Mapping[str, str]
) -> Path:
    """Write a diffusers file; into a folder, under the name that `load_lora_weights` looks for."""
    path = path / DIFFUSERS_NAME if path.is_dir() else path
    prefix = TRANSFORMER_PREFIX if layout.of_transformer else DIFFUSERS_PREFIX
    fields = {prefix + field: value for field, value in settings_of(layout).items()}
    renamed = {prefix + key.removeprefix(PREFIX): tensors[key] for key in tensors}
    own = {"format": "pt", DIFFUSERS_ENTRY: json.dumps(fields, sort_keys=True)}
    write_safetensors(path, renamed, {**metadata, **own})
    return path
