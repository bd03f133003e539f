"""Fitting a space to a stream of weight vectors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..errors import InputError
from ..labels import tidy_labels
from ..layout import WeightLayout
from ..pca import Blocks, fit_pca
from ._contents import Contents
from ._coordinates import project, standardise


def fit_contents(
    blocks: Blocks,
    components: int,
    layout: WeightLayout,
    names: Sequence[str] | None,
    labels: Any,
    base_hash: str,
    **options: Any,
) -> Contents:
    """Fit a PCA and project every row on it; see `WeightSpace.fit_blocks`."""
    if blocks.columns != layout.num_parameters:
        raise InputError(
            f"rows of {blocks.columns} values, expected the {layout.num_parameters} of the layout"
        )
    pca = fit_pca(blocks, components, **options)
    metadata = {
        "of": "weights",
        "captured_variance": pca.captured_variance,
        "error_bound": pca.error_bound,
        "total_variance": pca.total_variance,
        "passes": pca.passes,
    }
    bare = Contents(
        layout, pca.mean, pca.std, pca.components, base_hash=base_hash, metadata=metadata
    )
    coefficients = torch.empty(blocks.rows, len(pca.components))
    row = 0
    for block in blocks:
        standard = standardise(block, pca.mean, pca.std)
        coefficients[row : row + len(block)] = project(standard, pca.components)
        row += len(block)
    names = tuple(map(str, range(blocks.rows))) if names is None else tuple(names)
    return replace(bare, coefficients=coefficients, names=names, labels=tidy_labels(labels, names))
