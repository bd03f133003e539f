"""The model file: one point of a space, or one LoRA, with how it came about.

Sampling, editing and inversion produce a *model*. It is kept in a safetensors file of
`coefficients` (m, a point of a space), `weights` (d, a whole LoRA), or both, and these strings in
the header:

| key | value |
|---|---|
| `format` | `weights2weights-model` |
| `format_version` | `1` |
| `layout` | the `WeightLayout` as JSON, so that weights can be exported without their space |
| `layout_hash` | its hash |
| `space` | hash of the space of the coefficients; empty for weights alone |
| `base_hash` | content hash of the base model; empty if unknown |
| `origin` | JSON: how it came about, such as `{"verb": "sample", "seed": 0, "row": 3}` |

A model without coefficients fits any space of its layout; one without weights needs its own space
to become weights. `load_model` also reads the LoRA files of other programs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ._files import make_folder
from ._html import html_table
from ._json import canonical_json, parse_json
from ._safetensors import open_checked, write_safetensors
from .errors import InputError, W2WError
from .formats import load_lora
from .formats.authors import MODEL_SUFFIX, PUBLISHED_SPACE, load_authors_model
from .layout import WeightLayout

FORMAT = "weights2weights-model"
FORMAT_VERSION = 1

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, eq=False)
class Model:
    """A personalised diffusion model: a point of a space, a LoRA, or both.

    Attributes:
        layout: what each of the d weights is.
        coefficients: float32, the point in its space, or None.
        weights: float32, plain A and B entries in the order of `layout`, or None.
        space: hash of the space of the coefficients, "" if there are none.
        base_hash: content hash of the base model, "" if unknown.
        origin: how it came about, JSON values.
        name: for captions and messages; not stored, a file's model has the name of the file.

    Raises:
        InputError: neither coefficients nor weights, values that are not finite, weights of another
            length than the layout's, coefficients without a space.
    """

    layout: WeightLayout
    coefficients: Float[Tensor, " m"] | None = None
    weights: Float[Tensor, " d"] | None = None
    space: str = ""
    base_hash: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self):
        if self.coefficients is None and self.weights is None:
            raise InputError("a model without coefficients and weights: expected one of them")
        if self.weights is not None and self.weights.shape != (self.layout.num_parameters,):
            raise InputError(
                f"weights of shape {list(self.weights.shape)}: expected"
                f" [{self.layout.num_parameters}], one LoRA of the layout"
            )
        if self.coefficients is not None and not (self.coefficients.ndim == 1 and self.space):
            raise InputError(
                f"coefficients of shape {list(self.coefficients.shape)} in space {self.space!r}:"
                " expected one axis and the hash of their space"
            )
        for name in ("coefficients", "weights"):
            tensor = getattr(self, name)
            if tensor is not None and not tensor.isfinite().all():
                raise InputError(f"the {name} contain NaN or infinite values; expected finite ones")
            if tensor is not None:
                object.__setattr__(self, name, tensor.float())

    def __repr__(self) -> str:
        return f"Model({', '.join(f'{key} {text}' for key, text in self._summary().items())})"

    def _repr_html_(self) -> str:
        return html_table(self._summary())

    def _summary(self) -> dict[str, str]:
        layout, parts = self.layout, {}
        if self.name:
            parts["name"] = repr(self.name)
        if self.coefficients is not None:
            parts["point"] = f"of {len(self.coefficients)} components in space {self.space}"
        if self.weights is not None:
            parts["weights"] = f"of {len(self.weights):,} parameters"
        parts["LoRA"] = f"rank {layout.rank}, alpha {layout.alpha:g}"
        if layout.base:
            parts["base"] = layout.base
        return parts


def require_one_base(ours: str, theirs: str, what: str) -> str:
    """Return the content hash of the one base model that two things belong to, "" if unknown.

    Layouts cannot answer this: fine-tunes of one architecture share theirs.

    Args:
        ours: hash of the expected base, "" if unknown.
        theirs: hash of the other base, "" if unknown.
        what: what has the other base, for the message: "adam.safetensors".

    Raises:
        InputError: both are known and differ.
    """
    if ours and theirs and ours != theirs:
        raise InputError(
            f"{what} was made for another base (hash {theirs}): expected {ours}; LoRAs of several"
            " base models share no space and mean nothing on another's, so give one of that base"
        )
    return ours or theirs


def save_model(path: str | Path, model: Model) -> Path:
    """Write a model file, whole or not at all; equal models give equal bytes.

    Args:
        path: a name ending in `.safetensors`; its folder is made if absent.
        model: what to write.

    Returns:
        the path.

    Raises:
        InputError: another extension, an origin that JSON cannot hold.
        W2WError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a name ending in .safetensors")
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "layout": json.dumps(model.layout.to_dict(), separators=(",", ":")),
        "layout_hash": model.layout.hash,
        "space": model.space,
        "base_hash": model.base_hash,
        "origin": canonical_json(dict(model.origin)).decode(),
    }
    tensors = {"coefficients": model.coefficients, "weights": model.weights}
    present = {
        name: tensor.detach().cpu() for name, tensor in tensors.items() if tensor is not None
    }
    make_folder(path.parent)
    write_safetensors(path, present, metadata)
    return path


