"""The folder of a space: written in fixed memory, read through a memory map, checked first.

Components in integers are turned into float16 when they are read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import checksum, list_files, make_folder, write_atomic
from .._json import canonical_json, parse_json
from .._safetensors import Streamed, open_checked, write_safetensors
from .._shipped import means_world, shipped
from ..errors import InputError, W2WError
from ..labels import read_labels, write_labels
from ..layout import WeightLayout
from . import _integers
from ._card import card

if TYPE_CHECKING:
    from ._space import WeightSpace

FORMAT = "weights2weights-space"
FORMAT_VERSION = 1

CONFIG, TENSORS, MODELS, LABELS, CARD = (
    "config.json",
    "space.safetensors",
    "models.safetensors",
    "models.parquet",
    "README.md",
)

_FLOATS = {torch.float32: "F32", torch.float16: "F16"}
_DTYPES = _FLOATS | _integers.DTYPES
_SCALES = "component_scales"  # beside components in integers: what a unit of each row means
_CHUNK_BYTES = 64 << 20  # converted and written at a time; int4 needs some times as much


def save(space: "WeightSpace", folder: Path, dtype: torch.dtype | None) -> Path:
    """Write a space; see `WeightSpace.save_pretrained`."""
    if dtype is not None and dtype not in _DTYPES:
        raise InputError(f"dtype {dtype}: expected {', '.join(map(str, _DTYPES))}")
    make_folder(folder)
    remove_config(folder)
    components = _Stored(space.components, _storable(space.components, dtype))
    tensors = {
        "mean": _Stored(space.mean, torch.float32),
        "std": _Stored(space.std, torch.float32),
        "variances": _Stored(space.variances, torch.float32),
        "components": components,
    }
    if components.scales is not None:
        tensors[_SCALES] = _Stored(components.scales, torch.float32)
    wanted = torch.float16 if dtype in _integers.DTYPES else dtype
    coefficients = _Stored(space.coefficients, _storable(space.coefficients, wanted))
    files = {
        TENSORS: _write_tensors(folder / TENSORS, tensors),
        MODELS: _write_tensors(folder / MODELS, {"coefficients": coefficients}),
        LABELS: write_labels(folder / LABELS, space.labels),
    }
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "layout": space.layout.to_dict(),
        "layout_hash": space.layout.hash,
        "hash": space.hash,
        "base_hash": space.base_hash,
        "numbers": space.num_parameters,
        "components": len(space),
        "models": len(space.names),
        "labels": list(space.labels.columns),
        "facts": dict(space.facts),
        "sha256": files,
    }
    write_atomic(folder / CARD, [card(space).encode()])
    write_atomic(folder / CONFIG, [canonical_json(config)])
    return folder


def remove_config(folder: Path) -> None:
    """Take away the file that says that a space is whole, before its parts change."""
    try:
        (folder / CONFIG).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot replace {folder / CONFIG}: {error.strerror}") from error


def _storable(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype to store a tensor in: the wanted one, unless its numbers do not fit it."""
    dtype = dtype or (tensor.dtype if tensor.dtype in _DTYPES else torch.float32)
    if not tensor.numel() or not float(tensor.abs().max()) <= 6e4:
        return torch.float32
    if dtype in _integers.DTYPES and bool((tensor[0].signbit() & (tensor[0] == 0)).any()):
        return torch.float16  # a negative zero, whose sign is in the space's hash
    if dtype == _integers.INT4 and not tensor.any(0).all():
        return torch.int8  # what never varies has zeros alone, and int4 has no zero
    return dtype


