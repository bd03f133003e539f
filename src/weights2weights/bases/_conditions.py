"""Encoded prompts: a batch of named tensors, whatever a family's denoiser reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """A batch of encoded prompts.

    Attributes:
        tensors: argument of the denoiser → one row per prompt, float32.
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: Any) -> "Conditions":
        """Return some rows, by anything that indexes the first axis and keeps it."""
        return Conditions({name: tensor[index] for name, tensor in self.tensors.items()})

    def expand(self, count: int) -> "Conditions":
        """Return a batch of one prompt as often as given, without copying it."""
        return Conditions({k: x.expand(count, *x.shape[1:]) for k, x in self.tensors.items()})

    def to(self, device: torch.device | str) -> "Conditions":
        """Return the same batch on another device."""
        return Conditions({name: tensor.to(device) for name, tensor in self.tensors.items()})

    @staticmethod
    def cat(parts: "Sequence[Conditions]") -> "Conditions":
        """Return several batches as one."""
        names = parts[0].tensors
        return Conditions({name: torch.cat([p.tensors[name] for p in parts]) for name in names})
