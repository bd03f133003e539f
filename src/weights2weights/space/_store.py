"""Writing, reading and checking the folder of a space."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import checksum, make_folder, readable_errors, write_atomic
from .._json import canonical_json, parse_json
from .._safetensors import Streamed, open_checked, write_safetensors
from ..errors import InputError
from ..labels import read_labels, write_labels
from ..layout import WeightLayout
from ._card import model_card
from ._hub import CARD, CONFIG, LABELS, MODELS, TENSORS, UPDATES
from ._space import WeightSpace

FORMAT = "weights2weights-space"
FORMAT_VERSION = 1


_FLOATS = (torch.float32, torch.float16)
_DTYPES = (*_FLOATS, torch.int8)  # of stored components
_SCALES = "component_scales"  # of int8 components: the value of one unit in each row
_CHUNK_BYTES = 64 << 20  # of float32 copies made at a time
_CONFIG_TYPES = {"layout": dict, "metadata": dict, "sha256": dict}
_CONFIG_TYPES |= dict.fromkeys(("hash", "fit_id", "base_hash"), str)
_AGAIN = "download or save the space again"


def write(
    folder: Path,
    space: WeightSpace,
    dtype: torch.dtype | None,
    more: Callable[[Path], Mapping[str, str]] = lambda folder: {},
) -> None:
    """Write a space; see `WeightSpace.save_pretrained`.

    Args:
        folder: made if absent.
        space: to write.
        dtype: of the components.
        more: writes further files and returns their checksums by name.
    """
    if dtype not in (None, *_DTYPES):
        raise InputError(f"dtype is {dtype}, expected {', '.join(map(str, _DTYPES))}")
    make_folder(folder)
    with readable_errors("replace", folder / CONFIG):  # which declares a space whole
        (folder / CONFIG).unlink(missing_ok=True)
    tensors = {"mean": space.mean.float(), "std": space.std.float()}
    tensors |= _stored_components(space.components, dtype)
    half = (dtype or space.coefficients.dtype) in (torch.float16, torch.int8)
    coefficients = space.coefficients.to(torch.float16 if half else torch.float32)
    if not coefficients.isfinite().all():  # too large for float16
        coefficients = space.coefficients.float()
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "layout": space.layout.to_dict(),
        "hash": space.hash,
        "fit_id": space.fit_id,
        "base_hash": space.base_hash,
        "metadata": dict(space.metadata),
        "sha256": {
            TENSORS: write_safetensors(folder / TENSORS, tensors),
            MODELS: write_safetensors(folder / MODELS, {"coefficients": coefficients}),
            LABELS: write_labels(folder / LABELS, space.labels),
            **more(folder),
        },
    }
    write_atomic(folder / CARD, [model_card(space).encode()])
    write_atomic(folder / CONFIG, [canonical_json(config)])


def _stored_components(
    components: Float[Tensor, "m d"], dtype: torch.dtype | None
) -> dict[str, Tensor | Streamed]:
    """Return the components as stored, to be converted part by part while they are written."""
    dtype = dtype or (components.dtype if components.dtype in _DTYPES else torch.float32)
    height, shape = _rows_at_once(components), tuple(components.shape)
    parts = components.split(height)
    if dtype != torch.int8:
        return {"components": Streamed(dtype, shape, (part.to(dtype) for part in parts))}
    scales = torch.cat([part.detach().float().abs().amax(1).cpu() for part in parts]) / 127
    scales = scales.clamp(min=1e-30)
    rounded = (
        (part.detach().float().cpu() / scale[:, None]).round().to(torch.int8)
        for part, scale in zip(parts, scales.split(height), strict=True)
    )
    return {"components": Streamed(dtype, shape, rounded), _SCALES: scales}


def _rows_at_once(tensor: Tensor) -> int:
    """Return how many rows to convert at a time."""
    return max(_CHUNK_BYTES // max(4 * tensor[:1].numel(), 1), 1)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():  # opening a named pipe would wait forever
        raise InputError(f"{folder} is not a space: it has no {CONFIG}; make one with w2w fit")
    try:
        config = parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} does not belong to a space: expected the format {FORMAT}")
    if config.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {config.get('format_version')!r:.40}, expected"
            f" {FORMAT_VERSION}; a newer weights2weights may read it"
        )
    for name, kind in _CONFIG_TYPES.items():
        if not isinstance(config.get(name), kind):
            raise InputError(f"{path} lacks {name}; {_AGAIN}")
    return config


def read(folder: Path) -> WeightSpace:
    """Read a space; see `WeightSpace.from_pretrained`."""
    config = _read_config(folder)
    tensors = _read_tensors(folder / TENSORS, "mean", "std", "components")
    tensors |= _read_tensors(folder / MODELS, "coefficients")
    if not (folder / LABELS).is_file():
        raise InputError(f"{folder / LABELS} is missing; {_AGAIN}")
    labels = read_labels(folder / LABELS)
    try:
        layout, more, kind = WeightLayout.from_dict(config["layout"]), {}, WeightSpace
        if config["metadata"].get("of") == "updates":
            from ._updates import UpdateSpace, load_updates

            kind, more = UpdateSpace, {"updates": load_updates(folder / UPDATES, layout)}
        space = kind(
            layout,
            mean=tensors["mean"].float(),
            std=tensors["std"].float(),
            components=_loaded_components(tensors["components"], tensors.get(_SCALES)),
            coefficients=tensors["coefficients"],
            names=tuple(map(str, labels.index)),
            labels=labels,
            base_hash=config["base_hash"],
            fit_id=config["fit_id"],
            metadata=config["metadata"],
            **more,
        )
    except InputError as error:
        raise InputError(f"{CONFIG} and the tensors of {folder}: {error}; {_AGAIN}") from error
    if space.hash != config["hash"]:
        raise InputError(f"{folder / CONFIG} contradicts {TENSORS}; {_AGAIN}")
    return space


def _loaded_components(components: Tensor, scales: Tensor | None) -> Float[Tensor, "m d"]:
    """Return components as they are mapped, or int8 ones converted to float16."""
    if (components.dtype == torch.int8) != (scales is not None):
        raise InputError(f"expected {_SCALES} if and only if components are int8")
    if scales is None:
        return components
    if len(scales) != len(components):
        raise InputError(f"{len(scales)} {_SCALES} for {len(components)} components")
    height, result = _rows_at_once(components), torch.empty(components.shape, dtype=torch.float16)
    parts = (tensor.split(height) for tensor in (result, components, scales))
    for out, part, scale in zip(*parts, strict=True):
        out.copy_(part * scale[:, None])
    return result


def _read_tensors(path: Path, *required: str) -> dict[str, Tensor]:
    """Map a file that must hold the required tensors and no others, except scales."""
    try:
        with open_checked(path) as file:
            tensors = {name: file.read(name) for name in file.places}
    except (InputError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {reason}; {_AGAIN}") from error
    if not set(required) <= set(tensors) <= {*required, _SCALES}:
        raise InputError(f"{path} holds {', '.join(tensors)}: expected {', '.join(required)}")
    for name, tensor in tensors.items():
        axes = 2 if name in ("components", "coefficients") else 1
        dtypes = _DTYPES if name == "components" else _FLOATS
        if tensor.ndim != axes or tensor.dtype not in dtypes:
            raise InputError(
                f"{path} holds {name} as {tensor.dtype} {list(tensor.shape)}: expected {axes} axes"
                f" of {' or '.join(map(str, dtypes))}; {_AGAIN}"
            )
    return tensors


def verify_space(folder: str | Path) -> list[str]:
    """Read everything a space's folder holds and return the problems; empty if there are none.

    Raises:
        InputError: it is not a space, or its `config.json` cannot be read.
    """
    folder = Path(folder)
    sums = _read_config(folder)["sha256"]
    problems = []
    for name in (TENSORS, MODELS, LABELS, *({UPDATES} & sums.keys())):
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif checksum(folder / name) != sums.get(name):
            problems.append(f"{name} has changed since it was saved")
    if problems:
        return problems
    space = read(folder)
    factors = [
        factor for u in getattr(space, "updates", ()) for f in u.factors.values() for factor in f
    ]
    if not all(factor.isfinite().all() for factor in factors):
        problems.append(f"{UPDATES} has NaN or infinite values")
    for name in ("mean", "std", "components", "coefficients"):
        tensor = getattr(space, name)
        if not all(part.isfinite().all() for part in tensor.split(_rows_at_once(tensor))):
            problems.append(f"{name} has NaN or infinite values")
    if not (space.std > 0).all():
        problems.append("std has zeros or negative values")
    return problems
