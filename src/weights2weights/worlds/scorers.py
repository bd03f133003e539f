"""Scorers of a drawn world: who is in an image, and which attributes the person has.

One small convolutional trunk with two heads. It learns from images and from their round trips
through the autoencoder, so that a generated image is not marked down for how it was decoded.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..errors import InputError
from .autoencoder import as_signal
from .training import train_networks

_WIDTHS = (32, 64, 128, 192)
_EMBEDDING = 128
_TEMPERATURE = 0.1


class ScorerNetwork(nn.Module):
    """Images of any size → identity embedding and attribute logits; looks at 64 × 64 pixels."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in _WIDTHS:
            layers += [
                nn.Conv2d(before, width, 3, 2, 1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                _Residual(width),
            ]
            before = width
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        features = before * (64 // 2 ** len(_WIDTHS)) ** 2
        self.identity = nn.Linear(features, _EMBEDDING)
        self.attributes = nn.Linear(features, labels)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (n, 128), not normalised, and logits (n, labels)."""
        features = self.trunk(_at_size(signal))
        return self.identity(features), self.attributes(features)

    def feature_maps(self, signal: Tensor) -> tuple[Tensor, ...]:
        """Return what each stage of the trunk sees: (n, 32, 32, 32) down to (n, 192, 4, 4)."""
        maps, x = [], _at_size(signal)
        for layer in self.trunk.children():
            x = layer(x)
            if isinstance(layer, _Residual):
                maps.append(x)
        return tuple(maps)


def _at_size(signal: Tensor) -> Tensor:
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
    """A trained scorer.

    Attributes:
        network: the network, in evaluation mode.
        label_names: the attributes, in the order of `attributes`' columns.
    """

    network: ScorerNetwork
    label_names: tuple[str, ...]

    def identity(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Return unit-length identity embeddings."""
        return F.normalize(self._run(images)[0], dim=-1)

    def attributes(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n labels"]:
        """Return the probability of every attribute."""
        return self._run(images)[1].sigmoid()

    @torch.no_grad()
    def features(
        self, images: UInt8[np.ndarray, "n h w 3"]
    ) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        """Return the feature maps of the trunk's four stages, for `metrics.perceptual`."""
        device = next(self.network.parameters()).device
        parts = [
            self.network.feature_maps(as_signal(images[start : start + 256], str(device)))
            for start in range(0, len(images), 256)
        ]
        return tuple(torch.cat(maps).cpu() for maps in zip(*parts, strict=True))

    @torch.no_grad()
    def _run(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        device = next(self.network.parameters()).device
        parts = [
            self.network(as_signal(images[start : start + 256], str(device)))
            for start in range(0, len(images), 256)
        ]
        return torch.cat([a for a, _ in parts]).cpu(), torch.cat([b for _, b in parts]).cpu()

    def save(self, folder: Path) -> None:
        """Write the scorer as float16 safetensors with its label names."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: value.half().contiguous() for name, value in self.network.state_dict().items()
        }
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"label_names": self.label_names}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Scorer":
        """Read a scorer that `save` wrote.

        Raises:
            W2WError: the folder holds no scorer.
        """
        from safetensors.torch import load_file

        if not (folder / "config.json").exists():
            raise InputError(
                f"{folder} holds no scorer: expected config.json and model.safetensors"
            )
        names = tuple(json.loads((folder / "config.json").read_text())["label_names"])
        network = ScorerNetwork(len(names))
        network.load_state_dict(
            {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
        )
        return cls(network.eval().requires_grad_(False), names)


def train_scorer(
    views: UInt8[np.ndarray, "subjects images size size 3"],
    labels: np.ndarray,
    label_names: tuple[str, ...],
    folder: Path,
    *,
    device: str = "cpu",
    steps: int = 3000,
    subjects_per_batch: int = 64,
    learning_rate: float = 2e-3,
    minutes: float = float("inf"),
) -> Scorer | None:
    """Train on several views of each subject: drawn images and their round trips.

    Identity is learned by contrast: of all images in a batch, find the other one of this subject
    (normalised temperature-scaled cross entropy). Attributes are learned by binary cross entropy.
    Returns None when `minutes` were up before the last step; the next call goes on.
    """
    torch.manual_seed(0)
    network = ScorerNetwork(len(label_names)).to(device)
    truth = torch.from_numpy(labels).float().to(device)

    def loss_of(generator: torch.Generator) -> Tensor:
        def integers(high: int) -> Tensor:
            return torch.randint(high, (subjects_per_batch,), generator=generator, device=device)

        chosen, first = integers(len(views)), integers(views.shape[1])
        second = (first + 1 + integers(views.shape[1] - 1)) % views.shape[1]
        who, which = chosen.repeat(2).cpu().numpy(), torch.cat([first, second]).cpu().numpy()
        signal = _disturb(as_signal(views[who, which], device), generator)
        with torch.autocast(device, torch.bfloat16):
            embedding, logits = network(signal)
        unit = F.normalize(embedding.float(), dim=-1)
        same_image = torch.eye(len(unit), dtype=torch.bool, device=device)
        likeness = (unit @ unit.T / _TEMPERATURE).masked_fill(same_image, -1e4)
        same_subject = chosen.repeat(2)[:, None] == chosen.repeat(2)[None, :]
        partner = (torch.arange(len(unit), device=device) + subjects_per_batch) % len(unit)
        twins = same_subject & ~same_image
        twins[torch.arange(len(unit), device=device), partner] = False
        identity = F.cross_entropy(likeness.masked_fill(twins, -1e4), partner)
        return identity + 4 * F.binary_cross_entropy_with_logits(
            logits.float(), truth[chosen].repeat(2, 1)
        )

    trained = train_networks(
        nn.ModuleDict({"scorer": network}),
        loss_of,
        folder=folder,
        steps=steps,
        learning_rate=learning_rate,
        batch=2 * subjects_per_batch,
        minutes=minutes,
        weight_decay=2e-2,
    )
    return Scorer(cast(ScorerNetwork, trained["scorer"]), label_names) if trained else None


def _disturb(signal: Tensor, generator: torch.Generator) -> Tensor:
    """Add what must not matter: brightness, contrast, a shift of up to 3 pixels, faint noise."""
    count, device = len(signal), signal.device
    contrast, brightness = (
        torch.rand(2, count, 1, 1, 1, generator=generator, device=device) * 0.2 - 0.1
    )
    right, down = torch.randint(-3, 4, (2,), generator=generator, device=device).tolist()
    padded = F.pad(signal, (3, 3, 3, 3), mode="replicate")
    size = signal.shape[-1]
    shifted = padded[:, :, 3 + down : 3 + down + size, 3 + right : 3 + right + size]
    noise = torch.randn(shifted.shape, generator=generator, device=device) * 0.03
    return shifted * (1 + contrast) + brightness + noise
