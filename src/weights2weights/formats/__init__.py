"""LoRA files of other programs, in and out, bit for bit.

| format | what it is | where alpha is kept | read by |
|---|---|---|---|
| peft | a folder: weights and a config | the config | PEFT |
| diffusers | one safetensors file | its header | diffusers |
| kohya | one safetensors file | a scalar for each module | A1111, ComfyUI, diffusers |
| authors | one `.pt` file, read only | nowhere: 27, unless given | the paper's code |

Alpha is the part that goes missing: without it, other programs load a file at another strength and
say nothing. Here, reading a safetensors file without alpha is an error until the caller states it.

Files are untrusted: a file is checked in full before any of it is returned, and what is not a plain
LoRA of one rank and one alpha on a UNet's linear layers is refused, never trimmed.
"""

from ._files import (
    DIGEST,
    FORMATS,
    AlphaMissing,
    LoRAFile,
    LoRAFormat,
    digest,
    load_lora,
    require_digest,
    write_lora_file,
)

__all__ = [
    "DIGEST",
    "FORMATS",
    "AlphaMissing",
    "LoRAFile",
    "LoRAFormat",
    "digest",
    "load_lora",
    "require_digest",
    "write_lora_file",
]
