"""Where a base is: the folder or hub id that its name means, and the start it may bring."""

import re
from pathlib import Path

from .._shipped import WORLDS, means_world, shipped
from ..errors import InputError
from ._hash import PARTS
from .sd import Base


def find_base(spec: str | Path) -> str | Path:
    """Return the folder of a base, or its hub id, and refuse early what can be neither.

    Raises:
        W2WError: neither, or the folder holds no Stable Diffusion 1 or 2.
    """
    spec = str(spec)
    if folder := _folder(spec):
        if fault := _fault(folder):
            raise InputError(f"base {spec!r} {fault}")
        return folder
    if spec.startswith((".", "~", "/")) and not Path(spec).expanduser().exists():
        raise InputError(
            f"base {spec!r} is not a folder; expected a diffusers folder, a world such as people,"
            " or a hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        )
    if Path(spec).expanduser().exists() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", spec):
        worlds = sorted(p.parent.name for p in WORLDS.glob("*/base"))
        raise InputError(
            f"base {spec!r}: no embedded world of this name in this installation (there are:"
            f" {', '.join(worlds) or 'none'}) and no diffusers folder; give one of them or a hub id"
            " such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        )
    return spec


def find_start_file(base: Base) -> Path | None:
    """Return the LoRA that a base brings for training to start from, or None."""
    # a base made of a pipeline has no name, or one that its maker chose: any folder may have it
    folder = _folder(base.id) if base.id else None
    if folder is None or _fault(folder) or not (folder / "start.safetensors").is_file():
        return None
    return folder / "start.safetensors"


def _folder(spec: str) -> Path | None:
    """Return the folder that a name means, whatever it holds, or None where there is none."""
    if means_world(spec, "unet"):
        return shipped(spec, "base")
    folder = Path(spec).expanduser()
    return folder.resolve() if folder.is_dir() else None


def _fault(folder: Path) -> str:
    """Say why a folder cannot be a base; nothing if it can."""
    if (folder / "text_encoder_2").exists():
        return "has two text encoders (SDXL); expected a Stable Diffusion 1 or 2"
    lacking = ", ".join(part for part in PARTS if not (folder / part).is_dir())
    wanted = "expected a Stable Diffusion as `pipeline.save_pretrained` writes it"
    return f"lacks {lacking}; {wanted}" if lacking else ""
