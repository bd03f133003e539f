"""How different do two images look? Distances between deep features.

LPIPS (Zhang et al. 2018, arXiv:1801.03924) compares unit-length feature vectors of a classifier,
pixel by pixel and layer by layer, under weights learned from human judgements. `feature_distance`
is its formula over any features. `Lpips` is the real thing, for photos, with pretrained networks
that are downloaded once (extra `lpips`). `ScorerDistance` needs nothing: the same formula with
equal weights over the features of a world's own scorer. It is no LPIPS, its figures are not
comparable with any, and it never goes by that name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import InputError
from .protocols import FeatureNetwork

_AT_ONCE = 64


def feature_distance(
    features: Sequence[Tensor],
    others: Sequence[Tensor],
    weights: Sequence[Float[Tensor, " _"]] | None = None,
) -> Float[Tensor, " n"]:
    """Return the sum over layers of the mean over pixels of Σ_c w_c (f_c - g_c)², |f| = |g| = 1.

    Args:
        features: per layer "n channels height width", as a `FeatureNetwork` gives them.
        others: the same of the images to compare with.
        weights: per layer one weight for every channel; None takes 1 for all, so that a layer's
            part is 2 - 2 cos, between 0 and 4.

    Source: Zhang et al. 2018, arXiv:1801.03924, equation 1.
    """
    if len(features) != len(others) or (weights is not None and len(weights) != len(features)):
        raise InputError(
            f"{len(features)} and {len(others)} layers with"
            f" {'no' if weights is None else len(weights)} weights: expected equal numbers"
        )
    total = torch.zeros(len(features[0]))
    for layer, (first, second) in enumerate(zip(features, others, strict=True)):
        square = (_unit(first) - _unit(second)).square()
        if weights is not None:
            square = square * weights[layer].view(1, -1, 1, 1)
        total = total + square.sum(1).mean((1, 2))
    return total


def _unit(features: Tensor) -> Tensor:
    """Scale the vector of every pixel to length 1; a vector of zeros stays one."""
    return features / features.norm(dim=1, keepdim=True).clamp_min(1e-10)


@dataclass(frozen=True)
class ScorerDistance:
    """The distance of a drawn world: unit-length features of its scorer, all layers alike.

    Attributes:
        network: whose features are compared, such as `worlds.scorers.Scorer`.
    """

    network: FeatureNetwork
    name: str = "scorer distance"

    def distance(
        self, images: UInt8[np.ndarray, "n h w 3"], others: UInt8[np.ndarray, "n h w 3"]
    ) -> Float[Tensor, " n"]:
        """Return 1 - cos of the images' features, averaged over pixels and layers: 0 to 2."""
        _check_pairs(images, others)
        parts = []
        for start in range(0, len(images), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            of_images = self.network.features(images[rows])
            of_others = self.network.features(others[rows])
            parts.append(feature_distance(of_images, of_others) / (2 * len(of_images)))
        return torch.cat(parts)


class Lpips:
    """LPIPS with its pretrained networks, through torchmetrics (extra `lpips`).

    torchmetrics carries the learned weights of the layers; torchvision downloads the classifier
    (AlexNet 233 MB, VGG 528 MB, SqueezeNet 5 MB) once into torch's cache. Licences: LPIPS BSD-2,
    torchvision BSD-3; the classifiers are trained on ImageNet.

    Attributes:
        name: "LPIPS (alex)", for reports.
    """

    def __init__(self, network: Literal["alex", "vgg", "squeeze"] = "alex", device: str = "cpu"):
        """Load the network.

        Raises:
            W2WError: the packages are missing, or the classifier cannot be downloaded.
        """
        try:
            import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
            from torchmetrics.image.lpip import (  # pyright: ignore[reportMissingImports]
                LearnedPerceptualImagePatchSimilarity,
            )
        except ImportError as error:
            raise InputError(
                "LPIPS needs torchmetrics and torchvision: pip install 'weights2weights[lpips]'"
            ) from error
        try:
            metric = LearnedPerceptualImagePatchSimilarity(net_type=network, reduction="none")
        except OSError as error:
            raise InputError(
                f"the classifier of LPIPS ({network}) cannot be downloaded ({error}): put its file"
                f" into {torch.hub.get_dir()}/checkpoints"
            ) from error
        self._network: Any = metric.net.to(device).eval()
        self._device = device
        self.name = f"LPIPS ({network})"

    @torch.no_grad()
    def distance(
        self, images: UInt8[np.ndarray, "n h w 3"], others: UInt8[np.ndarray, "n h w 3"]
    ) -> Float[Tensor, " n"]:
        """Return LPIPS of each pair of images, at their own size."""
        _check_pairs(images, others)
        parts = []
        for start in range(0, len(images), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            pairs = (self._signal(images[rows]), self._signal(others[rows]))
            parts.append(self._network(*pairs).view(-1).cpu())
        return torch.cat(parts)

    def _signal(self, images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _check_pairs(images: np.ndarray, others: np.ndarray) -> None:
    if images.shape != others.shape or not len(images):
        raise InputError(
            f"images of shapes {images.shape} and {others.shape}: expected at least one pair, all"
            " of one size"
        )
