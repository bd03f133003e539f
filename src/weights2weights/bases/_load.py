"""From a folder or a hub id to a base."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import torch

from .._device import usable_device
from .._safetensors import DTYPES, open_checked
from ..errors import InputError, ResourceError
from ._base import Base
from ._family import Family
from ._find import find_base
from ._hash import cached_hash, content_hash, stamp_of

# Bases that somebody still uses; the memory of others is free.
_loaded: WeakValueDictionary[tuple[Any, ...], Base] = WeakValueDictionary()
_loading = RLock()


def load_base(
    spec: str | Path = "people",
    device: str | torch.device = "auto",
    dtype: torch.dtype | str = torch.float32,
    size: int | None = None,
    offload: bool = False,
) -> Base:
    """Load a base model, or return the one that this process already holds.

    A base is unloaded when the last reference to it is gone. One whose files have changed since is
    loaded again.

    Args:
        spec: the name of an embedded world ("people"), a folder in diffusers layout, or a hub id.
        device: "cpu", "cuda", "cuda:1", "mps"; "auto" is the accelerator, if there is one.
        dtype: float32, or bfloat16 / float16 for speed and memory, or its name; see `Base.dtype`.
        size: side of the images in pixels; None is the one the denoiser was made for. SDXL, SD 3
            and FLUX.1 train in a quarter of the memory with 512.
        offload: keep the VAE and the text encoders on the CPU while they do not work, and encoded
            prompts on disk.

    Raises:
        InputError: no such base, device or dtype, a part is missing or damaged, or it is of a kind
            that the library does not support (another family, quantised, custom code).
        ResourceError: the hub cannot be reached, or the base does not fit into memory.
    """
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise InputError(f"dtype {dtype!r}: expected float32, bfloat16 or float16")
    place = usable_device(device)
    with _loading:
        folder, family = find_base(spec)
        stamp = stamp_of(folder, [*family.classes, "scheduler"])
        key = (str(spec), *stamp, place, kind, size, offload)
        if (base := _loaded.get(key)) is None:
            parts, settings = _read(str(spec), folder, family, kind)
            opened = family(parts)
            hash = cached_hash(stamp, lambda: content_hash(opened, settings))
            try:
                with quiet():  # diffusers warns about modules that may stay in any precision
                    base = Base.assemble(
                        str(spec), hash, opened, settings, place, kind, size, offload
                    )
            except torch.OutOfMemoryError as error:
                raise ResourceError(
                    f"base {str(spec)!r} does not fit into the memory of {place}; expected a"
                    " smaller dtype such as bfloat16, --offload, or another device"
                ) from error
            _loaded[key] = base
        return base


def _read(
    spec: str, folder: Path, family: type[Family], dtype: torch.dtype
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the parts of a base and the settings of its scheduler.

    Large parts in reduced precision are read as they are stored, everything else as float32: so
    that the hash is that of the stored values, and memory for them is not needed twice.
    """
    import diffusers
    import transformers
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.utils.import_utils import is_accelerate_available

    parts: dict[str, Any] = {}
    try:
        with quiet():
            for part, name in family.classes.items():
                library = diffusers if hasattr(diffusers, name) else transformers
                options: dict[str, Any] = {}
                if part in family.networks():
                    options = {"torch_dtype": torch.float32, "use_safetensors": True}
                    if part in family.large and dtype != torch.float32:
                        options["torch_dtype"] = _stored_dtype(folder / part)
                if library is diffusers:
                    options["low_cpu_mem_usage"] = is_accelerate_available()
                parts[part] = getattr(library, name).from_pretrained(
                    str(folder), subfolder=part, **options
                )
            part = "scheduler"
            settings: Any = DDIMScheduler.load_config(str(folder), subfolder=part)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"base {spec!r}: its {part} cannot be read ({reason}); expected a"
            f" {family.pipeline} in diffusers layout with safetensors weights"
        ) from error
    return parts, settings


def _stored_dtype(folder: Path) -> torch.dtype:
    """Return the dtype of a network's weights on disk."""
    with open_checked(min(folder.glob("*.safetensors"))) as file:
        return DTYPES[next(iter(file.places.values())).dtype]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the advice and progress bars of diffusers and transformers, but not their errors."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    levels = [(log, log.get_verbosity()) for log in (of_diffusers, of_transformers)]
    bar = of_transformers.is_progress_bar_enabled()
    try:
        for log, _ in levels:
            log.set_verbosity_error()
        of_transformers.disable_progress_bar()
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)
        if bar:
            of_transformers.enable_progress_bar()
