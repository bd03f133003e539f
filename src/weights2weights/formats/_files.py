"""One LoRA file of any format: which it is, its checks, and its weights as one vector."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import make_folder
from .._safetensors import (
    DIGEST,
    DTYPES,
    CheckedFile,
    digest,
    open_checked,
    refuse_pickle,
    require_digest,
)
from ..errors import InputError, W2WError, shown
from ..layout import WeightLayout
from . import _transformers, kohya, peft
from ._keys import refuse_key
from .authors import MODEL_SUFFIX, load_authors_model, require_finite

LoRAFormat = Literal["peft", "diffusers", "kohya", "authors"]
FORMATS: tuple[LoRAFormat, ...] = ("peft", "diffusers", "kohya")
"""The formats that can be written."""

_PREFIXES = {
    "peft": (peft.PREFIX,),
    "diffusers": (peft.DIFFUSERS_PREFIX, peft.TRANSFORMER_PREFIX),
    "kohya": (kohya.PREFIX,),
}
_DESCRIBE = {"peft": peft.describe, "diffusers": peft.describe_diffusers, "kohya": kohya.describe}
_WRITE = {"peft": peft.write, "diffusers": peft.write_diffusers, "kohya": kohya.write}
_FLOATS = {name: DTYPES[name] for name in ("F32", "F16", "BF16")}


class AlphaMissing(InputError):
    """A LoRA whose file does not state alpha, and for which none was given."""


@dataclass(frozen=True)
class LoRAFile:
    """A LoRA as read from a file.

    Attributes:
        layout: meaning of each weight, with rank, alpha and the name of the base.
        weights: (d,), entries of A and B without the factor alpha / rank, in the file's dtype.
        format: the format of the file.
        metadata: the strings of its safetensors header.
    """

    layout: WeightLayout
    weights: Float[Tensor, " d"]
    format: LoRAFormat
    metadata: dict[str, str] = field(default_factory=dict)


def load_lora(path: str | Path, alpha: float | None = None) -> LoRAFile:
    """Read a LoRA: a PEFT or diffusers folder, a safetensors file, or a `.pt` of the authors.

    Args:
        path: the file, or a folder that holds one.
        alpha: the LoRA alpha of a file that does not state it; many programs assume the rank.

    Raises:
        AlphaMissing: the file states no alpha and none is given.
        W2WError: anything but one whole, finite LoRA of one rank and one alpha; a given alpha that
            contradicts the file.
    """
    path = Path(path)
    if path.suffix == MODEL_SUFFIX and path.is_file():
        layout, vector = load_authors_model(path, alpha)
        if len(vector) == layout.num_parameters:
            return LoRAFile(layout, vector, "authors")
        raise InputError(
            f"{path} holds {len(vector)} coefficients of the published space, which become weights"
            " only with that space (--space)"
        )
    try:
        return _load(path, alpha)
    except W2WError as error:
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def write_lora_file(
    path: str | Path,
    weights: Float[Tensor, " d"],
    layout: WeightLayout,
    format: LoRAFormat,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write one LoRA, all or nothing, so that the programs of its format load it at full strength.

    Args:
        path: for peft a folder, for the others a `.safetensors` file; diffusers also takes an
            existing folder, in which the file gets the name that diffusers looks for.
        weights: (d,), in the order of `layout`; float32, float16 or bfloat16, written as they are.
        layout: names, rank, alpha and, if known, the base.
        format: "peft", "diffusers" or "kohya".
        metadata: further strings for the header. Entries for rank, alpha and base come from the
            layout; an entry `w2w_sha256`, whatever it holds, becomes the digest of the weights.

    Returns:
        the path to hand to the other program: the folder for peft, the file otherwise.

    Raises:
        W2WError: weights of another length or dtype, or not finite; layer names that kohya cannot
            express; metadata other than strings; a path that cannot be written.

    Example:
        >>> layout = WeightLayout((LoRAModule("mid_block.attentions.0.proj_in", 2, 3),), 1, 27.0)
        >>> path = write_lora_file("ada.safetensors", torch.arange(5.0), layout, "kohya")
        >>> lora = load_lora(path)
        >>> lora.format, lora.layout.alpha, lora.weights
        ('kohya', 27.0, tensor([0., 1., 2., 3., 4.]))
    """
    path, metadata = Path(path), metadata or {}
    if format not in FORMATS:
        raise InputError(f"format {shown(format)}: expected one of {', '.join(FORMATS)}")
    if format != "peft" and not path.is_dir() and path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a name ending in .safetensors")
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise InputError("metadata must map strings to strings")
    if weights.dtype not in _FLOATS.values():
        raise InputError(f"weights of {weights.dtype}: expected float32, float16 or bfloat16")
    if weights.shape != (layout.num_parameters,):
        raise InputError(
            f"weights of shape {list(weights.shape)}: expected [{layout.num_parameters}], one LoRA"
            " of the layout; write the rows of a batch one by one"
        )
    tensors = layout.unflatten(weights.detach().cpu())
    for key, tensor in tensors.items():
        require_finite(tensor, key)
    # What any format states by itself would be stale in a file of another format.
    stated = peft.OWN_METADATA | kohya.OWN_METADATA
    metadata = {key: value for key, value in metadata.items() if key not in stated}
    if DIGEST in metadata:
        metadata[DIGEST] = digest(weights)
    make_folder(path.parent)
    return _WRITE[format](path, tensors, layout, metadata)


