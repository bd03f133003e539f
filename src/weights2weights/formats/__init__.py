"""LoRA files of other programs, in and out, bit for bit; docs/files.md describes each format.

Other programs silently load a file without alpha at another strength; here it is an error until the
caller states alpha. Files are untrusted: anything but a plain LoRA of one rank and one alpha on a
UNet's linear layers is refused, never trimmed.
"""

from ._files import FORMATS, AlphaMissing, LoRAFile, LoRAFormat, load_lora, write_lora_file
from ._mapped import MappedLoRA, map_lora

__all__ = [
    "FORMATS",
    "AlphaMissing",
    "LoRAFile",
    "LoRAFormat",
    "MappedLoRA",
    "load_lora",
    "map_lora",
    "write_lora_file",
]
