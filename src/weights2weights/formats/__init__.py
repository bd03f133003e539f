"""LoRA files of three kinds, in and out, with nothing lost and nothing guessed.

| format | what it is | where alpha lives | read by |
|---|---|---|---|
| peft | a folder: weights and a config | the config | PEFT |
| diffusers | one safetensors file | its header | diffusers |
| kohya | one safetensors file | a scalar for each module | A1111, ComfyUI, diffusers |

`load_lora` and `save_lora` turn a file into a weight vector with its layout and back, bit for bit.
Alpha is the part that goes missing: a file without it loads elsewhere at another strength and
without a word, so reading one here is an error until the caller says what alpha is.

Files are untrusted. All of a file is understood and checked before any of it is returned; what is
not a plain LoRA of one rank and one alpha on a UNet's linear layers is refused, never trimmed.
Pickles are not opened.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import make_folder
from .._safetensors import DTYPES, CheckedFile, open_checked, refuse_pickle
from ..errors import InputError, W2WError, shown
from ..layout import WeightLayout
from . import diffusers, kohya, peft
from ._parts import Described, refuse_key

__all__ = [
    "FORMATS",
    "AlphaMissing",
    "LoRAFile",
    "LoRAFormat",
    "load_lora",
    "save_lora",
    "sniff",
]

LoRAFormat = Literal["peft", "diffusers", "kohya"]
FORMATS: tuple[LoRAFormat, ...] = ("peft", "diffusers", "kohya")

_FORMATS = {"peft": peft, "diffusers": diffusers, "kohya": kohya}
_NUMBERS = {"F32", "F16", "BF16"}


class AlphaMissing(InputError):
    """A LoRA whose file does not state alpha, and for which none was given."""


@dataclass(frozen=True)
class LoRAFile:
    """A LoRA as read from a file.

    Attributes:
        layout: what each number is; holds rank, alpha and the name of the base.
        weights: (d,), plain entries of A and B without the factor alpha / rank, in the dtype of the
            file (float32, float16 or bfloat16), on the CPU.
        format: the kind of file it came from.
        metadata: the strings of its safetensors header, verbatim.
    """

    layout: WeightLayout
    weights: Float[Tensor, " d"]
    format: LoRAFormat
    metadata: dict[str, str] = field(default_factory=dict)


def sniff(path: str | Path) -> LoRAFormat:
    """Say which kind of LoRA a file or folder holds, from the names of its tensors.

    Raises:
        W2WError: no LoRA of the three kinds is there.
    """
    with _told_with(path), open_checked(_locate(Path(path))) as file:
        return _format_of(file)


def load_lora(path: str | Path, alpha: float | None = None) -> LoRAFile:
    """Read a LoRA: a PEFT or diffusers folder, or a safetensors file of any of the three kinds.

    The peak of memory is the numbers once, plus less than 200 MB for the header.

    Args:
        path: the file, or a folder that holds one.
        alpha: the LoRA alpha of a file that does not state it. For many programs such a file has
            alpha = rank; that is for the caller to say.

    Raises:
        AlphaMissing: the file states no alpha and none is given.
        W2WError: anything else than one whole, finite LoRA of one rank and one alpha; a given
            alpha that contradicts the file.
    """
    with _told_with(path):
        weights_path = _locate(Path(path))
        with open_checked(weights_path) as file:
            kind = _format_of(file)
            described = _FORMATS[kind].describe(file, weights_path)
            shapes = {key: file.places[name].shape for key, name in described.names.items()}
            _require_matrices(described.names, shapes)
            # Shapes and ranks come first: an alpha cannot mend them.
            layout = WeightLayout.from_shapes(shapes, described.alpha or alpha or 1.0)
            layout = WeightLayout(
                layout.modules, layout.rank, _alpha(described, alpha, layout), described.base
            )
            weights = _read_weights(file, layout, described.names)
            return LoRAFile(layout, weights, kind, file.metadata)


def save_lora(
    path: str | Path,
    weights: Float[Tensor, " d"],
    layout: WeightLayout,
    format: LoRAFormat,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write one LoRA so that the programs of its format load it at its full strength.

    The file appears whole or not at all, and equal arguments give equal bytes.

    Args:
        path: for peft a folder, for the others a `.safetensors` file; diffusers also takes a folder
            that exists, in which the file gets the name that diffusers looks for.
        weights: (d,), in the order of `layout`; float32, float16 or bfloat16, written as they are.
        layout: names, rank and alpha; its base, if it has one, is named in the file.
        format: "peft", "diffusers" or "kohya".
        metadata: further strings for the header. Entries that state rank, alpha or base are
            always those of the layout, so the metadata of a file that was read may be passed on.

    Returns:
        the path to hand to the other program: the folder for peft, the file otherwise.

    Raises:
        W2WError: weights of another length or dtype, or not finite; layer names that kohya cannot
            express; metadata other than strings; a path that cannot be written.

    Example:
        >>> layout = WeightLayout((LoRAModule("mid_block.attentions.0.proj_in", 2, 3),), 1, 27.0)
        >>> path = save_lora("somebody.safetensors", torch.arange(5.0), layout, "kohya")
        >>> lora = load_lora(path)
        >>> lora.format, lora.layout.alpha, lora.weights
        ('kohya', 27.0, tensor([0., 1., 2., 3., 4.]))
    """
    path = Path(path)
    if format not in _FORMATS:
        raise InputError(f"format {shown(format)}: expected one of {', '.join(FORMATS)}")
    if format != "peft" and not path.is_dir() and path.suffix != ".safetensors":
        raise InputError(f"{path} would not be recognised: expected a name ending in .safetensors")
    tensors = _writable_tensors(weights, layout)
    metadata = _without_stated(metadata or {})
    make_folder(path.parent)
    return _FORMATS[format].write(path, tensors, layout, metadata)


