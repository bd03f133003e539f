"""Scorers of a drawn world: who is in an image, and which attributes the person has.

One small convolutional trunk with two heads; `experiments/world/scorer.py` trains it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..errors import InputError

_WIDTHS = (32, 64, 128, 192)
_EMBEDDING = 128
_BATCH = 256


def as_signal(images: np.ndarray, device: str | torch.device) -> Tensor:
    """Convert uint8 images (n, h, w, 3) to floats (n, 3, h, w) from -1 to 1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return pixels.contiguous() / 127.5 - 1  # else channels-last: half as fast on a CPU


class ScorerNetwork(nn.Module):
    """Images of any size, resized to 64 × 64 pixels → identity embedding and attribute logits."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in pairwise((3, *_WIDTHS)):
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [_Residual(width)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        features = _WIDTHS[-1] * (64 // 2 ** len(_WIDTHS)) ** 2
        self.identity = nn.Linear(features, _EMBEDDING)
        self.attributes = nn.Linear(features, labels)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (n, 128), not normalised, and logits (n, labels)."""
        features = self.trunk(_resized(signal))
        return self.identity(features), self.attributes(features)

    def feature_maps(self, signal: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each stage of the trunk: (n, 32, 32, 32) to (n, 192, 4, 4)."""
        maps, x = [], _resized(signal)
        for layer in self.trunk.children():
            x = layer(x)
            if isinstance(layer, _Residual):
                maps.append(x)
        return tuple(maps)


def _resized(signal: Tensor) -> Tensor:
    if signal.shape[-1] == 64:
        return signal
    return F.interpolate(signal, (64, 64), mode="bilinear", antialias=True)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@dataclass(frozen=True)
class Scorer:
    """A trained scorer; every protocol of `metrics.protocols` for drawn images."""

    network: ScorerNetwork  # in evaluation mode
    label_names: tuple[str, ...]  # of the columns of `attributes`

    def identity(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Return unit-length identity embeddings."""
        return F.normalize(self._run(self.network, images)[0], dim=-1)

    def attributes(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n labels"]:
        """Return the probability of every attribute."""
        return self._run(self.network, images)[1].sigmoid()

    def features(self, images: UInt8[np.ndarray, "n h w 3"]) -> tuple[Tensor, ...]:
        """Return the feature maps of the trunk's four stages, for `metrics.perceptual`."""
        return self._run(self.network.feature_maps, images)

    @torch.no_grad()
    def _run(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], images: np.ndarray
    ) -> tuple[Tensor, ...]:
        device = next(self.network.parameters()).device
        batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        parts = [function(as_signal(batch, device)) for batch in batches]
        return tuple(torch.cat(outputs).cpu() for outputs in zip(*parts, strict=True))

    @classmethod
    def load(cls, folder: Path) -> "Scorer":
        """Read a scorer: float16 safetensors and the label names.

        Raises:
            InputError: the folder does not hold a scorer.
        """
        from safetensors.torch import load_file

        if not (folder / "config.json").exists():
            raise InputError(
                f"{folder} does not hold a scorer; expected config.json and model.safetensors"
            )
        names = tuple(json.loads((folder / "config.json").read_text())["label_names"])
        network = ScorerNetwork(len(names))
        weights = load_file(folder / "model.safetensors")
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        return cls(network.eval().requires_grad_(False), names)
