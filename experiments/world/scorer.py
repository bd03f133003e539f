"""The training of the world's scorers: identity by contrast, attributes by classification.

They learn from images and from their reconstructions by the autoencoder, so that a generated image
is not penalised for the way it was decoded.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from safetensors.torch import save
from torch import Tensor, nn

from weights2weights._files import write_atomic
from weights2weights.worlds.scorers import Scorer, ScorerNetwork, as_signal

from .training import train_networks

_TEMPERATURE = 0.1


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
) -> Scorer:
    """Train on several views of each subject: drawn images and their reconstructions.

    Identity is learned by contrast: among all images of a batch, find the other one of this subject
    (normalised temperature-scaled cross entropy). Attributes are learned by binary cross entropy.

    Raises:
        TimeIsUp: after `minutes`; the next call continues.
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
        signal = _augment(as_signal(views[who, which], device), generator)
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
    return Scorer(trained["scorer"], label_names)


def save_scorer(scorer: Scorer, folder: Path) -> None:
    """Write a scorer as float16 safetensors with its label names, for `Scorer.load`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = scorer.network.state_dict()
    weights = {name: value.half().contiguous() for name, value in state.items()}
    write_atomic(folder / "model.safetensors", [save(weights)])
    config = json.dumps({"label_names": scorer.label_names}, indent=1)
    write_atomic(folder / "config.json", [config.encode()])


def _augment(signal: Tensor, generator: torch.Generator) -> Tensor:
    """Vary brightness and contrast, shift by up to 3 pixels and add faint noise."""
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
