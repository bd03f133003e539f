"""PEFT's LoraConfig: the alpha it states, once sure that nothing else in it has an effect."""

import math
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, shown
from ..layout import WeightLayout

# Settings that do not change what a trained LoRA computes, then those checked one by one.
# fmt: off
_ACCEPTED = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout",
    "megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "task_type", "use_rslora",
    "alpha_pattern", "init_lora_weights", "lora_alpha", "peft_type", "r", "rank_pattern",
    "target_modules",
}
# fmt: on
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ) change the base's own weights on loading.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")

Shapes = Mapping[tuple[str, str], tuple[int, ...]]


def settings_of(layout: WeightLayout) -> dict[str, Any]:
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


def alpha_of_settings(config: Mapping[str, Any], shapes: Shapes, where: str) -> float | None:
    """Return alpha as stated by PEFT's LoraConfig, or None if the field is missing.

    The config is untrusted: another kind of adapter, several ranks or alphas, a rank that the
    tensors do not have, and settings that change the forward pass are InputErrors.

    Args:
        config: fields of LoraConfig.
        shapes: (module, part) → shape of the tensors that it goes with.
        where: what held the fields, for messages.
    """
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise InputError(f"{where} has peft_type {shown(kind)}; expected 'LORA'")
    for field, value in config.items():
        if field not in _ACCEPTED and value and value != "none":
            raise InputError(
                f"{where} sets {shown(field)} to {shown(value)}; expected a plain LoRA without it;"
                " train or extract one"
            )
    if (start := config.get("init_lora_weights")) not in _PLAIN_STARTS:
        raise InputError(
            f"{where} sets 'init_lora_weights' to {shown(start)}, which changes the base; convert"
            " it with PEFT's path_initial_model_for_weight_conversion"
        )
    _check_targets(config, {module for module, _ in shapes}, where)
    ranks = {shape[0] for (_, part), shape in shapes.items() if part == "A" and shape}
    for rank in _stated(config, "r", "rank_pattern", where):
        if type(rank) is not int or ranks != {rank}:
            raise InputError(
                f"{where} states rank {shown(rank)} and its tensors have rank"
                f" {', '.join(map(str, sorted(ranks)))}; resize the LoRA to one rank first"
            )
    if config.get("lora_alpha") is None:
        return None
    alpha = positive_number(config["lora_alpha"], f"lora_alpha in {where}")
    for other in _stated(config, "lora_alpha", "alpha_pattern", where):
        if other != alpha:
            raise InputError(
                f"{where} states alpha {alpha:g} and also {shown(other)}; expected one alpha for"
                " all modules; scale the B of the others to match it"
            )
    if config.get("use_rslora"):  # its update is alpha / √rank · B A
        return alpha * math.sqrt(next(s[0] for (_, part), s in shapes.items() if part == "A"))
    return alpha


def _check_targets(config: Mapping[str, Any], modules: set[str], where: str) -> None:
    """PEFT skips tensors of modules that are not among its targets; we would not."""
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return
    wanted = tuple(f".{target}" for target in targets if isinstance(target, str))
    for module in sorted(modules):
        if not f".{module}".endswith(wanted):
            raise InputError(
                f"{where} leaves {module} out of its target_modules, so that PEFT would skip its"
                " tensors; add it there, or drop its tensors"
            )


def _stated(config: Mapping[str, Any], field: str, pattern: str, where: str) -> list[Any]:
    """Return the value of a field and its exceptions by module."""
    others = config.get(pattern) or {}
    if not isinstance(others, dict):
        raise InputError(f"{where} sets {pattern} to {shown(others)}; expected an object")
    return [*([] if config.get(field) is None else [config[field]]), *others.values()]


def positive_number(value: Any, what: str) -> float:
    """Return a stranger's number as a float, once it is finite and above 0."""
    if type(value) in (int, float) and 0 < value < 1e300:
        return float(value)
    raise InputError(f"{what} is {shown(value)}; expected a finite number above 0")


def plain_number(value: float) -> int | float:
    """Return a whole float as int, as other programs write it; both read back as the same float."""
    return int(value) if value.is_integer() else value
