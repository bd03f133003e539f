"""The matrix Z of standardised columns, which is streamed and never formed."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ._blocks import Blocks, checked
from ._linear import panels
from ._statistics import ColumnStatistics

EXACT_SIDE = 4096  # longest short side of a matrix that is decomposed exactly, if it fits
EXACT_VALUES = 2**28  # values of a matrix that fits: 1 GiB in float32
_STEP_VALUES = 2**19  # standardised together: they stay in the cache
_HEIGHT = 1024  # rows multiplied together
_LOW_PRECISION_VALUES = 2**29  # below this many values, bfloat16 saves nothing worth having


class StandardisedMatrix:
    """Z, known by its row blocks and its products; `passes` counts how often it was read."""

    def __init__(
        self, blocks: Blocks, statistics: ColumnStatistics, device: torch.device, progress: bool
    ):
        std = statistics.std
        self.blocks = blocks
        self.rows, self.columns = statistics.rows, blocks.columns
        self.device = device
        self.step = max(_STEP_VALUES // self.columns, 1) if device.type == "cpu" else _HEIGHT
        self.mean = statistics.mean.to(device)
        self.mean_single = self.mean.float()
        # a constant column becomes 0
        self.inverse_std = torch.where(std > 0, 1 / nonzero(std), 0.0).float().to(device)
        self.varies = (std > 0).to(device)
        self.total_variance = float((std > 0).sum())
        self.rank = min(self.rows - 1, int(self.total_variance))
        self.progress = progress
        self.passes = 1  # that of the statistics

    def search_dtype(self) -> torch.dtype:
        """Return the dtype for passes that only search for the subspace."""
        large = self.rows * self.columns >= _LOW_PRECISION_VALUES
        return torch.bfloat16 if large and _multiplies_bfloat16(self.device) else torch.float32

    def is_small(self, width: int) -> bool:
        """Return whether an exact decomposition is cheaper than a search with `width` rows."""
        side, values = min(self.rows, self.columns), self.rows * self.columns
        fits = values <= EXACT_VALUES or self.columns <= EXACT_SIDE or self.rows <= 2 * width
        return side <= 64 or (side <= EXACT_SIDE and fits)

    def row_blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield standardised blocks of equal height; each overwrites the one before."""
        self.passes += 1
        height = min(_HEIGHT, self.rows)
        buffer = torch.empty(height, self.columns, dtype=dtype, device=self.device)
        filled = 0
        for block in checked(self.blocks, f"pass {self.passes}" if self.progress else None):
            while len(block):
                group = block[: min(self.step, height - filled)]
                block = block[len(group) :]
                mean = self.mean if group.dtype == torch.float64 else self.mean_single
                standard = (group.to(self.device) - mean).mul_(self.inverse_std)
                buffer[filled : filled + len(group)] = standard
                filled += len(group)
                if filled == height:
                    yield buffer
                    filled = 0
        if filled:
            yield buffer[:filled]

    def product(self, directions: Tensor) -> Tensor:
        """Return C Q, one row per direction, float32: one pass, in the dtype of `directions`."""
        result = torch.zeros(directions.shape, device=self.device)
        for rows in self.row_blocks(directions.dtype):
            scores = (rows @ directions.mT).mT.contiguous()
            if rows.dtype == torch.float32:
                result.addmm_(scores, rows)
            else:  # a panel of the product is added up in float32 while it is in the cache
                for panel in panels(self.columns):
                    result[:, panel] += scores @ rows[:, panel]
        return result.div_(self.rows - 1)


def nonzero(std: Tensor) -> Tensor:
    """Return the divisors of the columns: their std, 1 where a column is constant."""
    return torch.where(std > 0, std, 1.0)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
