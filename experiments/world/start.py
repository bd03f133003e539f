"""The initialisation of LoRAs on the world's base: the A along which its people differ most.

A LoRA of rank 1 sees a layer's input through one direction, A. Along a random one subjects differ
little, so training first turns A, for each subject in another way, and much of a weight vector is
noise. Here the direction is measured: the gradient of the loss with respect to each whole layer
over some subjects; the leading right-singular vectors of its deviations from the mean become A.
LoRA-GA (Wang et al. 2024, arXiv:2407.05000) does so for one task; a space needs one A for all. It
gains little (docs/world.md) and stays only because the embedded space was made with it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weights2weights.adapter import adapt
from weights2weights.bases import Base
from weights2weights.layout import WeightLayout
from weights2weights.models import Model, save_model
from weights2weights.training import PRESETS, DreamBoothConfig, Latents
from weights2weights.worlds import USER_POPULATIONS
from weights2weights.worlds.people import PEOPLE

_AT_ONCE = 64  # samples in one pass


def learn_start(base: Base, folder: Path, *, subjects: int = 32, images: int = 10) -> Path:
    """Find the initialisation of all trainings on a base and write it to the base's folder.

    Args:
        base: a base that learned the world, in float32.
        folder: the folder of the base.
        subjects: how many people to compare, the first of `w2w world` with seed 0.
        images: images of each.

    Returns:
        The file.
    """
    latents = []
    for index in range(subjects):
        person = PEOPLE.subject(USER_POPULATIONS, index)
        shown = [PEOPLE.image(USER_POPULATIONS, index, number) for number in range(images)]
        pixels = np.stack([PEOPLE.draw(person, image, base.size) for image in shown])
        mean = base.encode_images(torch.from_numpy(pixels))
        captions = tuple(PEOPLE.surroundings(image) for image in shown)
        latents.append(Latents(mean, None, None, captions=captions))
    config = PRESETS["people"]
    layout = base.layout(config.rank, config.alpha, config.targets)
    return write_start(folder, base, layout, find_start(base, layout, config, latents))


def find_start(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    subjects: Sequence[Latents],
    *,
    passes: int = 6,
    seed: int = 0,
) -> Float[Tensor, " d"]:
    """Find the A along which subjects differ most, to start every training with.

    Costs a forward and backward pass of the UNet per image and pass, and memory for a gradient of
    every adapted layer per subject.

    Args:
        base: the model to fine-tune.
        layout: of the weights.
        config: for the instance prompt, which each image's whole caption follows.
        subjects: the encoded images of some tens of subjects, at least two.
        passes: noises and timesteps per image; the same for every subject.
        seed: of the noise.

    Returns:
        A with orthogonal rows as long as random ones, in the order of `layout`; B zero.
    """
    gradients = [_gradients(base, layout, config, one, passes, seed) for one in subjects]
    start = torch.zeros(layout.num_parameters)
    for (_, A, _), of_layer in zip(layout.slices(), zip(*gradients, strict=True), strict=True):
        differences = torch.stack(of_layer).double()
        differences -= differences.mean(0)
        covariance = torch.einsum("koi,koj->ij", differences, differences)
        rows = torch.linalg.eigh(covariance).eigenvectors.mT.flip(0)[: layout.rank]
        largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
        # as long as uniform in ±1/√in, which has the mean square 1 / 3 in
        start[A] = (rows * largest.sign() / 3**0.5).float().flatten()
    return start


def write_start(folder: str | Path, base: Base, layout: WeightLayout, start: Tensor) -> Path:
    """Save the start in the folder of its base, where `DreamBoothConfig.start` "base" finds it."""
    model = Model(layout, weights=start, base_hash=base.hash, origin={"verb": "find_start"})
    return save_model(Path(folder) / "start.safetensors", model)


def _gradients(
    base: Base,
    layout: WeightLayout,
    config: DreamBoothConfig,
    latents: Latents,
    passes: int,
    seed: int,
) -> list[Tensor]:
    """Return the gradient "out in" of one subject's loss for every layer, on the CPU.

    It is the gradient of B in a LoRA whose A is the identity, so the base stays untouched.
    """
    widest = max(module.in_features for module in layout.modules)
    whole = WeightLayout(layout.modules, widest, float(widest), layout.base)
    weights = torch.zeros(1, whole.num_parameters, device=base.device)
    for module, A, _ in whole.slices():
        weights[0, A] = torch.eye(widest, module.in_features, device=base.device).flatten()
    weights.requires_grad_()
    latents = latents.to(base.device)
    captions = latents.captions or ("",) * len(latents.mean)
    prompts = [", ".join(filter(None, (config.instance_prompt, caption))) for caption in captions]
    text = base.encode_prompts(prompts)
    total = torch.zeros_like(weights)
    with adapt(base.denoiser, whole, weights):
        for index, timesteps, noise in _samples(base, len(latents.mean), passes, seed):
            clean = latents.mean[index]
            loss = base.denoising_loss(clean, noise, timesteps, text[index]).sum()
            total += torch.autograd.grad(loss, weights)[0]
    rows = total[0].cpu()
    return [
        rows[B].view(module.out_features, widest)[:, : module.in_features]
        for module, _, B in whole.slices()
    ]


def _samples(
    base: Base, images: int, passes: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Return (image, timestep, noise) of every sample in batches; timesteps are spread evenly."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(images).repeat(passes)
    shares = torch.rand(len(index), generator=generator)
    shares = (torch.randperm(len(index), generator=generator) + shares) / len(index)
    noise = torch.randn(len(index), *base.latent_shape, generator=generator)
    timesteps = (shares * base.num_timesteps).long().clamp(max=base.num_timesteps - 1)
    for parts in zip(*(x.split(_AT_ONCE) for x in (index, timesteps, noise)), strict=True):
        yield tuple(part.to(base.device) for part in parts)  # pyright: ignore[reportReturnType]
