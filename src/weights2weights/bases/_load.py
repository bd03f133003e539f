"""From a folder or a hub id to a base."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import torch

from .._device import usable_device
from ..errors import InputError, ResourceError
from ._find import find_base
from ._hash import cached_hash, content_hash, stamp_of
from .sd import Base

# Bases that somebody still uses; the memory of others is free.
_loaded: WeakValueDictionary[tuple[Any, ...], Base] = WeakValueDictionary()
_loading = RLock()

# What the libraries raise when the hub cannot be reached, by name: they come from several packages.
_NETWORK = (
    *("ConnectError", "ConnectTimeout", "ConnectionError", "ReadTimeout"),
    *("LocalEntryNotFoundError", "OfflineModeIsEnabled"),
)


def load_base(
    spec: str | Path = "people",
    device: str | torch.device = "auto",
    dtype: torch.dtype | str = torch.float32,
) -> Base:
    """Load a base model, or return the one that this process already holds.

    A base is unloaded when the last reference to it is gone. One whose files have changed since is
    loaded again.

    Args:
        spec: the name of an embedded world ("people"), a folder in diffusers layout, or a hub id.
        device: "cpu", "cuda", "cuda:1", "mps"; "auto" is the accelerator, if there is one.
        dtype: float32, or bfloat16 / float16 for speed and memory, or its name; see `Base.dtype`.

    Raises:
        InputError: no such base, device or dtype, a part is missing or damaged, or it is of a kind
            that the library does not support (two text encoders, another prediction type).
        ResourceError: the hub cannot be reached, or the base does not fit into memory.
    """
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise InputError(f"dtype {dtype!r}: expected float32, bfloat16 or float16")
    source, place = find_base(spec), usable_device(device)
    with _loading:
        try:
            key = (str(spec), *stamp_of(source), place, kind)
        except (OSError, ValueError) as error:  # such as the hub's rules for names
            raise _unreadable(str(spec), source, "folder", error) from error
        if (base := _loaded.get(key)) is None:
            base = _load(str(spec), source, place, kind)
            _loaded[(str(spec), *stamp_of(source), place, kind)] = base
        return base


def _load(spec: str, source: str | Path, device: torch.device, dtype: torch.dtype) -> Base:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.utils.import_utils import is_accelerate_available
    from transformers import CLIPTextModel, CLIPTokenizer

    # float32 first, whatever the files hold, so that the hash is that of the values
    plain = {"torch_dtype": torch.float32, "use_safetensors": True}
    quick = plain | {"low_cpu_mem_usage": is_accelerate_available()}
    readers: dict[str, Callable[..., Any]] = {
        "unet": partial(UNet2DConditionModel.from_pretrained, **quick),
        "vae": partial(AutoencoderKL.from_pretrained, **quick),
        "text_encoder": partial(CLIPTextModel.from_pretrained, **plain),
        "tokenizer": CLIPTokenizer.from_pretrained,
        "scheduler": DDIMScheduler.load_config,
    }
    parts: dict[str, Any] = {}
    for part, read in readers.items():
        try:
            with quiet():
                parts[part] = read(str(source), subfolder=part)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(spec, source, part, error) from error
    hash = cached_hash(stamp_of(source), lambda: content_hash(parts))
    try:
        with quiet():  # diffusers warns at length about modules that may stay in any precision
            return Base.assemble(spec, hash, parts, device, dtype)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"base {spec!r} does not fit into the memory of {device}; expected a smaller dtype such"
            " as bfloat16, or another device"
        ) from error


def _unreadable(spec: str, source: str | Path, part: str, error: BaseException) -> Exception:
    reason, where = " ".join(str(error).split())[:200], ""
    if not isinstance(source, Path):
        where = "no such folder, and on the hub "
        cause: BaseException | None = error
        while cause is not None:
            if type(cause).__name__ in _NETWORK:
                return ResourceError(
                    f"base {spec!r}: no such folder, and the hub cannot be reached ({reason});"
                    " expected a network connection or a downloaded base"
                )
            cause = cause.__cause__ or cause.__context__
    return InputError(
        f"base {spec!r}: {where}its {part} cannot be read ({reason}); expected a Stable"
        " Diffusion 1 or 2 in diffusers layout with safetensors weights"
    )


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
