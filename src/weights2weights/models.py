"""The model file: one point of a space, or one LoRA, with how it came about.

Sampling, editing and inversion produce a *model*: `coefficients` (m, a point of a space), `weights`
(d, a whole LoRA), or both. docs/files.md lists the strings in the header of its safetensors file.
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
from ._safetensors import CheckedFile, open_checked, write_safetensors
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

    Without coefficients it fits any space of its layout; without weights it needs its own space to
    become weights.

    Attributes:
        layout: what each of the d weights is.
        coefficients: float32, the point in its space, or None.
        weights: float32, entries of A and B in the order of `layout`, or None.
        space: hash of the space of the coefficients, "" if there are none.
        base_hash: content hash of the base model, "" if unknown.
        origin: how it came about, JSON values.
        name: for captions and messages; not stored, a file's model has the name of the file.
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
        for name, tensor in self._tensors().items():
            if not tensor.isfinite().all():
                raise InputError(f"the {name} contain NaN or infinite values; expected finite ones")
            object.__setattr__(self, name, tensor.float())

    def _tensors(self) -> dict[str, Tensor]:
        found = {"coefficients": self.coefficients, "weights": self.weights}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

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

    Layouts cannot answer this: fine-tunes of one architecture share theirs. If both hashes are
    known and differ, the InputError names `what` has the other one.
    """
    if ours and theirs and ours != theirs:
        raise InputError(
            f"{what} was made for another base (hash {theirs}): expected {ours}; LoRAs of several"
            " base models share no space and mean nothing on another's, so give one of that base"
        )
    return ours or theirs


def save_model(path: str | Path, model: Model) -> Path:
    """Write a model file, whole or not at all, and return its path.

    Args:
        path: a name ending in `.safetensors`; its folder is made if absent.
        model: what to write; equal models give equal bytes.

    Raises:
        InputError: another extension, an origin that JSON cannot hold.
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
    make_folder(path.parent)
    write_safetensors(path, model._tensors(), metadata)
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
        InputError: neither of them, or a damaged file; the message begins with the path.
    """
    path = Path(path)
    if not (path.is_file() or path.is_dir()):
        what = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}; give a model or LoRA file")
    if path.is_file() and path.suffix == MODEL_SUFFIX:
        layout, vector = load_authors_model(path, alpha)
        model = {"origin": {"file": path.name, "format": "authors"}, "name": path.stem}
        if len(vector) == layout.num_parameters:
            return Model(layout, weights=vector, **model)
        return Model(layout, vector, space=PUBLISHED_SPACE, **model)
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


def _parse(file: CheckedFile, name: str) -> Model:
    strings = file.metadata
    if (version := strings.get("format_version", "")) != str(FORMAT_VERSION):
        raise InputError(
            f"format version {version!r}: expected {FORMAT_VERSION}; a newer weights2weights may"
            " read it"
        )
    try:
        layout = WeightLayout.from_dict(parse_json(strings["layout"], "the layout"))
        origin = parse_json(strings["origin"], "the origin")
        space, base_hash, stated = (strings[key] for key in ("space", "base_hash", "layout_hash"))
    except KeyError as error:
        raise InputError(f"no {error} in the header; the file is damaged") from error
    if layout.hash != stated:
        raise InputError(f"a layout of hash {layout.hash}: expected {stated}; the file is damaged")
    if set(file.places) - {"coefficients", "weights"} or not isinstance(origin, dict):
        raise InputError("more than coefficients, weights and an origin; the file is damaged")
    tensors = {key: file.read(key).clone() for key in file.places}
    for key, tensor in tensors.items():
        if tensor.dtype not in _FLOATS or tensor.ndim != 1:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise InputError(f"{key} as {found}: expected one axis of floats")
    return Model(layout, space=space, base_hash=base_hash, origin=origin, name=name, **tensors)
