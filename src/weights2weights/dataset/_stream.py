"""Rows in blocks of fixed memory, the next one read while the last one is used."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ._rows import Place, RowReader

READERS = min(4, os.cpu_count() or 1)  # hashing and reading release Python's lock


def read_rows(reader: RowReader, places: Sequence[Place]) -> Float[Tensor, "n d"]:
    """Read rows, several at once."""
    # NumPy asks the system for huge pages, torch does not: a fifth of the time for a block.
    rows = torch.from_numpy(np.empty((len(places), reader.layout.num_parameters), np.float32))

    def read(begin: int) -> None:
        for index in range(begin, len(places), READERS):
            reader.read_into(places[index], rows[index])

    if len(places) > 1:
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(read, range(READERS)))
    else:
        read(0)
    return rows


@dataclass(frozen=True)
class WeightBlocks:
    """Rows as float32 tensors "b d", one block at a time, to be iterated as often as needed.

    Memory: two blocks. Every block but the last has `rows_per_block` rows.
    """

    reader: RowReader
    places: tuple[Place, ...]
    rows_per_block: int

    @property
    def rows(self) -> int:
        """Number n of rows in all blocks together."""
        return len(self.places)

    @property
    def columns(self) -> int:
        """Length d of a row."""
        return self.reader.layout.num_parameters

    def __len__(self) -> int:
        return -(-self.rows // self.rows_per_block)

    def __iter__(self) -> Iterator[Float[Tensor, "b d"]]:
        ready: Future[Tensor] | None = None
        with ThreadPoolExecutor(1) as background:
            for start in range(0, self.rows, self.rows_per_block):
                block = self.places[start : start + self.rows_per_block]
                ready, last = background.submit(read_rows, self.reader, block), ready
                if last:
                    yield last.result()
            if ready:
                yield ready.result()
