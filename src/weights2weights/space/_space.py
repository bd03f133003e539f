"""`WeightSpace`: models as points of a linear space, and back."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..dataset import WeightDataset
from ..errors import InputError
from ..labels import tidy_labels
from ..layout import WeightLayout, require_one_base
from ..models import Model
from ..pca import PCA, Blocks, fit_pca

if TYPE_CHECKING:
    import pandas

_BLOCK = 2**22  # numbers read at a time; the allocator reuses memory of such a size
_CHUNK = 2**25  # numbers of the components that are converted to float32 at a time


@dataclass(frozen=True, eq=False)
class WeightSpace:
    """A space of models, frozen: every method returns new values.

    A weight vector w has coefficients c = ((w − mean) / std) @ componentsᵀ; a point c is the model
    c @ components · std + mean. Coefficients are not rescaled: along component j the training
    models spread with `coefficient_std[j]`.

    Attributes:
        layout: what each of the d numbers of a weight vector is; holds the name of the base.
        mean: float32, of the training models.
        std: float32, unbiased, 1 where a number never varies.
        components: orthonormal rows by falling variance, float32 or float16; where they were
            stored in integers, but for their rounding.
        coefficients: of the training models on the first k components; k = m unless the space was
            imported with fewer.
        names: of the training models.
        labels: one row per training model, indexed by name; booleans and numbers, some missing.
            Default: no labels.
        variances: of the training models along each component. Default: 0,
            unknown.
        base_hash: content hash of the base model, "" if unknown.
        facts: how the space was fitted, JSON values: `captured_variance`, `error_bound`, …

    Raises:
        W2WError: shapes that do not fit each other.

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
    labels: "pandas.DataFrame" = None  # type: ignore[assignment]  # see __post_init__
    variances: Float[Tensor, " m"] = None  # type: ignore[assignment]  # see __post_init__
    base_hash: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        numbers, count = self.layout.num_parameters, len(self.components)
        shapes = {
            "mean": (self.mean, (numbers,)),
            "std": (self.std, (numbers,)),
            "components": (self.components, (count, numbers)),
            "coefficients": (self.coefficients, (len(self.names), self.coefficients.shape[1])),
        }
        if self.variances is not None:
            shapes["variances"] = (self.variances, (count,))
        for name, (tensor, shape) in shapes.items():
            if tensor.shape != shape:
                raise InputError(
                    f"{name} of shape {list(tensor.shape)}: expected {list(shape)} for"
                    f" {count} components, {numbers} numbers and {len(self.names)} models"
                )
        if self.coefficients.shape[1] > count:
            raise InputError(
                f"coefficients on {self.coefficients.shape[1]} components: expected at most {count}"
            )
        if self.variances is None:
            object.__setattr__(self, "variances", torch.zeros(count))
        object.__setattr__(self, "labels", tidy_labels(self.labels, self.names))

    # Fitting.

    @classmethod
    def fit(
        cls,
        dataset: WeightDataset,
        components: int,
        labels: Any = None,
        **options: Any,
    ) -> "WeightSpace":
        """Fit a space to a dataset of models.

        Reads the dataset some six times, and once more for the coefficients of its models. Memory:
        for d × (m + oversampling) numbers and the n × m coefficients; see `fit_pca`.

        Args:
            dataset: the training models; its labels come along.
            components: m; fewer come back if the models span fewer.
            labels: a table indexed by name, in place of the labels of the dataset.
            options: any of `fit_pca`.

        Raises:
            W2WError: as in `fit_pca`; damaged rows.
        """
        return cls.fit_blocks(
            _blocks(dataset),
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
        """Fit a space to any stream of weight vectors; see `fit`.

        Args:
            blocks: the rows.
            components: m.
            layout: of the rows.
            names: of the rows; default: their numbers.
            labels: a table indexed by name.
            base_hash: content hash of the base model.
            options: any of `fit_pca`.

        Raises:
            W2WError: rows of another length than the layout's; as in `fit_pca`.
        """
        if blocks.columns != layout.num_parameters:
            raise InputError(
                f"rows of {blocks.columns} numbers: expected {layout.num_parameters} by their"
                " layout"
            )
        pca = fit_pca(blocks, components, **options)
        names = tuple(map(str, range(blocks.rows))) if names is None else tuple(names)
        return cls._of_pca(pca, blocks, layout, names, labels, base_hash)

    @classmethod
    def _of_pca(
        cls,
        pca: PCA,
        blocks: Blocks,
        layout: WeightLayout,
        names: tuple[str, ...],
        labels: Any,
        base_hash: str,
    ) -> "WeightSpace":
        facts = {
            "captured_variance": pca.captured_variance,
            "error_bound": pca.error_bound,
            "total_variance": pca.total_variance,
            "passes": pca.passes,
        }
        space = cls(layout, pca.mean, pca.std, pca.components, base_hash=base_hash, facts=facts)
        coefficients = torch.empty(blocks.rows, len(pca.components))
        row = 0
        for block in blocks:
            coefficients[row : row + len(block)] = space.project(block)
            row += len(block)
        return replace(
            space, coefficients=coefficients, names=names, labels=labels, variances=pca.variances
        )

    # What it is.

    def __len__(self) -> int:
        """Number m of components."""
        return len(self.components)

    @property
    def num_parameters(self) -> int:
        """Length d of a weight vector."""
        return self.layout.num_parameters

    @cached_property
    def coefficient_mean(self) -> Float[Tensor, " k"]:
        """Mean of the training models' coefficients, float32: about 0, except by import."""
        return self.coefficients.float().mean(0) if len(self.names) else torch.zeros(0)

    @cached_property
    def coefficient_std(self) -> Float[Tensor, " k"]:
        """Standard deviation of the training models' coefficients, unbiased, float32."""
        if len(self.names) < 2:
            return torch.zeros(self.coefficients.shape[1])
        return self.coefficients.float().std(0)

    @property
    def captured_variance(self) -> float:
        """Fraction of the training models' standardised variance that the components hold."""
        return float(self.facts.get("captured_variance", math.nan))

    @cached_property
    def hash(self) -> str:
        """16 hex digits that name the coordinates: layout, mean, std, signs of component 0.

        The same for float16 and float32 copies and for any number of components, since a point of
        a truncated space is the same model in the whole one.
        """
        digest = hashlib.sha256(self.layout.hash.encode())
        for tensor in (self.mean, self.std):
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        digest.update(torch.signbit(self.components[0]).cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        return (
            f"WeightSpace({len(self)} components of {self.num_parameters:,} numbers,"
            f" {len(self.names):,} models, {self.labels.shape[1]} labels)"
        )

    # Points and models.

    def project(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return the coefficients of LoRA weight vectors in this space.

        Standardise every number with the training mean and std, then multiply with the m
        orthonormal components: c = ((w − mean) / std) @ components.T. The part of w outside the
        space is lost; see `residual`.

        Args:
            weights: flattened LoRAs in the order of `layout`, any floating dtype; plain A and B
                entries, before the alpha/r factor.

        Returns:
            float32 coefficients on the device of `components`.

        Raises:
            W2WError: the last axis is not d (another rank, base model or set of target modules).

        Source: Dravid et al. 2024, arXiv:2406.09413, section 3.2. Inverse: `to_weights`.
        """
        if weights.shape[-1:] != (self.num_parameters,):
            raise InputError(
                f"weights of shape {list(weights.shape)}: expected a last axis of"
                f" {self.num_parameters}; use models of the layout that this space was fitted to"
            )
        rows = (weights.to(self.components.device).float() - self.mean) / self.std
        return torch.cat([rows @ part.mT for part in self._components()], dim=-1)

    def to_weights(self, coefficients: Float[Tensor, "*batch j"]) -> Float[Tensor, "*batch d"]:
        """Return the weight vectors of points: w = c @ components · std + mean.

        Differentiable in the coefficients.

        Args:
            coefficients: on the first j ≤ m components; the others count as 0.

        Returns:
            float32 weight vectors on the device of `components`.

        Raises:
            W2WError: more coefficients than components.
        """
        count = coefficients.shape[-1]
        if count > len(self):
            raise InputError(
                f"{count} coefficients: expected at most {len(self)}, one per component of this"
                " space"
            )
        points = coefficients.to(self.components.device).float()
        rows = points.new_zeros(*points.shape[:-1], self.num_parameters)
        first = 0
        for part in self._components(count):
            rows = rows + points[..., first : first + len(part)] @ part
            first += len(part)
        return rows * self.std + self.mean

    def residual(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return what `project` loses: w − to_weights(project(w)). Added back, it restores w."""
        return weights.to(self.components.device).float() - self.to_weights(self.project(weights))

    def relative_residual(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return how much of weight vectors lies outside: 0 for points of the space, at most 1.

        For points of a space that was stored in int4 it is about 0.1, its rounding.
        The norm of the standardised remainder over that of the standardised vector.
        """
        rows = (weights.to(self.components.device).float() - self.mean) / self.std
        remainder = self.residual(weights) / self.std
        return remainder.norm(dim=-1) / rows.norm(dim=-1).clamp(min=1e-30)

    def _components(self, count: int | None = None) -> Iterator[Tensor]:
        """Return the first components in float32, a part at a time if they must be converted."""
        components = self.components if count is None else self.components[:count]
        plain = components.dtype == torch.float32
        height = max(len(components) if plain else _CHUNK // self.num_parameters, 1)
        return (components[i : i + height].float() for i in range(0, len(components), height))

    def truncate(self, components: int) -> "WeightSpace":
        """Return the space of the first components; all else stays.

        Raises:
            W2WError: none, or more than there are.
        """
        if not 1 <= components <= len(self):
            raise InputError(f"{components} components: expected 1 to {len(self)}")
        captured = self.captured_variance * float(
            self.variances[:components].sum() / self.variances.sum().clamp(min=1e-30)
        )
        facts = {**self.facts, "captured_variance": captured}
        return replace(
            self,
            components=self.components[:components],
            variances=self.variances[:components],
            coefficients=self.coefficients[:, :components],
            facts=facts,
        )

    def with_models(
        self, coefficients: Float[Tensor, "n k"], names: Sequence[str], labels: Any = None
    ) -> "WeightSpace":
        """Return the same space with other training models, and variances measured on them.

        Args:
            coefficients: of the models on the first k components.
            names: of the models.
            labels: a table indexed by name, or None for no labels.

        Raises:
            W2WError: shapes that do not fit each other.
        """
        bare = WeightSpace(self.layout, self.mean, self.std, self.components)
        models = replace(
            bare, coefficients=coefficients, names=tuple(names), labels=tidy_labels(labels, names)
        )
        variances = torch.zeros(len(self))
        variances[: len(models.coefficient_std)] = models.coefficient_std**2
        return replace(models, variances=variances, base_hash=self.base_hash, facts=self.facts)

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

    def neighbours(self, coefficients: Float[Tensor, "*batch j"], count: int = 5) -> "Neighbours":
        """Find the training models nearest to points, by cosine similarity of coefficients, exact.

        Args:
            coefficients: the points, on at least the first k components, where k is the number of
                components that training coefficients are known for; further ones are ignored. With
                fewer, only those are compared.
            count: how many to find, at most as many as there are models.

        Raises:
            W2WError: the space holds no training models.

        Source: Dravid et al. 2024, section 4.2: proof that a sample is no copy.
        """
        if not self.names:
            raise InputError("this space holds no training models to be neighbours")
        width = min(coefficients.shape[-1], self.coefficients.shape[1])
        training = self.coefficients[:, :width].float()
        training = training / training.norm(dim=1, keepdim=True).clamp(min=1e-30)
        points = coefficients[..., :width].float().cpu()
        points = points / points.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        count = min(count, len(self.names))
        shape = points.shape[:-1]
        rows = points.reshape(-1, width)
        height = max(_CHUNK // len(training), 1)
        found = [(part @ training.T).topk(count) for part in rows.split(height)]
        indices = torch.cat([part.indices for part in found])
        similarities = torch.cat([part.values for part in found])
        return Neighbours(
            similarities.reshape(*shape, count), indices.reshape(*shape, count), self.names
        )

    # Model files.

    def coefficients_of(self, model: Model) -> Float[Tensor, " m"]:
        """Return the point of a model: its coefficients in this space, or its weights projected.

        Raises:
            W2WError: coefficients of another space and no weights, or another layout or base.
        """
        self._require_own(model)
        if model.coefficients is not None and model.space == self.hash:
            point = torch.zeros(max(len(self), len(model.coefficients)))
            point[: len(model.coefficients)] = model.coefficients
            return point[: len(self)]
        if model.weights is not None:
            return self.project(model.weights)
        raise InputError(
            f"a model of space {model.space}: expected one of space {self.hash}, or one with"
            " weights; give the space that it was made in"
        )

    def weights_of(self, model: Model) -> Float[Tensor, " d"]:
        """Return the weight vector of a model: its weights, or its point reconstructed.

        Raises:
            W2WError: coefficients of another space and no weights, or another layout or base; more
                coefficients than this space has components.
        """
        self._require_own(model)
        if model.weights is not None:
            return model.weights.to(self.components.device)
        coefficients = model.coefficients
        if coefficients is None or model.space != self.hash:
            return self.to_weights(self.coefficients_of(model))
        if len(coefficients) > len(self) and coefficients[len(self) :].any():
            raise InputError(
                f"a model with {len(coefficients)} coefficients: this space was truncated to"
                f" {len(self)} components; give the whole space"
            )
        return self.to_weights(coefficients[: len(self)])

    def _require_own(self, model: Model) -> None:
        self.layout.require_equal(model.layout, "the model")
        require_one_base(self.base_hash, model.base_hash, "the model")

    def model(self, coefficients: Float[Tensor, " j"], origin: Mapping[str, Any]) -> Model:
        """Return a point of this space as a model that can be written to a file."""
        return Model(
            self.layout,
            coefficients=coefficients.detach().float().cpu(),
            space=self.hash,
            base_hash=self.base_hash,
            origin=origin,
        )

    # Keeping and sharing.

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write the space into a folder, with its model card; see the package's text.

        `config.json` is written last, so a folder that has one is whole. Saving the same space
        twice gives the same tensors, byte for byte.

        Args:
            folder: made if absent; a space that it holds is replaced.
            dtype: of the components and coefficients on disk; default: as they are. float16 halves
                the files and moves a reconstructed model by a relative 3e-4. int8 and int4, with a
                scale for each component and float16 coefficients, store components in a quarter and
                an eighth of the bytes and move it by 1e-2 and 1e-1. Where numbers never vary, int4
                gives way to int8, which has a zero.

        Returns:
            the folder.

        Raises:
            W2WError: another dtype, a failure to write.
        """
        from ._store import save

        return save(self, Path(folder), dtype)

    @classmethod
    def from_pretrained(cls, source: str | Path, **download: Any) -> "WeightSpace":
        """Load a space from a folder, the Hugging Face hub, or the package ("people").

        Tensors are memory-mapped: memory is used as they are read, never more than the files' size.
        Only components in int8 or int4 become float16 in memory first.

        Args:
            source: a folder, a hub id such as "someone/space", or the word of an embedded world.
            download: for hub ids, what `huggingface_hub.snapshot_download` takes: `revision`,
                `token`, `cache_dir`, `local_files_only`, …

        Raises:
            W2WError: nothing there, a later format version, or files that are damaged or
                contradict each other.
        """
        from ._store import find_space, load

        return load(cls, find_space(source, **download))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype | None = torch.float16,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload space",
    ) -> str:
        """Upload the space and its card to the Hugging Face hub, making the repository if absent.

        Args:
            repo_id: "user/name".
            dtype: see `save_pretrained`.
            private: whether a new repository is private.
            token: of the hub; default: that of the login.
            commit_message: of the upload.

        Returns:
            the address of the commit.

        Raises:
            W2WError: the hub refuses.
        """
        from ._store import push

        return push(self, repo_id, dtype, private, token, commit_message)


def _blocks(dataset: WeightDataset) -> Blocks:
    return dataset.blocks(max(_BLOCK // dataset.columns, 1))


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The training models nearest to some points.

    Attributes:
        similarities: cosines, falling.
        indices: which training models.
        names: of all training models.
    """

    similarities: Float[Tensor, "*batch c"]
    indices: Int[Tensor, "*batch c"]
    names: tuple[str, ...] = field(repr=False)

    def of(self, point: int) -> list[tuple[str, float]]:
        """Return (name, similarity) of the neighbours of one point, nearest first."""
        indices = self.indices.reshape(-1, self.indices.shape[-1])[point].tolist()
        similarities = self.similarities.reshape(-1, self.indices.shape[-1])[point].tolist()
        return [(self.names[i], s) for i, s in zip(indices, similarities, strict=True)]
