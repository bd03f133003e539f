"""Where a base is: the folder or hub id that its name means, and the start it may bring."""

import re
from pathlib import Path

from .._shipped import WORLDS, means_world, shipped
from ..errors import InputError
from .sd import Base

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_base(spec: str | Path) -> str | Path:
    """Return the folder of a base, or its hub id, and refuse early what can be neither.

    Raises:
        W2WError: neither, or the folder holds no Stable Diffusion 1 or 2.
    """
    spec = str(spec)
    folder = _folder(spec)
    if folder is not None:
        if fault := _fault(spec, folder):
            raise InputError(fault)
        return folder
    if spec.isidentifier() and not Path(spec).exists():
        known = sorted(p.parent.name for p in WORLDS.glob("*/base"))
        raise InputError(
            f"base {spec!r}: no embedded world of this name in this installation (there are:"
            f" {', '.join(known) or 'none'}); give one of them, a diffusers folder or a hub id"
        )
    if Path(spec).expanduser().exists() or not _HUB_ID.fullmatch(spec):
        raise InputError(
            f"base {spec!r}: expected an embedded world (people), an existing diffusers folder or a"
            " hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5"
        )
    return spec


def find_start_file(base: Base) -> Path | None:
    """Return the LoRA that a base brings for training to start from, or None."""
    # a base made of a pipeline has no name, or one that its maker chose: any folder may have it
    folder = _folder(base.id) if base.id else None
    if folder is None or _fault(base.id, folder):
        return None
    path = folder / "start.safetensors"
    return path if path.is_file() else None


def _folder(spec: str) -> Path | None:
    """Return the folder that a name means, whatever it holds, or None where there is none."""
    if means_world(spec, "unet"):
        return shipped(spec, "base")
    folder = Path(spec).expanduser()
    return folder.resolve() if folder.is_dir() else None


def _fault(spec: str, folder: Path) -> str:
    """Say why a folder can be no base; nothing if it can."""
    if lacking := [part for part in _PARTS if not (folder / part).is_dir()]:
        return (
            f"base {spec!r}: the folder lacks {', '.join(lacking)}; expected a Stable Diffusion as"
            " `pipeline.save_pretrained` writes it"
        )
    if (folder / "text_encoder_2").exists():
        return f"base {spec!r} has two text encoders (SDXL); expected a Stable Diffusion 1 or 2"
    return ""
