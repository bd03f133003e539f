"""LoRA files of other programs, in and out, bit for bit.

| format | what it is | where alpha is kept | read by |
|---|---|---|---|
| peft | a folder: weights and a config | the config | PEFT |
| diffusers | one safetensors file | its header | diffusers |
| kohya | one safetensors file | a scalar for each module | A1111, ComfyUI, diffusers |
| authors | one `.pt` file, read only | nowhere: 27, unless given | the paper's code |

Other programs silently load a file without alpha at another strength; here it is an error until the
caller states alpha. Files are untrusted: anything but a plain LoRA of one rank and one alpha on a
UNet's linear layers is refused, never trimmed.
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
