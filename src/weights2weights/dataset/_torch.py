"""Rows for `torch.utils.data.DataLoader`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from ._dataset import WeightDataset


class TorchRows(Dataset[Any]):
    """A map-style view of a dataset; a loader's whole batch is read in one go."""

    def __init__(self, dataset: "WeightDataset", label_names: tuple[str, ...]):
        self._dataset = dataset
        self._labels = None
        if label_names:
            frame = dataset.labels[list(label_names)].astype("Float64")
            table = frame.to_numpy(dtype="float32", na_value=float("nan"))
            self._labels = torch.from_numpy(table)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the items of a batch."""
        rows = self._dataset[list(indices)]
        if self._labels is None:
            return list(rows)
        return list(zip(rows, self._labels[list(indices)], strict=True))
