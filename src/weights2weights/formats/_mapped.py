"""LoRA files mapped rather than read, so that thousands can be open at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..layout import WeightLayout, peft_key
from ._files import LoRAFormat, load_lora, open_lora


@dataclass(frozen=True)
class MappedLoRA:
    """As `LoRAFile`, with module → (A, B), whose tensors stay in the file until they are used."""

    layout: WeightLayout
    factors: dict[str, tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]]
    format: LoRAFormat
    metadata: Mapping[str, str]


def map_lora(path: str | Path, alpha: float | None = None) -> MappedLoRA:
    """Check a LoRA file completely, as `load_lora` does, and map its tensors."""
    lora = load_lora(path, alpha)
    if lora.format == "authors":
        raise InputError(f"{path} is a .pt file; import it first (w2w import)")
    with open_lora(Path(path)) as (file, _, described):
        tensors = {key: file.read(name) for key, name in described.names.items()}
    modules = [module.name for module in lora.layout.modules]
    factors = {m: (tensors[peft_key(m, "A")], tensors[peft_key(m, "B")]) for m in modules}
    return MappedLoRA(lora.layout, factors, lora.format, lora.metadata)