def is_model(path: str | Path) -> bool:
    """Return whether a path is a model file, ours or the authors'; anything else is not."""
    path = Path(path)
    if path.suffix == MODEL_SUFFIX:
        return path.is_file()
    try:
        with open_checked(path) as file:
            return file.metadata.get("format") == FORMAT
    except (OSError, W2WError):
        return False


def load_model(path: str | Path, alpha: float | None = None) -> Model:
    """Read a model file, or a LoRA file or folder of any format as a model with weights.

    A `.pt` file of the paper's authors holds either weights or a point of their space, which only
    a space imported from their files (`import_published`) can turn into weights.

    Args:
        path: the file, or a folder that holds a LoRA.
        alpha: LoRA alpha of a LoRA file that does not state it.

    Raises:
        InputError: neither of them; or a model file that is damaged, of a later version, or
            contradicts itself. The message begins with the path.
    """
    path = Path(path)
    if not (path.is_file() or path.is_dir()):
        what = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}; give a model or LoRA file")
    if path.is_file() and path.suffix == MODEL_SUFFIX:
        return _load_authors(path, alpha)
    if path.is_file():
        try:
            with open_checked(path) as file:
                if file.metadata.get("format") == FORMAT:
                    return _parse(file, path.stem)
        except W2WError as error:
            raise InputError(f"{path}: {error}") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error
    lora = load_lora(path, alpha)
    origin = {"file": path.name, "format": lora.format}
    return Model(lora.layout, weights=lora.weights.float(), origin=origin, name=path.stem)


def _load_authors(path: Path, alpha: float | None) -> Model:
    layout, vector = load_authors_model(path, alpha)
    origin = {"file": path.name, "format": "authors"}
    if len(vector) == layout.num_parameters:
        return Model(layout, weights=vector, origin=origin, name=path.stem)
    return Model(layout, vector, space=PUBLISHED_SPACE, origin=origin, name=path.stem)


def _parse(file: Any, name: str) -> Model:
    strings = file.metadata
    version = strings.get("format_version", "")
    if version != str(FORMAT_VERSION):
        raise InputError(
            f"format version {version!r}: expected {FORMAT_VERSION}; a newer weights2weights may"
            " read it"
        )
    try:
        layout = WeightLayout.from_dict(parse_json(strings["layout"], "the layout"))
        origin = parse_json(strings["origin"], "the origin")
        space, base_hash, layout_hash = (
            strings[key] for key in ("space", "base_hash", "layout_hash")
        )
    except KeyError as error:
        raise InputError(f"no {error} in the header; the file is damaged") from error
    if layout.hash != layout_hash:
        raise InputError(
            f"a layout of hash {layout.hash}: expected {layout_hash}; the file is damaged"
        )
    if set(file.places) - {"coefficients", "weights"} or not isinstance(origin, dict):
        raise InputError(
            "more than coefficients, weights and an origin; the file is damaged or of another kind"
        )
    tensors = {key: file.read(key).clone() for key in file.places}
    for key, tensor in tensors.items():
        if tensor.dtype not in _FLOATS or tensor.ndim != 1:
            raise InputError(
                f"{key} as {tensor.dtype} {list(tensor.shape)}: expected one axis of floats"
            )
    return Model(layout, space=space, base_hash=base_hash, origin=origin, name=name, **tensors)