def _writable_tensors(weights: Tensor, layout: WeightLayout) -> dict[str, Tensor]:
    """Cut one weight vector into its tensors, once sure that reading would take them back."""
    if weights.shape != (layout.num_parameters,):
        raise InputError(
            f"weights of shape {list(weights.shape)}: expected [{layout.num_parameters}], one LoRA"
            " of the layout; write the rows of a batch one by one"
        )
    if weights.dtype not in {DTYPES[name] for name in _NUMBERS}:
        raise InputError(f"weights of {weights.dtype}: expected float32, float16 or bfloat16")
    tensors = layout.unflatten(weights.detach().cpu())
    for key, tensor in tensors.items():
        _require_finite(tensor, key)
    return tensors


def _without_stated(metadata: Mapping[str, str]) -> dict[str, str]:
    """Drop what any format states by itself: it would be stale in a file of another format."""
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise InputError("metadata holds other things than strings: expected text to text")
    stated = set().union(*(kind.OWN_METADATA for kind in _FORMATS.values()))
    return {key: value for key, value in metadata.items() if key not in stated}


@contextmanager
def _told_with(path: str | Path) -> Iterator[None]:
    """Start the messages of failures inside with the path that the caller gave."""
    try:
        yield
    except W2WError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{os.fspath(path)}: cannot be read ({reason}); check the path") from error


def _locate(path: Path) -> Path:
    """Return the safetensors file that a file or folder stands for."""
    refuse_pickle(path)
    if not path.is_dir():
        return path
    known = [name for name in (peft.WEIGHTS_NAME, diffusers.WEIGHTS_NAME) if (path / name).exists()]
    names = known or sorted(entry.name for entry in path.glob("*.safetensors"))
    if len(names) == 1:
        return path / names[0]
    if names:
        raise InputError(
            f"a folder with {len(names)} LoRA files ({shown(', '.join(names))}): name one of them"
        )
    for entry in sorted(path.iterdir()):
        refuse_pickle(entry)
    raise InputError(
        f"a folder without LoRA: expected {peft.WEIGHTS_NAME} or {diffusers.WEIGHTS_NAME} in it"
    )


def _format_of(file: CheckedFile) -> LoRAFormat:
    if not file.places:
        raise InputError("holds no tensors: expected a LoRA; export it anew")
    found = {
        name: key for key in file.places for name, kind in _FORMATS.items() if kind.recognise(key)
    }
    if len(found) > 1:
        keys = " and ".join(map(shown, found.values()))
        raise InputError(f"mixes the formats {', '.join(found)} ({keys}): expected one in a file")
    if not found:
        expected = (
            f"keys of peft (base_model.model.…), diffusers (unet.…) or kohya ({kohya.PREFIX}…)"
        )
        refuse_key(file, next(iter(file.places)), expected)
    return cast(LoRAFormat, next(iter(found)))


def _require_matrices(names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for key, shape in shapes.items():
        if len(shape) != 2 or 0 in shape:
            adapts = "adapts a convolution" if len(shape) == 4 else "is no matrix"
            raise InputError(
                f"{names[key]} of shape {list(shape)} {adapts}: expected matrices, LoRAs of linear"
                " layers only; train or extract one without it"
            )


def _alpha(described: Described, given: float | None, layout: WeightLayout) -> float:
    if described.alpha is None and given is None:
        raise AlphaMissing(
            f"states no alpha, so its strength is unknown: expected alpha in the file; give it as"
            f" alpha=… (--alpha), which is {layout.rank}, the rank, if other programs showed it"
            " right"
        )
    if described.alpha is not None and given is not None and described.alpha != given:
        raise InputError(f"states alpha {described.alpha:g}, and {given:g} was given: expected one")
    return described.alpha if described.alpha is not None else cast(float, given)


def _read_weights(
    file: CheckedFile, layout: WeightLayout, names: Mapping[str, str]
) -> Float[Tensor, " d"]:
    """Read the numbers of a whole LoRA straight into one vector."""
    first = names[layout.entries[0].key]
    dtype = file.places[first].dtype
    for name in names.values():
        place = file.places[name]
        if place.dtype not in _NUMBERS:
            raise InputError(
                f"{name} of shape {list(place.shape)} holds {place.dtype}: expected F32, F16 or"
                " BF16; convert it first"
            )
        if place.dtype != dtype:
            raise InputError(
                f"{name} holds {place.dtype} and {first} {dtype}: expected one dtype; convert all"
                " to the wider one"
            )
    weights = torch.empty(layout.num_parameters, dtype=DTYPES[dtype])
    for entry in layout.entries:
        numbers = weights[entry.offset : entry.offset + entry.count]
        numbers.copy_(file.read(names[entry.key]).flatten())
        _require_finite(numbers, f"{names[entry.key]} of shape {list(entry.shape)}")
    return weights


def _require_finite(tensor: Tensor, what: str) -> None:
    # The extremes tell without a temporary: a NaN anywhere makes both NaN.
    if not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):
        count = int((~torch.isfinite(tensor)).sum())
        raise InputError(
            f"{what} holds {count:,} numbers that are NaN or infinite: expected finite ones; the"
            " training diverged or the file is damaged"
        )
