"""The folder of a space: written so that it is whole once it has a config, read with suspicion."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from .._files import make_folder, write_atomic
from .._json import canonical_json, parse_json
from .._safetensors import Streamed, open_checked, write_safetensors
from ..errors import InputError, ResourceError
from ..labels import read_labels, write_labels
from ..layout import WeightLayout
from ._card import model_card
from ._contents import Contents

FORMAT = "weights2weights-space"
FORMAT_VERSION = 1

CONFIG, TENSORS, MODELS, LABELS, CARD = (
    "config.json",
    "space.safetensors",
    "models.safetensors",
    "models.parquet",
    "README.md",
)

DTYPES = (torch.float32, torch.float16, torch.int8)
"""What components can be stored in."""

_CHUNK_BYTES = 64 << 20  # converted at a time
_FLOATS = ("F32", "F16")
_ANY = (*_FLOATS, "I8")
_SCALES = "component_scales"


def write(folder: Path, contents: Contents, dtype: torch.dtype | None) -> None:
    """Write a space; see `WeightSpace.save_pretrained`."""
    if dtype not in (None, *DTYPES):
        raise InputError(f"dtype is {dtype}, expected {', '.join(map(str, DTYPES))}")
    make_folder(folder)
    _remove_config(folder)
    tensors = {"mean": contents.mean.float(), "std": contents.std.float()}
    tensors |= _stored_components(contents.components, dtype)
    coefficients = contents.coefficients
    if dtype in (torch.float16, torch.int8) and _fits_float16(coefficients):
        coefficients = coefficients.half()
    elif dtype is not None or coefficients.dtype != torch.float16:
        coefficients = coefficients.float()
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "layout": contents.layout.to_dict(),
        "hash": contents.hash,
        "fit_id": contents.fit_id,
        "base_hash": contents.base_hash,
        "metadata": dict(contents.metadata),
        "sha256": {
            TENSORS: write_safetensors(folder / TENSORS, tensors),
            MODELS: write_safetensors(folder / MODELS, {"coefficients": coefficients}),
            LABELS: write_labels(folder / LABELS, contents.labels),
        },
    }
    write_atomic(folder / CARD, [model_card(contents).encode()])
    write_atomic(folder / CONFIG, [canonical_json(config)])


def _remove_config(folder: Path) -> None:
    """Remove the file that declares a space whole, before its parts change."""
    try:
        (folder / CONFIG).unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot replace {folder / CONFIG}: {error.strerror}") from error


def _fits_float16(tensor: Tensor) -> bool:
    return not tensor.numel() or float(tensor.abs().max()) <= 6e4


def _stored_components(
    components: Float[Tensor, "m d"], dtype: torch.dtype | None
) -> dict[str, Tensor | Streamed]:
    """Return the components as they are stored, converted part by part while they are written."""
    dtype = dtype or (components.dtype if components.dtype in DTYPES else torch.float32)
    parts = components.split(rows_at_once(components))
    shape = tuple(components.shape)
    if dtype != torch.int8:
        return {"components": Streamed(dtype, shape, (part.to(dtype) for part in parts))}
    scales = torch.cat([part.detach().float().abs().amax(1).cpu() for part in parts]) / 127
    scales = scales.clamp(min=1e-30)

    def rounded() -> Iterator[Int8[Tensor, "rows d"]]:
        first = 0
        for part in parts:
            units = part.detach().float().cpu() / scales[first : first + len(part), None]
            yield units.round().to(torch.int8)
            first += len(part)

    return {"components": Streamed(dtype, shape, rounded()), _SCALES: scales}


def rows_at_once(tensor: Tensor) -> int:
    """Return how many rows to convert at a time, so that their float32 copies stay small."""
    return max(_CHUNK_BYTES // max(4 * tensor[:1].numel(), 1), 1)


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check `config.json`.

    Raises:
        InputError: there is none, or it is damaged or of a later version.
    """
    path = folder / CONFIG
    if not path.is_file():  # opening a named pipe would wait forever
        raise InputError(f"{folder} is not a space: it has no {CONFIG}; make one with w2w fit")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    config = parse_json(raw, str(path))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} does not belong to a space: expected the format {FORMAT}")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version!r}, expected {FORMAT_VERSION}; a newer"
            " weights2weights may read it"
        )
    kinds = {"layout": dict, "metadata": dict, "sha256": dict}
    kinds |= dict.fromkeys(("hash", "fit_id", "base_hash"), str)
    for name, kind in kinds.items():
        if not isinstance(config.get(name), kind):
            raise InputError(f"{path} lacks {name}; download or save the space again")
    return config


