"""The tensor names of a LoRA file: which LoRA they describe, and why foreign ones are refused."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from .._safetensors import CheckedFile
from ..errors import InputError, shown


@dataclass(frozen=True)
class Described:
    """A LoRA as its file describes it, before a tensor is read."""

    names: dict[str, str]  # PEFT key → name of that tensor in the file
    alpha: float | None  # None if the file does not state it
    base: str  # the name of its base model, "" if unknown


_FOREIGN = {
    **dict.fromkeys(("lora_te", "text_encoder", "text_model."), "belongs to a text encoder"),
    **dict.fromkeys(("lora_magnitude_vector", "dora_scale"), "belongs to a DoRA"),
    "hada_": "belongs to a LoHa",
    "lokr_": "belongs to a LoKr",
    "lora_mid": "belongs to a LoCon with a core tensor",
    "oft_": "belongs to an OFT or BOFT",
    ".diff": "is a full weight difference",
    ".bias": "is a bias",
    "lora_embedding_": "adapts an embedding",
    "bundle_emb": "is an embedding",
    **dict.fromkeys(("lora_transformer_", "transformer."), "adapts a transformer, not a UNet"),
}
FOREIGN_PARTS = [fragment for fragment in _FOREIGN if "transformer" not in fragment]
"""What no plain LoRA has in its names, whatever it adapts."""


def refuse_key(file: CheckedFile, key: str, expected: str) -> NoReturn:
    """Raise the InputError for a tensor that a LoRA of a UNet's linear layers cannot have."""
    tensor = f"{shown(key)} of shape {list(file.places[key].shape)}"
    for fragment, what in _FOREIGN.items():
        if fragment in key:
            raise InputError(
                f"{tensor} {what}; expected plain LoRAs of a denoiser's linear layers, no more;"
                " train or extract one without it (leaving it out would change the model)"
            )
    raise InputError(f"{tensor} is unknown; expected {expected}")


def read_keys(
    file: CheckedFile,
    pattern: re.Pattern[str],
    parts: Mapping[str, str],
    expected: str,
    respell: Callable[[str], str | None] = lambda module: module,
) -> dict[tuple[str, str], str]:
    """Return (module, part) → key in the order of a file, whose keys all match a pattern.

    Args:
        file: whose keys are read.
        pattern: of a whole key, with groups module, part and, if the format has it, adapter.
        parts: the format's name of a part → "A", "B" or "alpha".
        expected: what a key should look like, for the message.
        respell: maps the format's name of a layer to its path in the UNet, or to None.
    """
    names: dict[tuple[str, str], str] = {}
    adapters: dict[str | None, str] = {}
    for key in file.places:
        match = pattern.fullmatch(key)
        module = respell(match["module"]) if match and "text_model." not in key else None
        if match is None or module is None:
            refuse_key(file, key, expected)
        adapters.setdefault(match.groupdict().get("adapter"), key)
        if len(adapters) > 1:
            keys = " and ".join(adapters.values())
            raise InputError(f"{keys} belong to two adapters; save each to a file of its own")
        place = module, parts[match["part"]]
        if place in names:
            raise InputError(f"{names[place]} and {key} are one tensor; expected it once")
        names[place] = key
    return names
