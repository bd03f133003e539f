"""Rows in blocks of fixed memory, the next one read while the last one is used."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ._rows import Place, RowReader

READERS = min(4, os.cpu_count() or 1)  # hashing and reading release Python's lock


def start_reading(
    pool: ThreadPoolExecutor, reader: RowReader, places: Sequence[Place]
) -> Callable[[], Float[Tensor, "n d"]]:
    """Start to read rows in the background; returns a function that waits for them."""
    # NumPy asks the system for huge pages, torch does not: a fifth of the time for a block.
    rows = torch.from_numpy(np.empty((len(places), reader.layout.num_parameters), np.float32))

    def read(begin: int) -> None:
        for index in range(begin, len(places), READERS):
            reader.read_into(places[index], rows[index])

    futures: list[Future[None]] = [pool.submit(read, begin) for begin in range(READERS)]

    def finish() -> Tensor:
        for future in futures:
            future.result()
        return rows

    return finish


@dataclass(frozen=True)
class WeightBlocks:
    """Rows as float32 tensors "b d", one block at a time, to be iterated as often as needed.

    Memory: two blocks.

    Attributes:
        reader: reads a row.
        places: where each row is.
        rows_per_block: height of every block but the last.
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
        waiting: deque[Callable[[], Tensor]] = deque()
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, self.rows, self.rows_per_block):
                block = self.places[start : start + self.rows_per_block]
                waiting.append(start_reading(pool, self.reader, block))
                if len(waiting) > 1:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