def _height(tensor: Tensor, width: int | None = None) -> int:
    """Return how many rows, of `width` numbers in float32, are worked on at a time."""
    width = width or tensor[:1].numel()
    return max(_CHUNK_BYTES // (4 * width), 1) if width else 1


class _Stored:
    """A tensor on its way to a file."""

    def __init__(self, tensor: Tensor, dtype: torch.dtype):
        self.tensor, self.dtype = tensor, dtype
        self.shape, self.scales = list(tensor.shape), None
        if dtype in _integers.DTYPES:
            self.shape[1] = _integers.width(dtype, self.shape[1])
            parts = tensor.split(_height(tensor))
            scales = [_integers.scales_of(part.detach().cpu(), dtype) for part in parts]
            self.scales = torch.cat(scales)

    def blocks(self) -> Iterator[Tensor]:
        """Yield row blocks, also of a transposed view of a mapped file, in fixed memory."""
        height = _height(self.tensor)
        for begin in range(0, len(self.tensor), height):
            part = self.tensor[begin : begin + height].detach().cpu()
            if self.scales is None:
                part = part.to(self.dtype)
            else:
                part = _integers.to_integers(part, self.scales[begin : begin + height], self.dtype)
            yield part


def _write_tensors(path: Path, tensors: Mapping[str, _Stored]) -> str:
    """Write a safetensors file of tensors converted on the way; give its SHA-256."""
    return write_safetensors(
        path,
        {
            name: Streamed(
                torch.uint8 if stored.dtype == _integers.INT4 else stored.dtype,
                tuple(stored.shape),
                stored.blocks(),
            )
            for name, stored in tensors.items()
        },
    )


def find_space(source: str | Path, **download: Any) -> Path:
    """Return the folder of a space: a folder, an embedded world's, or one fetched from the hub.

    Raises:
        W2WError: nothing of that name.
    """
    folder = Path(source)
    if means_world(source, CONFIG):
        if not shipped(str(source), "space").is_dir():
            raise InputError(
                f"the embedded world {str(source)!r} has no space in this installation: expected a"
                " folder that w2w fit made, or a hub id; give one as the space (--space FOLDER)"
            )
        return shipped(str(source), "space")
    if folder.is_dir():
        return folder
    if not isinstance(source, str) or source.count("/") != 1 or folder.exists():
        raise InputError(
            f"space {str(source)!r}: expected an existing folder, a hub id such as someone/space,"
            " or the word of an embedded world that has one (people)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [CONFIG, TENSORS, MODELS, LABELS, CARD]
    try:
        return Path(snapshot_download(source, allow_patterns=wanted, **download))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"space {source!r} is no folder here and cannot be fetched from the hub"
            f" ({type(error).__name__}); check the name, the network and your access"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check `config.json`.

    Raises:
        W2WError: there is none, or it is damaged or of a later version.
    """
    path = folder / CONFIG
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{folder} holds no space: expected {CONFIG}; fit one with w2w fit"
        ) from error
    config = parse_json(raw, str(path))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path} is not that of a space: expected the format {FORMAT}")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} is of format version {version!r}: expected {FORMAT_VERSION}; a newer"
            " weights2weights may read it"
        )
    kinds = {
        "layout": dict,
        "layout_hash": str,
        "hash": str,
        "base_hash": str,
        "numbers": int,
        "components": int,
        "models": int,
        "labels": list,
        "facts": dict,
        "sha256": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(config.get(name), kind):
            raise InputError(f"{path} lacks {name}; fetch or save the space again")
    return config


def load(kind: "type[WeightSpace]", folder: Path) -> "WeightSpace":
    """Load a space; see `WeightSpace.from_pretrained`."""
    config = read_config(folder)
    layout = WeightLayout.from_dict(config["layout"])
    count, models, numbers = config["components"], config["models"], config["numbers"]
    if layout.num_parameters != numbers or layout.hash != config["layout_hash"]:
        raise InputError(f"{folder / CONFIG} contradicts its layout; fetch or save the space again")
    shapes = {
        "mean": (numbers,),
        "std": (numbers,),
        "variances": (count,),
        "components": (count, numbers),
    }
    tensors = _map_tensors(folder / TENSORS, shapes, {_SCALES: (count,)})
    scales = tensors.pop(_SCALES, None)
    if (scales is not None) == tensors["components"].is_floating_point():
        raise InputError(
            f"{folder / TENSORS}: expected {_SCALES} beside components in integers, and only there;"
            " fetch or save the space again"
        )
    if scales is not None:
        tensors["components"] = _from_integers(tensors["components"], scales, numbers)
    coefficients = _map_tensors(folder / MODELS, {"coefficients": (models, None)})
    labels = read_labels(folder / LABELS)
    if len(labels) != models:
        raise InputError(
            f"{folder / LABELS} has {len(labels)} rows: expected {models}; fetch or save the space"
            " again"
        )
    return kind(
        layout,
        **tensors,
        **coefficients,
        names=tuple(map(str, labels.index)),
        labels=labels,
        base_hash=config["base_hash"],
        facts=config["facts"],
    )


def _from_integers(rows: Tensor, scales: Tensor, numbers: int) -> Float[Tensor, "m d"]:
    """Return components in float16, a part at a time."""
    components = torch.empty(len(rows), numbers, dtype=torch.float16)
    height = _height(rows, numbers)
    for i in range(0, len(rows), height):
        some = slice(i, i + height)
        components[some] = _integers.from_integers(rows[some], scales[some], numbers)
    return components


def _map_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int | None, ...]],
    optional: Mapping[str, tuple[int | None, ...]] | None = None,
) -> dict[str, Tensor]:
    """Map a file whose header says these tensors, and no others; None stands for any size."""
    try:
        with open_checked(path) as file:
            places = file.places
            mapped = {name: file.read(name) for name in places}
    except W2WError as error:
        raise InputError(f"{path} {error}") from error
    possible = {**shapes, **(optional or {})}
    if not set(shapes) <= set(places) <= set(possible):
        raise InputError(f"{path} holds {', '.join(places)}: expected {', '.join(shapes)}")
    shapes = {name: possible[name] for name in places}
    for name, shape in shapes.items():
        place = places[name]
        if name == "components" and place.dtype == _DTYPES[_integers.INT4]:
            shape = (shape[0], _integers.width(_integers.INT4, shape[1] or 0))
        sizes = zip(place.shape, shape, strict=False)
        fits = len(place.shape) == len(shape) and all(b in (None, a) for a, b in sizes)
        expected = _DTYPES if name == "components" else _FLOATS
        if not fits or place.dtype not in expected.values():
            raise InputError(
                f"{path} holds {name} as {place.dtype} {list(place.shape)}: expected"
                f" {' or '.join(expected.values())} {[size or 'any' for size in shape]}; fetch or"
                " save the space again"
            )
    small = {name: tensor.float() for name, tensor in mapped.items() if tensor.ndim == 1}
    return mapped | small


def verify_space(folder: str | Path) -> list[str]:
    """Read everything a space's folder holds and tell what is wrong; empty if all is well.

    Raises:
        W2WError: there is no space, or its `config.json` cannot be read.
    """
    folder = Path(folder)
    config = read_config(folder)
    present = {path.name for path in list_files(folder)}
    problems = []
    for name in (TENSORS, MODELS, LABELS):
        if name not in present:
            problems.append(f"{name} is missing")
        elif checksum(folder / name) != config["sha256"].get(name):
            problems.append(f"{name} has other bytes than when it was saved")
    if problems:
        return problems
    from ._space import WeightSpace

    space = load(WeightSpace, folder)
    if space.hash != config["hash"]:
        problems.append(f"the space has hash {space.hash}, expected {config['hash']}")
    for name in ("mean", "std", "variances", "components", "coefficients"):
        tensor = getattr(space, name)
        if not all(part.isfinite().all() for part in tensor.split(_height(tensor))):
            problems.append(f"{name} hold NaN or infinite numbers")
    if not (space.std > 0).all():
        problems.append("std holds zeros or negative numbers")
    return problems


def push(
    space: "WeightSpace",
    repo_id: str,
    dtype: torch.dtype | None,
    private: bool | None,
    token: str | bool | None,
    commit_message: str,
) -> str:
    """Upload a space; see `WeightSpace.push_to_hub`."""
    from tempfile import TemporaryDirectory

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi(token=token)
    try:
        repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            save(space, Path(folder), dtype)
            return str(
                hub.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message=commit_message
                )
            )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"the hub did not take {repo_id!r} ({type(error).__name__}); check the name, the"
            " network and `hf auth login`"
        ) from error