@contextmanager
def open_lora(path: Path) -> Iterator[tuple[CheckedFile, LoRAFormat, Any]]:
    """Open the file of a LoRA, converted if need be, with its format and that format's description.

    What the description names can be read from the file inside.
    """
    path = _locate(path)
    with open_checked(path) as file:
        if _transformers.is_converted(file):
            file = _transformers.converted(file)
        kind = _format_of(file)
        yield file, kind, _DESCRIBE[kind](file, path)


def _load(path: Path, alpha: float | None) -> LoRAFile:
    with open_lora(path) as (file, kind, lora):
        shapes = {key: file.places[name].shape for key, name in lora.names.items()}
        for key, shape in shapes.items():
            if len(shape) != 2 or 0 in shape:
                adapts = "adapts a convolution" if len(shape) == 4 else "is not a matrix"
                raise InputError(
                    f"{lora.names[key]} of shape {list(shape)} {adapts}; expected LoRAs of linear"
                    " layers only; train or extract one without it"
                )
        # Shapes and ranks first: an alpha cannot make up for them.
        plain = WeightLayout.from_shapes(shapes, alpha=1.0)
        stated = alpha if lora.alpha is None else lora.alpha
        if stated is None:
            raise AlphaMissing(
                "does not state its alpha, so its strength is unknown; pass alpha=… (--alpha):"
                f" {plain.rank}, the rank, if other programs showed it right"
            )
        if alpha not in (None, stated):
            raise InputError(f"states alpha {stated:g}, and {alpha:g} was given")
        layout = WeightLayout(plain.modules, plain.rank, stated, lora.base)
        weights = _read_weights(file, layout, lora.names)
        require_digest(digest(weights), file.metadata.get(DIGEST))
        return LoRAFile(layout, weights, kind, file.metadata)


def _locate(path: Path) -> Path:
    """Return the safetensors file that a file or folder stands for."""
    if not path.is_dir():
        return path
    known = [n for n in (peft.WEIGHTS_NAME, peft.DIFFUSERS_NAME) if (path / n).exists()]
    names = known or sorted(entry.name for entry in path.glob("*.safetensors"))
    if len(names) == 1:
        return path / names[0]
    if names:
        raise InputError(f"a folder with {len(names)} LoRA files ({shown(', '.join(names))})")
    for entry in sorted(path.iterdir()):
        refuse_pickle(entry)
    known = f"{peft.WEIGHTS_NAME} or {peft.DIFFUSERS_NAME}"
    raise InputError(f"a folder without a LoRA; expected {known} in it")


def _format_of(file: CheckedFile) -> LoRAFormat:
    if not file.places:
        raise InputError("holds no tensors; expected a LoRA; export it again")
    found: dict[LoRAFormat, str] = {}
    for key in file.places:
        found |= {kind: key for kind in FORMATS if key.startswith(_PREFIXES[kind])}
    if len(found) > 1:
        keys = " and ".join(map(shown, found.values()))
        raise InputError(f"mixes the formats {', '.join(found)} ({keys})")
    if not found:
        examples = ", ".join(f"{prefixes[0]}… ({kind})" for kind, prefixes in _PREFIXES.items())
        refuse_key(file, next(iter(file.places)), f"keys such as {examples}")
    return next(iter(found))


def _read_weights(
    file: CheckedFile, layout: WeightLayout, names: Mapping[str, str]
) -> Float[Tensor, " d"]:
    """Read all tensors of a LoRA straight into one vector."""
    by_dtype = {file.places[name].dtype: name for name in names.values()}
    for dtype, name in by_dtype.items():
        if dtype not in _FLOATS:
            raise InputError(
                f"{name} of shape {list(file.places[name].shape)} holds {dtype}; expected F32, F16"
                " or BF16; convert it first"
            )
    if len(by_dtype) > 1:
        tensors = " and ".join(f"{dtype} ({name})" for dtype, name in by_dtype.items())
        raise InputError(f"mixes {tensors}; expected one dtype; convert all to the wider one")
    weights = torch.empty(layout.num_parameters, dtype=_FLOATS[next(iter(by_dtype))])
    for entry in layout.entries:
        part = weights[entry.offset : entry.offset + entry.count]
        part.copy_(file.read(names[entry.key]).flatten())
        require_finite(part, f"{names[entry.key]} of shape {list(entry.shape)}")
    return weights
