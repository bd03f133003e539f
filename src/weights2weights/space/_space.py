"""`WeightSpace`: models as points of a linear space, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from ..dataset import WeightDataset
from ..directions import Direction, FitOptions, find_direction, find_directions
from ..errors import InputError
from ..labels import tidy_labels
from ..layout import WeightLayout
from ..models import Model, require_one_base
from ..pca import Blocks
from ..sampling import sample
from . import _store
from ._card import html_table
from ._contents import Contents
from ._coordinates import combine, project, standardise
from ._fit import fit_contents
from ._hub import find_space, upload_space
from ._neighbours import Neighbours, find_neighbours

_BLOCK_VALUES = 2**22  # read at a time; the allocator reuses memory of such a size


@dataclass(frozen=True, eq=False, repr=False)
class WeightSpace(Contents):
    """A space of models, frozen: every method returns new values.

    A weight vector w has coefficients c = ((w − mean) / std) @ componentsᵀ; a point c is the model
    c @ components · std + mean. Coefficients are not rescaled: along component j those of the
    training models have standard deviation `coefficient_std[j]`.

    Attributes:
        layout: the meaning of each of the d parameters of a weight vector; names the base.
        mean: float32, of the training models.
        std: float32, unbiased, 1 where a parameter never varies.
        components: orthonormal rows by falling variance, float32 or float16; up to rounding if
            they were stored as int8.
        coefficients: of the training models on the first k components; k = m unless the space was
            imported with fewer.
        names: of the training models.
        labels: one row per training model, indexed by name; nullable booleans and floats. Any
            DataFrame indexed by name is accepted. Default: no labels.
        base_hash: content hash of the base model, "" if unknown.
        fit_id: identifies the fit, the same in truncations and copies of another dtype. Default:
            hash of the first component.
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

    @classmethod
    def _of(cls, contents: Contents) -> "WeightSpace":
        return cls(**{field.name: getattr(contents, field.name) for field in fields(contents)})

    @classmethod
    def fit(
        cls, dataset: WeightDataset, components: int = 1000, labels: Any = None, **options: Any
    ) -> "WeightSpace":
        """Fit a space to a dataset of models.

        Reads the dataset about seven times; see `fit_pca` for time and memory.

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
        """Fit a space to any stream of weight vectors; see `fit`.

        Args:
            blocks: the rows, in the order of `names` (default: 0, 1, 2, …).
            components: m.
            layout: of the rows.
            names: of the rows.
            labels: a table indexed by name.
            base_hash: content hash of the base model.
            options: any of `fit_pca`.

        Raises:
            InputError: rows of another length than the layout's; as in `fit_pca`.
        """
        return cls._of(
            fit_contents(blocks, components, layout, names, labels, base_hash, **options)
        )

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
        return html_table(self)

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

    @property
    def variances(self) -> Float[Tensor, " m"]:
        """Variance of the training models along each component; 0 where it is unknown."""
        variances = torch.zeros(len(self))
        variances[: len(self.coefficient_std)] = self.coefficient_std**2
        return variances

    # Points and weights.

    def project(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return the coefficients of LoRA weight vectors: c = ((w − mean) / std) @ components.T.

        The part of w outside the space is lost; see `residual`.

        Args:
            weights: flattened LoRAs in the order of `layout`, any floating dtype; plain A and B
                entries, before the alpha/r factor.

        Returns:
            float32 coefficients on the device of `components`.

        Raises:
            InputError: the last axis is not d (another rank, base model or set of target modules).

        Source: Dravid et al. 2024, arXiv:2406.09413, section 3.2. Inverse: `to_weights`.
        """
        return project(self._standardise(weights), self.components)

    def to_weights(self, coefficients: Float[Tensor, "*batch j"]) -> Float[Tensor, "*batch d"]:
        """Return the weight vectors of points: w = c @ components · std + mean.

        Differentiable in the coefficients.

        Args:
            coefficients: on the first j ≤ m components; the others count as 0.

        Returns:
            float32 weight vectors on the device of `components`.

        Raises:
            InputError: more coefficients than components.
        """
        count = coefficients.shape[-1]
        if count > len(self):
            raise InputError(
                f"{count} coefficients, expected at most {len(self)}, one per component of this"
                " space"
            )
        return combine(coefficients, self.components[:count]) * self.std + self.mean

    def residual(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return what `project` loses: w − to_weights(project(w))."""
        return weights.to(self.components.device).float() - self.to_weights(self.project(weights))

    def relative_residual(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return how much of weight vectors lies outside the space, from 0 (a point of it) to 1.

        The norm of the standardised residual over that of the standardised weights. For points of
        a space that was stored as int8 it is about 0.01, the rounding.
        """
        residual = self.residual(weights) / self.std
        return residual.norm(dim=-1) / self._standardise(weights).norm(dim=-1).clamp(min=1e-30)

    def _standardise(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        if weights.shape[-1:] != (self.num_parameters,):
            raise InputError(
                f"weights have shape {list(weights.shape)}, expected a last axis of"
                f" {self.num_parameters}; use models of the layout that this space was fitted to"
            )
        return standardise(weights, self.mean, self.std)

    def neighbours(self, coefficients: Float[Tensor, "*batch j"], count: int = 5) -> Neighbours:
        """Find the training models nearest to points, by cosine similarity of coefficients, exact.

        Args:
            coefficients: the points; compared on the components that both they and the training
                models have coefficients for.
            count: how many to find, at most as many as there are models.

        Raises:
            InputError: the space holds no training models.

        Source: Dravid et al. 2024, section 4.2: samples are not copies of training models.
        """
        if not self.names:
            raise InputError("this space has no training models to find neighbours among")
        width = min(coefficients.shape[-1], self.coefficients.shape[1])
        return find_neighbours(
            coefficients[..., :width], self.coefficients[:, :width], self.names, count
        )

    # Other spaces of the same coordinates.

    def truncate(self, components: int) -> "WeightSpace":
        """Return the space of the first components; the hash stays the same.

        Raises:
            InputError: none, or more than there are.
        """
        if not 1 <= components <= len(self):
            raise InputError(f"components is {components}, expected 1 to {len(self)}")
        metadata = dict(self.metadata)
        if "captured_variance" in metadata:
            kept = self.variances[:components].sum() / self.variances.sum().clamp(min=1e-30)
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
        """Return the same space with other training models.

        Args:
            coefficients: of the models on the first k components.
            names: of the models.
            labels: a table indexed by name, or None for no labels.
        """
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

    # Samples and directions.

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        components: int | None = None,
        scale: float | None = None,
        first: int = 0,
    ) -> Float[Tensor, "n m"]:
        """Draw new points; see `sampling.sample`."""
        return sample(self, count, seed=seed, components=components, scale=scale, first=first)

    def direction(
        self,
        label: Any,
        *,
        name: str | None = None,
        keep: Sequence[str | Direction] = (),
        **options: Unpack[FitOptions],
    ) -> Direction:
        """Find the direction of a label; see `directions.find_direction`."""
        return find_direction(self, label, name=name, keep=keep, **options)

    def directions(
        self,
        names: Sequence[str] | None = None,
        *,
        labels: Any = None,
        keep: Sequence[str | Direction] = (),
        **options: Unpack[FitOptions],
    ) -> dict[str, Direction]:
        """Find the directions of several labels; see `directions.find_directions`."""
        return find_directions(self, names, labels=labels, keep=keep, **options)

    # Model files.

    def coefficients_of(self, model: Model) -> Float[Tensor, " m"]:
        """Return the point of a model: its coefficients in this space, or its weights projected.

        Raises:
            InputError: coefficients of another space and no weights, or another layout or base.
        """
        self._require_own(model)
        if model.coefficients is not None and self._is_ours(model):
            point = torch.zeros(max(len(self), len(model.coefficients)))
            point[: len(model.coefficients)] = model.coefficients
            return point[: len(self)]
        if model.weights is not None:
            return self.project(model.weights)
        raise InputError(
            f"{model.name or 'the model'} is a point of space {model.space}, not of the given one"
            f" ({self.hash}); give the space that it was made in as space=… (--space)"
        )

    def weights_of(self, model: Model) -> Float[Tensor, " d"]:
        """Return the weight vector of a model: its own weights, or those of its point.

        Raises:
            InputError: coefficients of another space and no weights, or another layout or base;
                more coefficients than this space has components.
        """
        self._require_own(model)
        if model.weights is not None:
            return model.weights.to(self.components.device)
        coefficients = model.coefficients
        if coefficients is None or not self._is_ours(model):
            return self.to_weights(self.coefficients_of(model))
        if len(coefficients) > len(self) and coefficients[len(self) :].any():
            raise InputError(
                f"a model with {len(coefficients)} coefficients: this space was truncated to"
                f" {len(self)} components; pass the whole space"
            )
        return self.to_weights(coefficients[: len(self)])

    def _is_ours(self, model: Model) -> bool:
        """Return whether a model is a point of this space, or of the one it was imported from."""
        return model.space in (self.hash, self.metadata.get("imported"))

    def _require_own(self, model: Model) -> None:
        self.layout.require_equal(model.layout, "the model")
        require_one_base(self.base_hash, model.base_hash, "the model")

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
        """Save the space to a folder, with its model card; see the package's text.

        `config.json` is written last, so a folder that has one is whole. Saving the same space
        twice gives the same files, byte for byte.

        Args:
            folder: made if absent; a space in it is replaced.
            dtype: of the components and coefficients on disk; default: as they are. float16 halves
                the files and changes a reconstructed model by a relative 3e-4. int8, with a scale
                per component and float16 coefficients, quarters them and changes it by 1e-2.

        Returns:
            the folder.

        Raises:
            InputError: another dtype, names or metadata that cannot be stored.
            ResourceError: the folder cannot be written.
        """
        _store.write(Path(folder), self, dtype)
        return Path(folder)

    @classmethod
    def from_pretrained(cls, source: str | Path, **download: Any) -> "WeightSpace":
        """Load a space from a folder, the Hugging Face hub, or the package ("people").

        Tensors are memory-mapped: memory is used as they are read, never more than the files' size.
        Only int8 components are converted, to float16.

        Args:
            source: a folder, a hub id such as "someone/space", or the name of an embedded world.
            download: for hub ids, options of `huggingface_hub.snapshot_download`: `revision`,
                `token`, `cache_dir`, `local_files_only`, …

        Raises:
            InputError: nothing there, a later format version, or files that are damaged or
                contradict each other.
            ResourceError: the hub cannot be reached.
        """
        return cls._of(_store.read(find_space(source, **download)))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        dtype: torch.dtype | None = torch.float16,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload space",
    ) -> str:
        """Upload the space and its card to the Hugging Face hub, creating the repository if absent.

        Args:
            repo_id: "user/name".
            dtype: see `save_pretrained`.
            private: whether a new repository is private.
            token: of the hub; default: that of the login.
            commit_message: of the upload.

        Returns:
            the URL of the commit.

        Raises:
            InputError: the hub has no such name.
            ResourceError: the hub cannot be reached or refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype)
            return upload_space(folder, repo_id, private, token, commit_message)
