"""What the formats share: the LoRA that a header describes, PEFT's settings, keys of strangers."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from .._safetensors import CheckedFile
from ..errors import InputError, shown


@dataclass(frozen=True)
class Described:
    """A LoRA as its file describes it, before a number is read.

    Attributes:
        names: PEFT key → name of that tensor in the file.
        alpha: as the file states it, or None if it does not.
        base: the name of its base model ("" if unknown).
    """

    names: dict[str, str]
    alpha: float | None
    base: str


_FOREIGN = {
    "lora_te": "belongs to a text encoder",
    "text_encoder": "belongs to a text encoder",
    "text_model.": "belongs to a text encoder",
    "lora_magnitude_vector": "belongs to a DoRA",
    "dora_scale": "belongs to a DoRA",
    "hada_": "belongs to a LoHa",
    "lokr_": "belongs to a LoKr",
    "lora_mid": "belongs to a LoCon with a core tensor",
    "oft_": "belongs to an OFT or BOFT",
    ".diff": "is a full weight difference",
    ".bias": "is a bias",
    "lora_embedding_": "adapts an embedding",
    "bundle_emb": "is an embedding",
    "lora_transformer_": "adapts a transformer and no UNet",
    "transformer.": "adapts a transformer and no UNet",
}


def refuse_key(file: CheckedFile, key: str, expected: str) -> NoReturn:
    """Raise the W2WError for a tensor that a LoRA of a UNet's linear layers cannot have."""
    shape = list(file.places[key].shape)
    for fragment, what in _FOREIGN.items():
        if fragment in key:
            raise InputError(
                f"{shown(key)} of shape {shape} {what}: expected plain LoRAs of a UNet's linear"
                " layers and nothing else; train or extract one without it (leaving it out would"
                " give another model)"
            )
    raise InputError(f"{shown(key)} of shape {shape} is unknown: expected {expected}")


def pair_names(
    file: CheckedFile, pattern: re.Pattern[str], expected: str
) -> dict[tuple[str, str], str]:
    """Match every key with a pattern of groups module, part and, if the format has it, adapter.

    Returns:
        (module, part) → key, in the order of the file.

    Raises:
        W2WError: a key that does not match, one tensor under two keys, or several adapters.
    """
    names: dict[tuple[str, str], str] = {}
    adapters: dict[str | None, str] = {}
    for key in file.places:
        match = pattern.fullmatch(key)
        if match is None:
            refuse_key(file, key, expected)
        place = match["module"], match["part"]
        adapters.setdefault(match.groupdict().get("adapter"), key)
        if len(adapters) > 1:
            first, second = list(adapters.values())[:2]
            raise InputError(
                f"{first} and {second} belong to two adapters: expected one in a file; save each"
                " on its own"
            )
        if place in names:
            raise InputError(f"{names[place]} and {key} are one tensor; expected it once")
        names[place] = key
    return names


def positive_number(value: Any, what: str) -> float:
    """Return a stranger's alpha as a float.

    Raises:
        W2WError: it is no finite number above 0.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and number > 0:
            return number
    raise InputError(f"{what} is {shown(value)}: expected a finite number above 0")


# The settings of PEFT's LoraConfig that do not change what a trained LoRA computes.
_WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
_CHECKED = {
    "alpha_pattern",
    "init_lora_weights",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
}
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ) change the base's own weights on loading.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


def alpha_of_config(
    config: Mapping[str, Any], shapes: Mapping[tuple[str, str], tuple[int, ...]], where: str
) -> float | None:
    """Return alpha as stated by PEFT's LoraConfig, once sure that nothing else in it has an effect.

    Args:
        config: fields of LoraConfig, untrusted.
        shapes: (module, part) → shape of the tensors that it goes with.
        where: what held the fields, for messages.

    Returns:
        alpha, or None if the field is missing.

    Raises:
        W2WError: another kind of adapter, several ranks or alphas, a rank that the tensors do not
            have, a module that the config leaves out, a setting that changes the forward pass.
    """
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise InputError(f"{where} has peft_type {shown(kind)}: expected 'LORA'")
    for field, value in config.items():
        neutral = not value or value == "none"
        if not neutral and field not in _WITHOUT_EFFECT and field not in _CHECKED:
            raise InputError(
                f"{where} sets {shown(field)} to {shown(value)}: expected a plain LoRA without it;"
                " train or extract one"
            )
    start = config.get("init_lora_weights")
    if not any(start is plain or start == plain for plain in _PLAIN_STARTS):
        raise InputError(
            f"{where} sets 'init_lora_weights' to {shown(start)}, which changes the base: expected"
            " a plain LoRA; convert it with PEFT's path_initial_model_for_weight_conversion"
        )
    _check_rank(config, shapes, where)
    _check_targets(config, shapes, where)
    return _one_alpha(config, where)


def _check_rank(
    config: Mapping[str, Any], shapes: Mapping[tuple[str, str], tuple[int, ...]], where: str
) -> None:
    ranks = {shape[0] for (_, part), shape in shapes.items() if part == "A" and shape}
    stated = [config["r"]] if config.get("r") is not None else []
    stated += _values(config, "rank_pattern", where)
    for rank in stated:
        if type(rank) is not int or ranks != {rank}:
            raise InputError(
                f"{where} states rank {shown(rank)} and its tensors have rank"
                f" {', '.join(map(str, sorted(ranks)))}: expected one rank; resize the LoRA first"
            )


def _check_targets(
    config: Mapping[str, Any], shapes: Mapping[tuple[str, str], tuple[int, ...]], where: str
) -> None:
    """PEFT skips tensors of modules that are not among its targets; we would not."""
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return
    wanted = {target for target in targets if isinstance(target, str)}
    for module in {module for module, _ in shapes}:
        parts = module.split(".")
        if not any(".".join(parts[start:]) in wanted for start in range(len(parts))):
            raise InputError(
                f"{where} leaves {module} out of its target_modules, so that PEFT would skip its"
                " tensors: expected every module there; add it, or drop its tensors"
            )


def _one_alpha(config: Mapping[str, Any], where: str) -> float | None:
    if config.get("lora_alpha") is None:
        return None
    alpha = positive_number(config["lora_alpha"], f"lora_alpha in {where}")
    for other in _values(config, "alpha_pattern", where):
        if other != alpha:
            raise InputError(
                f"{where} states alpha {alpha:g} and also {shown(other)}: expected one alpha for"
                " all modules; scale the B of the others to match it"
            )
    return alpha


def _values(config: Mapping[str, Any], field: str, where: str) -> Iterable[Any]:
    pattern = config.get(field) or {}
    if not isinstance(pattern, dict):
        raise InputError(f"{where} sets {field} to {shown(pattern)}: expected an object")
    return list(pattern.values())


def plain_number(value: float) -> int | float:
    """Return a whole float as int, as other programs write it; both read back as the same float."""
    return int(value) if value.is_integer() else value
