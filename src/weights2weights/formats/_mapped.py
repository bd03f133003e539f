"""LoRA files mapped rather than read, so that thousands can be open at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from .._safetensors import open_checked
from ..errors import InputError
from ..layout import WeightLayout, peft_key
from ._files import _DESCRIBE, LoRAFormat, _format_of, _locate, load_lora


@dataclass(frozen=True)
class MappedLoRA:
    """A LoRA whose tensors stay in its file until they are used.

    Attributes:
        layout: its layers, rank, alpha and the name of its base.
        factors: module → (A "r in", B "out r"), in the dtype of the file.
        format: the format of the file.
        metadata: the strings of its safetensors header, verbatim.
    """

    layout: WeightLayout
    factors: dict[str, tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]]
    format: LoRAFormat
    metadata: Mapping[str, str]


def map_lora(path: str | Path, alpha: float | None = None) -> MappedLoRA:
    """Check a LoRA file completely, as `load_lora` does, and map its tensors.

    Args:
        path: a safetensors file, or a PEFT or diffusers folder.
        alpha: the LoRA alpha of a file that does not state it.

    Raises:
        W2WError: as `load_lora`.
    """
    lora = load_lora(path, alpha)
    if lora.format == "authors":
        raise InputError(f"{path} is a .pt file; import it first (w2w import)")
    place = _locate(Path(path))
    with open_checked(place) as file:
        names = _DESCRIBE[_format_of(file)](file, place).names
        factors = {
            module.name: (
                file.read(names[peft_key(module.name, "A")]),
                file.read(names[peft_key(module.name, "B")]),
            )
            for module in lora.layout.modules
        }
    return MappedLoRA(lora.layout, factors, lora.format, lora.metadata)
