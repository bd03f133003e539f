"""How different do two images look? Distances between deep features.

LPIPS (Zhang et al. 2018, arXiv:1801.03924) compares unit-length feature vectors of a classifier,
pixel by pixel and layer by layer, with weights fitted to human judgements. `Lpips` is the original,
for photos (extra `lpips`). `ScorerDistance` compares the features of the drawn world's scorer in
the same way with equal weights; it is not LPIPS, and its values are not comparable with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import InputError, ResourceError
from .protocols import FeatureNetwork

_BATCH = 64


@dataclass(frozen=True)
class ScorerDistance:
    """The distance of the drawn world: unit-length features of its scorer, all layers alike.

    Attributes:
        network: extracts the features, such as `worlds.scorers.Scorer`.
    """

    network: FeatureNetwork

    def distance(
        self, images: UInt8[np.ndarray, "n h w 3"], others: UInt8[np.ndarray, "n h w 3"]
    ) -> Float[Tensor, " n"]:
        """Return 1 - cos of the images' features, averaged over pixels and layers: 0 to 2."""
        return _by_batch(self._compare, images, others)

    def _compare(self, images: np.ndarray, others: np.ndarray) -> Tensor:
        layers = zip(self.network.features(images), self.network.features(others), strict=True)
        return torch.stack([_distance(*pair) for pair in layers]).mean(0)


def _distance(features: Tensor, others: Tensor) -> Tensor:
    """Return |f - g|² / 2 of unit vectors f and g, averaged over pixels; 0 for two zero vectors."""
    difference = F.normalize(features, dim=1) - F.normalize(others, dim=1)
    return difference.square().sum(1).mean((1, 2)) / 2


class Lpips:
    """LPIPS with its pretrained networks, through torchmetrics (extra `lpips`).

    torchvision downloads the classifier (AlexNet 233 MB, VGG 528 MB, SqueezeNet 5 MB) once; it is
    trained on ImageNet. Licences: LPIPS BSD-2, torchvision BSD-3.

    Attributes:
        name: "LPIPS (alex)", for reports.
    """

    def __init__(self, network: Literal["alex", "vgg", "squeeze"] = "alex", device: str = "cpu"):
        """Load the network.

        Raises:
            InputError: torchmetrics or torchvision is not installed.
            ResourceError: the classifier cannot be downloaded.
        """
        try:
            import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
            from torchmetrics.image import lpip  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError(
                "LPIPS needs torchmetrics and torchvision: pip install 'weights2weights[lpips]'"
            ) from error
        try:
            metric = lpip.LearnedPerceptualImagePatchSimilarity(net_type=network)
        except OSError as error:
            raise ResourceError(
                f"cannot download the classifier of LPIPS ({network}): {error}; put its file into"
                f" {torch.hub.get_dir()}/checkpoints"
            ) from error
        self._network: Any = metric.net.to(device).eval()
        self._device = device
        self.name = f"LPIPS ({network})"

    def distance(
        self, images: UInt8[np.ndarray, "n h w 3"], others: UInt8[np.ndarray, "n h w 3"]
    ) -> Float[Tensor, " n"]:
        """Return LPIPS of each pair of images, at their own size."""
        return _by_batch(self._compare, images, others)

    @torch.no_grad()
    def _compare(self, *images: np.ndarray) -> Tensor:
        signals = (torch.from_numpy(x).to(self._device).permute(0, 3, 1, 2) for x in images)
        return self._network(*(signal.float() / 127.5 - 1 for signal in signals)).view(-1).cpu()


def _by_batch(
    compare: Callable[[np.ndarray, np.ndarray], Tensor], images: np.ndarray, others: np.ndarray
) -> Tensor:
    if images.shape != others.shape or not len(images):
        raise InputError(
            f"images of shapes {images.shape} and {others.shape}; expected equal shapes and at"
            " least one pair"
        )
    batches = (slice(start, start + _BATCH) for start in range(0, len(images), _BATCH))
    return torch.cat([compare(images[some], others[some]) for some in batches])
