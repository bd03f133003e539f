"""Where a base is: the folder that its name means, its family, and the start it may bring."""

import re
from pathlib import Path
from typing import Any

from .._json import parse_json
from .._shipped import WORLDS, means_world, shipped
from ..errors import InputError, ResourceError, shown
from ._base import Base
from ._families import FAMILIES, family_of
from ._family import Family

INDEX = "model_index.json"

_WANTED = "expected a diffusers folder as `pipeline.save_pretrained` writes it"


def find_base(spec: str | Path) -> tuple[Path, type[Family]]:
    """Return the folder of a base, downloaded if need be, and its family.

    Raises:
        InputError: there is none of this name, or it is of a kind that the library does not know.
        ResourceError: the hub cannot be reached.
    """
    spec = str(spec)
    folder = _folder(spec)
    if folder is None:
        if spec.startswith((".", "~", "/")) and not Path(spec).expanduser().exists():
            raise InputError(
                f"base {spec!r} is not a folder; expected a diffusers folder, a world such as"
                " people, or a hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5"
            )
        if Path(spec).expanduser().exists() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", spec):
            worlds = sorted(p.parent.name for p in WORLDS.glob("*/base"))
            raise InputError(
                f"base {spec!r}: no embedded world of this name in this installation (there are:"
                f" {', '.join(worlds) or 'none'}) and no diffusers folder; give one of them or a"
                " hub id such as stable-diffusion-v1-5/stable-diffusion-v1-5"
            )
        folder = _download(spec)
    try:
        return folder, _family(folder)
    except InputError as error:
        raise InputError(f"base {spec!r} {error}") from error


def find_start_file(base: Base) -> Path | None:
    """Return the LoRA that a base brings for training to start from, or None."""
    # a base made of a pipeline has no name, or one that its maker chose: any folder may have it
    folder = _folder(base.id) if base.id else None
    if folder is None or not (folder / INDEX).is_file():
        return None
    start = folder / "start.safetensors"
    return start if start.is_file() else None


def _folder(spec: str) -> Path | None:
    """Return the folder that a name means, whatever it holds, or None where there is none."""
    if means_world(spec, INDEX):
        return shipped(spec, "base")
    folder = Path(spec).expanduser()
    return folder.resolve() if folder.is_dir() else None


def _family(folder: Path) -> type[Family]:
    """Return the family of a folder, once its index names nothing but what the library reads."""
    if not (folder / INDEX).is_file():
        raise InputError(f"lacks {INDEX}; {_WANTED}")
    index = parse_json((folder / INDEX).read_bytes(), INDEX)
    index = index if isinstance(index, dict) else {}
    try:
        kind = family_of(str(index.get("_class_name")))
    except InputError as error:
        raise InputError(f"is {error}") from error
    if lacking := [part for part in (*kind.classes, "scheduler") if not (folder / part).is_dir()]:
        raise InputError(f"lacks {', '.join(lacking)}; {_WANTED}")
    for part, expected in kind.classes.items():
        named = index.get(part, [None, None])
        # tokenizers have a slow and a fast class each
        if not re.fullmatch(f"{expected}(Fast)?", str(named[-1]) if named else ""):
            raise InputError(f"names {shown(named)} as its {part}; expected {expected}")
        config = folder / part / "config.json"
        settings = parse_json(config.read_bytes(), part) if config.is_file() else {}
        if isinstance(settings, dict) and "quantization_config" in settings:
            raise InputError(f"has a quantised {part}; expected weights in float32 or bfloat16")
    return kind


def _download(spec: str) -> Path:
    """Return the folder of a hub id, with all files of its parts."""
    from huggingface_hub import errors, hf_hub_download, snapshot_download

    parts = {part for kind in FAMILIES.values() for part in (*kind.classes, "scheduler")}
    options: dict[str, Any] = {
        "allow_patterns": [INDEX, "start.safetensors", *(f"{part}/*" for part in sorted(parts))],
        # other formats of the same weights, and smaller variants of them
        "ignore_patterns": ["*.bin", "*.msgpack", "*.onnx*", "*.xml", "*.fp16*", "*.non_ema*"],
    }
    try:
        hf_hub_download(spec, INDEX)  # before gigabytes of what may be no base
        return Path(snapshot_download(spec, **options))
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(spec, error) from error
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise InputError(
            f"base {spec!r}: no such folder, and on the hub it cannot be read"
            f" ({shown(str(error))}); check the name and `hf auth login`"
        ) from error
    except OSError as error:  # whatever the hub's client raises without a network
        raise _unreachable(spec, error) from error


def _unreachable(spec: str, error: Exception) -> ResourceError:
    return ResourceError(
        f"base {spec!r}: no such folder, and the hub cannot be reached ({type(error).__name__});"
        " expected a network connection or a downloaded base"
    )
