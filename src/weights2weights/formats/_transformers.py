"""LoRAs of transformers (SD 3, FLUX.1), whatever program wrote them, in diffusers' names.

The conversions are diffusers' own, behind `FluxPipeline.lora_state_dict`: kohya and BFL names with
fused query, key and value; xlabs; ai-toolkit. They fold alpha into the tensors. Parts of a fused
layer may come out with a third of the file's rank: they are padded with zeros, so that all layers
have one rank again, and the update stays the same.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from .._safetensors import CheckedFile, TensorFacts
from ..errors import InputError, shown
from ._keys import FOREIGN_PARTS, refuse_key
from .peft import DIFFUSERS_ENTRY, TRANSFORMER_PREFIX

_THEIRS = re.compile(r"(.*\.)?(lora_unet_)?(double|single)_blocks|lora_transformer_")


def is_converted(file: CheckedFile) -> bool:
    """Return whether a file needs `converted`: foreign names, or alpha by convention."""
    if any(_THEIRS.match(key) for key in file.places):
        return True
    stated = DIFFUSERS_ENTRY in file.metadata or not file.places
    return not stated and all(key.startswith(TRANSFORMER_PREFIX) for key in file.places)


def converted(file: CheckedFile) -> CheckedFile:
    """Return the LoRA of a file under diffusers' names, with alpha folded in and one rank.

    Raises:
        InputError: it holds anything but plain LoRAs, or what diffusers cannot convert.
    """
    for key in file.places:
        if any(fragment in key for fragment in FOREIGN_PARTS):
            refuse_key(file, key, "a plain LoRA")
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    given = {key: file.read(key).clone() for key in file.places}
    try:
        with _warnings_as_errors("diffusers.loaders.lora_conversion_utils"):
            tensors, alphas = FluxPipeline.lora_state_dict(given, return_alphas=True)
    except (AssertionError, ValueError, KeyError, RuntimeError) as error:
        reason = shown(str(error)) if str(error) else "of other widths than FLUX.1's"
        raise InputError(
            f"diffusers cannot convert its tensors ({reason}); expected a plain LoRA of FLUX.1, or"
            " of a transformer under diffusers' names"
        ) from error
    return _of_one_rank(tensors, alphas or {})


def _of_one_rank(tensors: Mapping[str, Tensor], alphas: Mapping[str, Tensor]) -> CheckedFile:
    """Return tensors as a file: alphas times the factors B, and all ranks padded to the largest."""
    downs = [x for key, x in tensors.items() if ".lora_A." in key and x.ndim == 2]
    rank = max((len(down) for down in downs), default=1)
    padded: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        alpha = alphas.get(re.sub(r"\.lora_[AB]\.weight$", ".alpha", key))
        if ".lora_B." in key and alpha is not None:
            tensor = (tensor.float() * float(alpha) / tensor.shape[1]).to(tensor.dtype)
        if tensor.ndim == 2:
            axis = 0 if ".lora_A." in key else 1
            missing = list(tensor.shape)
            missing[axis] = rank - missing[axis]
            tensor = torch.cat([tensor, tensor.new_zeros(missing)], axis)
        padded[key] = tensor
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    places = {
        key: TensorFacts(names.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        for key, tensor in padded.items()
    }
    stated = f'{{"{TRANSFORMER_PREFIX}lora_alpha": {rank}, "{TRANSFORMER_PREFIX}r": {rank}}}'
    return CheckedFile({DIFFUSERS_ENTRY: stated}, places, padded.__getitem__)


@contextmanager
def _warnings_as_errors(name: str) -> Iterator[None]:
    """Raise ValueError where a logger warns: diffusers does so about tensors that it leaves out."""
    logger = logging.getLogger(name)
    told: list[str] = []
    handler, level = logging.Handler(logging.WARNING), logger.level
    handler.emit = lambda record: told.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    if told:
        raise ValueError(told[0])