def read(folder: Path) -> Contents:
    """Read a space; see `WeightSpace.from_pretrained`."""
    config = read_config(folder)
    floats = {"mean": (1, _FLOATS), "std": (1, _FLOATS)}
    tensors = _read_tensors(folder / TENSORS, {**floats, "components": (2, _ANY)}, (_SCALES, 1))
    scales, components = tensors.pop(_SCALES, None), tensors["components"]
    if (components.dtype == torch.int8) != (scales is not None):
        raise InputError(
            f"{folder / TENSORS}: expected {_SCALES} if and only if components are int8;"
            " download or save the space again"
        )
    models = _read_tensors(folder / MODELS, {"coefficients": (2, _FLOATS)})
    if not (folder / LABELS).is_file():
        raise InputError(f"{folder / LABELS} is missing; download or save the space again")
    labels = read_labels(folder / LABELS)
    try:
        if scales is not None:
            tensors["components"] = _from_int8(components, scales)
        contents = Contents(
            WeightLayout.from_dict(config["layout"]),
            mean=tensors["mean"].float(),
            std=tensors["std"].float(),
            components=tensors["components"],
            coefficients=models["coefficients"],
            names=tuple(map(str, labels.index)),
            labels=labels,
            base_hash=config["base_hash"],
            fit_id=config["fit_id"],
            metadata=config["metadata"],
        )
    except InputError as error:
        raise InputError(f"{folder / CONFIG} or the tensors next to it: {error}") from error
    if contents.hash != config["hash"]:
        raise InputError(
            f"{folder / CONFIG} contradicts {TENSORS}; download or save the space again"
        )
    return contents


def _from_int8(units: Int8[Tensor, "m d"], scales: Float[Tensor, " s"]) -> Float[Tensor, "m d"]:
    """Return components in float16, converted part by part."""
    if len(scales) != len(units):
        raise InputError(f"{len(scales)} {_SCALES} for {len(units)} components")
    components = torch.empty(units.shape, dtype=torch.float16)
    height = rows_at_once(units)
    for i in range(0, len(units), height):
        some = slice(i, i + height)
        components[some] = units[some] * scales[some, None]
    return components


def _read_tensors(
    path: Path,
    expected: Mapping[str, tuple[int, tuple[str, ...]]],
    optional: tuple[str, int] | None = None,
) -> dict[str, Tensor]:
    """Map a file that must hold tensors of these numbers of axes and dtypes, and no others."""
    try:
        with open_checked(path) as file:
            places = file.places
            tensors = {name: file.read(name) for name in places}
    except InputError as error:
        raise InputError(f"{path} {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; download it again") from error
    possible = {**expected, **({optional[0]: (optional[1], _FLOATS)} if optional else {})}
    if not set(expected) <= set(places) <= set(possible):
        raise InputError(f"{path} holds {', '.join(places)}: expected {', '.join(expected)}")
    for name, place in places.items():
        axes, dtypes = possible[name]
        if len(place.shape) != axes or place.dtype not in dtypes:
            raise InputError(
                f"{path} holds {name} as {place.dtype} {list(place.shape)}: expected"
                f" {' or '.join(dtypes)} with {axes} axes; download or save the space again"
            )
    return tensors
