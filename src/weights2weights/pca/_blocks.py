"""A matrix as a stream of row blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError


@runtime_checkable
class Blocks(Protocol):
    """A matrix as a stream of row blocks, which may be iterated any number of times.

    Attributes:
        rows: N, the sum of the blocks' heights.
        columns: d, the width of every block.
    """

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class TensorBlocks:
    """A matrix in memory, one row per model, as `Blocks` of some height."""

    matrix: Float[Tensor, "n d"]
    rows_per_block: int = 1024

    @property
    def rows(self) -> int:
        return len(self.matrix)

    @property
    def columns(self) -> int:
        return self.matrix.shape[1]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.matrix.split(self.rows_per_block))


def checked(blocks: Blocks, title: str | None = None) -> Iterator[Tensor]:
    """Yield the blocks, with a progress bar if titled; require the promised shape."""
    rows = 0
    with tqdm(total=blocks.rows, desc=title, unit="row", disable=title is None) as bar:
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != blocks.columns:
                raise InputError(
                    f"a block has shape {tuple(block.shape)}, expected (rows, {blocks.columns})"
                )
            rows += len(block)
            yield block
            bar.update(len(block))
    if rows != blocks.rows:
        raise InputError(
            f"the blocks had {rows} rows in this pass, expected {blocks.rows}; "
            "do not change the matrix while it is being decomposed"
        )


def regroup(blocks: Iterator[Tensor], height: int) -> Iterator[Tensor]:
    """Cut a stream into groups of equal height, so that results do not depend on its blocks."""
    rest: list[Tensor] = []
    for block in blocks:
        while missing := height - sum(map(len, rest)):
            if len(block) < missing:
                break
            yield torch.cat([*rest, block[:missing]]) if rest else block[:missing]
            block, rest = block[missing:], []
        if len(block):
            rest.append(block.clone())  # the next block may overwrite this one
    if rest:
        yield torch.cat(rest)
