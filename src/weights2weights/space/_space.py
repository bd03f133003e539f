"""`WeightSpace`: models as points of a linear space, and back."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, pad

from .. import directions as _directions
from .. import sampling as _sampling
from .._html import html_table
from ..dataset import WeightDataset
from ..errors import InputError
from ..labels import tidy_labels
from ..layout import WeightLayout
from ..models import Model, require_one_base
from ..pca import Blocks, fit_pca
from ._card import summary
from ._hub import find_space, upload_space

if TYPE_CHECKING:
    import pandas

_BLOCK_VALUES = 2**22  # read at a time; the allocator reuses memory of such a size
_CHUNK = 2**25  # values converted or computed at a time


class Neighbours(NamedTuple):
    """Training models nearest to points: their cosines, falling, and their rows."""

    similarities: Float[Tensor, "*batch c"]
    indices: Int[Tensor, "*batch c"]


@dataclass(frozen=True, eq=False, repr=False)
class WeightSpace:
    """A space of models, frozen: methods return new values.

    Weights w have coefficients c = ((w − mean) / std) @ componentsᵀ; a point c is the model
    c @ components · std + mean. Coefficients are not rescaled: those of the training models have
    standard deviation `coefficient_std[j]` along component j.

    Attributes:
        layout: the meaning of each of the d parameters of a weight vector; names the base.
        mean: float32, of the training models.
        std: float32, unbiased, 1 where a parameter never varies.
        components: orthonormal rows by falling variance, float32 or float16; rounded if stored as
            int8.
        coefficients: of the training models on the first k components; k = m unless the space was
            imported with fewer.
        names: of the training models.
        labels: one row per training model, nullable booleans and floats, made from any DataFrame
            indexed by name; default: no labels.
        base_hash: content hash of the base model, "" if unknown.
        fit_id: identifies the fit; default: hash of the first component.
        metadata: how the space was fitted, JSON values: `of`, `captured_variance`, `error_bound`, …

    Raises:
        InputError: shapes that do not match, labels that are not numeric.

    Example:
        >>> layout = WeightLayout((LoRAModule("to_q", 2, 1),), rank=1, alpha=1.0, base="")
        >>> space = WeightSpace(layout, mean=torch.zeros(3), std=torch.tensor([1.0, 2.0, 4.0]),
        ...                     components=torch.eye(3)[:2])
        >>> space.project(torch.tensor([3.0, 2.0, 8.0]))
        tensor([3., 1.])
    """

    layout: WeightLayout
    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]
    components: Float[Tensor, "m d"]
    coefficients: Float[Tensor, "n k"] = field(default_factory=lambda: torch.empty(0, 0))
    names: tuple[str, ...] = ()
    labels: "pandas.DataFrame" = field(default_factory=lambda: tidy_labels(None, ()))
    base_hash: str = ""
    fit_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        d, m, k = self.width, len(self.components), self.coefficients.shape[1]
        shapes = {"mean": (d,), "std": (d,), "components": (m, d)}
        for name, shape in {**shapes, "coefficients": (len(self.names), k)}.items():
            found = getattr(self, name).shape
            if found != shape:
                raise InputError(
                    f"{name} has shape {list(found)}, expected {list(shape)} for {m} components,"
                    f" {d} parameters and {len(self.names)} models"
                )
        if k > m:
            raise InputError(f"coefficients on {k} components, expected at most {m}")
        for name in ("captured_variance", "error_bound"):
            value = self.metadata.get(name, 0.0)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"metadata {name} is {value!r:.40}, expected a number")
        object.__setattr__(self, "labels", tidy_labels(self.labels, self.names))
        if not self.fit_id:
            object.__setattr__(self, "fit_id", digest(self.components[:1]))

    @classmethod
    def fit(
        cls, dataset: WeightDataset, components: int = 1000, labels: Any = None, **options: Any
    ) -> "WeightSpace":
        """Fit a space to a dataset of models, reading it about seven times; see `fit_pca`.

        Args:
            dataset: the training models, with their labels.
            components: m; fewer are returned if the models span fewer.
            labels: a table indexed by name, in place of the labels of the dataset.
            options: any of `fit_pca`.

        Raises:
            InputError: as in `fit_pca`; damaged rows.
        """
        return cls.fit_blocks(
            dataset.blocks(max(_BLOCK_VALUES // dataset.layout.num_parameters, 1)),
            components,
            layout=dataset.layout,
            names=dataset.names,
            labels=dataset.labels if labels is None else labels,
            base_hash=dataset.base_hash,
            **options,
        )

    @classmethod
    def fit_blocks(
        cls,
        blocks: Blocks,
        components: int,
        *,
        layout: WeightLayout,
        names: Sequence[str] | None = None,
        labels: Any = None,
        base_hash: str = "",
        **options: Any,
    ) -> "WeightSpace":
        """Fit a space to any stream of weight vectors of a layout; see `fit`.

        Args:
            blocks: the rows.
            components: m; fewer are returned if the rows span fewer.
            layout: of the rows.
            names: of the rows; default: 0, 1, 2, …
            labels: a table indexed by name.
            base_hash: content hash of the base model.
            options: any of `fit_pca`.
        """
        if blocks.columns != (d := layout.num_parameters):
            raise InputError(f"rows of {blocks.columns} values, expected the {d} of the layout")
        pca = fit_pca(blocks, components, **options)
        facts = ("captured_variance", "error_bound", "total_variance", "passes")
        metadata = {"of": "weights", **{fact: getattr(pca, fact) for fact in facts}}
        space = cls(
            layout, pca.mean, pca.std, pca.components, base_hash=base_hash, metadata=metadata
        )
        coefficients, row = torch.empty(blocks.rows, len(space)), 0
        for block in blocks:
            coefficients[row : row + len(block)] = space.project(block)
            row += len(block)
        names = list(map(str, range(blocks.rows))) if names is None else names
        return space.with_models(coefficients, names, labels)

    def __len__(self) -> int:
        """Number m of components."""
        return len(self.components)

    def __repr__(self) -> str:
        return (
            f"WeightSpace({len(self.names):,} models, {len(self):,} components of"
            f" {self.num_parameters:,} parameters, captured variance {self.captured_variance:.1%},"
            f" {self.labels.shape[1]} labels, base {self.layout.base or 'unknown'!r})"
        )

    def _repr_html_(self) -> str:
        return html_table(summary(self), "WeightSpace")

    @property
    def width(self) -> int:
        """Number of columns of the components: d, except in spaces of updates."""
        return self.num_parameters

    @property
    def num_parameters(self) -> int:
        """Length d of a weight vector."""
        return self.layout.num_parameters

    @property
    def captured_variance(self) -> float:
        """Fraction of the training models' standardised variance in the space; NaN if unknown."""
        return float(self.metadata.get("captured_variance", math.nan))

    @cached_property
    def hash(self) -> str:
        """16 hex digits that identify the coordinates: layout, mean, std and `fit_id`.

        The same for truncations and copies in another dtype: a point is the same model in them.
        """
        return digest(self.mean, self.std, salt=self.layout.hash + self.fit_id)

    @cached_property
    def coefficient_mean(self) -> Float[Tensor, " k"]:
        """Mean of the training models' coefficients, float32: about 0 unless imported."""
        return self.coefficients.float().mean(0) if len(self.names) else torch.zeros(0)

    @cached_property
    def coefficient_std(self) -> Float[Tensor, " k"]:
        """Standard deviation of the training models' coefficients, unbiased, float32."""
        if len(self.names) < 2:
            return torch.zeros(self.coefficients.shape[1])
        return self.coefficients.float().std(0)

    # Points and weights.

    def project(self, weights: Any) -> Float[Tensor, "*batch m"]:
        """Return the coefficients of LoRA weight vectors: c = ((w − mean) / std) @ components.T.

        Args:
            weights: "*batch d", LoRAs in the order of `layout`, any floating dtype; plain A
                and B entries, before the alpha/r factor. What lies outside the space is lost.

        Returns:
            float32 coefficients on the device of `components`.

        Raises:
            InputError: the last axis is not d (another rank, base model or set of target modules).

        Source: Dravid et al. 2024, arXiv:2406.09413, section 3.2. Inverse: `to_weights`.
        """
        standard = self._standardise(torch.as_tensor(weights))
        return torch.cat([standard @ part.mT for part in _parts(self.components)], dim=-1)

    def to_weights(self, coefficients: Any) -> Float[Tensor, "*batch d"]:
        """Return the weight vectors of points: w = c @ components · std + mean, differentiable.

        Args:
            coefficients: "*batch j", on the first j ≤ m components; the others count as 0.

        Returns:
            float32 weight vectors on the device of `components`.
        """
        coefficients = torch.as_tensor(coefficients)
        count = coefficients.shape[-1]
        if count > len(self):
            raise InputError(f"{count} coefficients, expected at most {len(self)}")
        points = coefficients.to(self.components.device).float()
        rows, first = points.new_zeros(*points.shape[:-1], self.num_parameters), 0
        for part in _parts(self.components[:count]):
            rows = rows + points[..., first : first + len(part)] @ part
            first += len(part)
        return rows * self.std + self.mean

    def moved(
        self, layout: WeightLayout, weights: Float[Tensor, "*batch d"], shift: Float[Tensor, " j"]
    ) -> tuple[WeightLayout, Float[Tensor, "*batch d"]]:
        """Return weights whose point is shifted; what lies outside the space stays.

        Raises:
            InputError: another layout.
        """
        self.layout.require_equal(layout, "the model")
        change = (self.to_weights(shift.float()) - self.mean).double()
        return layout, (weights.double() + change.to(weights.device)).to(weights)

    def residual(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return what `project` loses: w − to_weights(project(w))."""
        return weights.to(self.components.device).float() - self.to_weights(self.project(weights))

    def relative_residual(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return the share of weights outside the space, from 0 to 1, by standardised norms.

        About 0.01 for points of a space that was stored as int8.
        """
        residual = self.residual(weights) / self.std
        return residual.norm(dim=-1) / self._standardise(weights).norm(dim=-1).clamp(min=1e-30)

    def _standardise(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        if weights.shape[-1:] != (self.num_parameters,):
            raise InputError(
                f"weights have shape {list(weights.shape)}, expected a last axis of"
                f" {self.num_parameters}; use models of this space's layout"
            )
        return (weights.to(self.mean.device).float() - self.mean) / self.std

    def neighbours(self, coefficients: Float[Tensor, "*batch j"], count: int = 5) -> Neighbours:
        """Find the training models nearest to points, by cosine similarity of coefficients.

        Args:
            coefficients: the points; only components that the training models have too count.
            count: how many to find, at most as many as there are models.

        Raises:
            InputError: the space holds no training models.

        Source: Dravid et al. 2024, section 4.2: samples are not copies of training models.
        """
        if not self.names:
            raise InputError("this space has no training models to find neighbours among")
        width = min(coefficients.shape[-1], self.coefficients.shape[1])
        points = normalize(coefficients[..., :width].cpu().float(), dim=-1, eps=1e-30)
        training = normalize(self.coefficients[:, :width].float(), dim=-1, eps=1e-30)
        shape = (*points.shape[:-1], min(count, len(training)))
        parts = points.reshape(-1, width).split(max(_CHUNK // len(training), 1))
        found = [(part @ training.T).topk(shape[-1]) for part in parts]
        return Neighbours(*(torch.cat(x).reshape(shape) for x in zip(*found, strict=True)))

    # Other spaces of the same coordinates.

    def linear(self, components: int) -> "WeightSpace":
        """Return a space in which weights are linear in the first components: this one."""
        return self

    def truncate(self, components: int) -> "WeightSpace":
        """Return the space of the first components, at least one; the hash stays the same."""
        if not 1 <= components <= len(self):
            raise InputError(f"components is {components}, expected 1 to {len(self)}")
        metadata = dict(self.metadata)
        if "captured_variance" in metadata:
            variances = self.coefficient_std**2
            kept = variances[:components].sum() / variances.sum().clamp(min=1e-30)
            metadata["captured_variance"] = self.captured_variance * float(kept)
        return replace(
            self,
            components=self.components[:components],
            coefficients=self.coefficients[:, :components],
            metadata=metadata,
        )

    def with_models(
        self, coefficients: Float[Tensor, "n k"], names: Sequence[str], labels: Any = None
    ) -> "WeightSpace":
        """Return the same space with other training models, on its first k components."""
        labels = tidy_labels(labels, names)
        return replace(self, coefficients=coefficients, names=tuple(names), labels=labels)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "WeightSpace":
        """Return the space with mean, std and components on a device, components in a dtype."""
        return replace(
            self,
            mean=self.mean.to(device),
            std=self.std.to(device),
            components=self.components.to(device=device, dtype=dtype),
        )

    # Functions of a space as its methods.

    sample = _sampling.sample
    direction = _directions.find_direction
    directions = _directions.find_directions

    # Model files.

    def coefficients_of(self, model: Model) -> Float[Tensor, " m"]:
        """Return the point of a model: its coefficients in this space, or its weights projected.

        Raises:
            InputError: coefficients of another space and no weights, or another layout or base.
        """
        self.layout.require_equal(model.layout, "the model")
        require_one_base(self.base_hash, model.base_hash, "the model")
        spaces = (self.hash, self.metadata.get("imported"))
        if model.coefficients is not None and model.space in spaces:
            return pad(model.coefficients.cpu(), (0, len(self) - len(model.coefficients)))
        if model.weights is not None:
            return self.project(model.weights)
        raise InputError(
            f"{model.name or 'the model'} is a point of space {model.space}, not of the given one"
            f" ({self.hash}); give the space that it was made in as space=… (--space)"
        )

    def model(self, coefficients: Float[Tensor, " j"], origin: Mapping[str, Any]) -> Model:
        """Return a point of this space as a model that can be saved to a file."""
        return Model(
            self.layout,
            coefficients=coefficients.detach().float().cpu(),
            space=self.hash,
            base_hash=self.base_hash,
            origin=origin,
        )

    # Saving and sharing.

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Save the space to a folder, with its model card, and return the folder.

        `config.json` is written last: a folder that has one is complete. Equal spaces give equal
        files.

        Args:
            folder: made if absent; a space in it is replaced.
            dtype: of the components and coefficients on disk; default: as they are. float16 halves
                the files and changes models by a relative 3e-4; int8 quarters them, by 1e-2.

        Raises:
            InputError: another dtype, names or metadata that cannot be stored.
            ResourceError: the folder cannot be written.
        """
        from ._store import write

        write(Path(folder), self, dtype)
        return Path(folder)

    @classmethod
    def from_pretrained(cls, source: str | Path, **download: Any) -> "WeightSpace":
        """Load a space from a folder, the Hugging Face hub, or the package ("people").

        Tensors are memory-mapped; only int8 components are converted, to float16.

        Args:
            source: a folder, a hub id such as "someone/space", or the name of an embedded world.
            download: options of `huggingface_hub.snapshot_download`, such as `revision`.

        Raises:
            InputError: nothing there, a later format version, or damaged files.
            ResourceError: the hub cannot be reached.
        """
        from ._store import read

        return read(find_space(source, **download))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype | None = torch.float16,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload space",
    ) -> str:
        """Upload the space and its card to the Hugging Face hub; return the URL of the commit.

        Args:
            repo_id: "user/name"; created if absent.
            dtype: see `save_pretrained`.
            private: whether a new repository is private.
            token: of the hub; default: that of the login.
            commit_message: of the upload.

        Raises:
            InputError: the hub has no such name.
            ResourceError: the hub cannot be reached or refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype)
            return upload_space(folder, repo_id, private, token, commit_message)


def _parts(components: Tensor) -> Iterator[Tensor]:
    """Yield components in float32: all at once, or in parts if they have to be converted."""
    plain = components.dtype == torch.float32
    height = max(len(components) if plain else _CHUNK // components.shape[1], 1)
    return (part.float() for part in components.split(height))


def digest(*tensors: Tensor, salt: str = "") -> str:
    """Return 16 hex digits of the SHA-256 of tensors."""
    digest = hashlib.sha256(salt.encode())
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
