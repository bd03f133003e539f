"""The PEFT adapter: a folder of `adapter_model.safetensors` and `adapter_config.json`.

Keys `base_model.model.<module>.lora_A.weight`, alpha in the config. Read by
`PeftModel.from_pretrained`. Files written by the authors of the paper name the adapter inside the
key (`lora_A.identity1.weight`); that name is dropped.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .._files import make_folder, readable_errors, sync_folder, write_atomic
from .._json import canonical_json, parse_json
from .._safetensors import (
    MAX_HEADER,
    CheckedFile,
    write_safetensors,
)
from ..errors import InputError, shown
from ..layout import WeightLayout, peft_key
from ._parts import Described, alpha_of_config, pair_names, plain_number, refuse_key

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
OWN_METADATA = {"format"}

_KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])(\.(?P<adapter>[^.]+))?\.weight"
)
_EXPECTED = peft_key("<module>", "A") + " or lora_B"


def recognise(key: str) -> bool:
    """Say whether a tensor's name is of this format."""
    return key.startswith("base_model.model.")


def describe(file: CheckedFile, path: Path) -> Described:
    """Return the LoRA of an `adapter_model.safetensors` and the config beside it."""
    names = pair_names(file, _KEY, _EXPECTED)
    if text := next((key for key in names.values() if "text_model." in key), None):
        refuse_key(file, text, _EXPECTED)
    config = _read_config(path)
    shapes = {place: file.places[key].shape for place, key in names.items()}
    alpha = alpha_of_config(config, shapes, CONFIG_NAME)
    base = config.get("base_model_name_or_path")
    return Described(
        names={peft_key(*place): key for place, key in names.items()},
        alpha=alpha,
        base=base if isinstance(base, str) else "",
    )


def _read_config(path: Path) -> dict:
    """Read the config of a weights file; other files of the folder may belong to other weights."""
    config_path = path.with_name(CONFIG_NAME)
    if path.name != WEIGHTS_NAME or not config_path.is_file():
        return {}
    with config_path.open("rb") as file:
        raw = file.read(MAX_HEADER + 1)
    if len(raw) > MAX_HEADER:
        raise InputError(f"{CONFIG_NAME} exceeds {MAX_HEADER:,} bytes: expected a PEFT config")
    config = parse_json(raw, CONFIG_NAME)
    if not isinstance(config, dict):
        raise InputError(f"{CONFIG_NAME} holds {shown(config)}: expected a JSON object")
    return config


def config_of(layout: WeightLayout) -> dict:
    """Return the fields of PEFT's LoraConfig that state this layout, and its base if it is known.

    Modules are targeted by their full names: "to_q" alone would also adapt layers outside the
    layout, and PEFT would fill those at random.
    """
    return {
        "base_model_name_or_path": layout.base or None,
        "bias": "none",
        "lora_alpha": plain_number(layout.alpha),
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": layout.rank,
        "target_modules": [module.name for module in layout.modules],
    }


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    layout: WeightLayout,
    metadata: Mapping[str, str],
) -> Path:
    """Write an adapter folder; an adapter that is there is replaced, other files stay.

    The old config goes first and the new one comes last. Cut in between, the folder holds weights
    without alpha, which is an error on reading and never another model.
    """
    if path.suffix == ".safetensors" or path.is_file():
        raise InputError(f"{path}: a PEFT adapter is a folder; name one, such as {path.stem}")
    config = {**config_of(layout), "inference_mode": True, "task_type": None}
    make_folder(path)
    with readable_errors("replace", path / CONFIG_NAME):
        (path / CONFIG_NAME).unlink(missing_ok=True)
        sync_folder(path)
    write_safetensors(path / WEIGHTS_NAME, tensors, {**metadata, "format": "pt"})
    write_atomic(path / CONFIG_NAME, [canonical_json(config)])
    return path
