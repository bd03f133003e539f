"""Where training begins: one A for all subjects, random, or the one that tells subjects apart.

A LoRA of rank 1 sees a layer's input through one direction, A. Along a random one subjects differ
little, so training first turns A, for each subject another way, and much of a weight vector is
chance. Here the direction is measured: over some subjects, the gradient of the loss with respect to
each whole layer, whose leading right-singular vectors become A once the mean over subjects is taken
off. LoRA-GA (Wang et al. 2024, arXiv:2407.05000) does so for one task; a space needs one A for all.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..adapter import adapt
from ..bases import Base, find_start_file
from ..errors import InputError
from ..layout import WeightLayout
from ..models import Model, load_model, save_model
from ._chance import initial_weights
from ._latents import Latents
from ._recipe import DreamBoothConfig

_AT_ONCE = 64  # samples in one pass


def start_weights(base: Base, layout: WeightLayout, recipe: DreamBoothConfig, seed: int) -> Tensor:
    """Return the weights that a subject's training begins with.

    Raises:
        W2WError: the recipe asks for the base's own start, and the base has none of this layout.
    """
    if recipe.start == "random":
        return initial_weights(layout, seed)
    path = find_start_file(base)
    if path is None:
        raise InputError(
            f"base {base.id!r} brings no LoRA to start from: expected start.safetensors in its"
            " folder; give start random, or make one with train.find_start"
        )
    model = load_model(path)
    layout.require_equal(model.layout, f"{path}, where training begins; give start random if not")
    if model.weights is None or model.base_hash != base.hash:
        raise InputError(f"{path} was made for another base than {base.id}; give start random")
    return model.weights


def find_start(
    base: Base,
    layout: WeightLayout,
    recipe: DreamBoothConfig,
    subjects: Sequence[Latents],
    *,
    passes: int = 6,
    seed: int = 0,
) -> Float[Tensor, " d"]:
    """Find the A along which subjects differ most, to begin every training with.

    One pass of the UNet, forth and back, per image and pass; memory for a gradient of every
    adapted layer per subject.

    Args:
        base: to be fine-tuned.
        layout: of the weights.
        recipe: for the prompt, which each image's whole caption follows.
        subjects: the encoded images of some tens of subjects.
        passes: noises and timesteps per image; the same for every subject.
        seed: of the noise.

    Returns:
        A of orthogonal rows as long as random ones, in the order of `layout`; B zero.

    Raises:
        W2WError: fewer than two subjects.
    """
    if len(subjects) < 2:
        raise InputError(f"{len(subjects)} subjects: expected at least two, to see how they differ")
    gradients = [_gradients(base, layout, recipe, one, passes, seed) for one in subjects]
    start = torch.zeros(layout.num_parameters)
    for (_, A, _), of_layer in zip(layout.slices(), zip(*gradients, strict=True), strict=True):
        differences = torch.stack(of_layer).double()
        differences -= differences.mean(0)
        spread = torch.einsum("koi,koj->ij", differences, differences)
        rows = torch.linalg.eigh(spread).eigenvectors.mT.flip(0)[: layout.rank]
        largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
        # as long as uniform in ±1/√in, which has the mean square 1 / 3 in
        start[A] = (rows * largest.sign() / 3**0.5).float().flatten()
    return start


def write_start(folder: str | Path, base: Base, layout: WeightLayout, start: Tensor) -> Path:
    """Put the start into the folder of its base, where `DreamBoothConfig.start` "base" finds it."""
    model = Model(layout, weights=start, base_hash=base.hash, origin={"verb": "find_start"})
    return save_model(Path(folder) / "start.safetensors", model)


def _gradients(
    base: Base,
    layout: WeightLayout,
    recipe: DreamBoothConfig,
    latents: Latents,
    passes: int,
    seed: int,
) -> list[Tensor]:
    """Return the gradient "out in" of one subject's loss for every layer, on the CPU.

    It is that of B in a LoRA whose A is the identity, so nothing of the base is touched.
    """
    widest = max(module.in_features for module in layout.modules)
    whole = WeightLayout(layout.modules, widest, float(widest), layout.base)
    weights = torch.zeros(1, whole.num_parameters, device=base.device)
    for module, A, _ in whole.slices():
        weights[0, A] = torch.eye(widest, module.in_features, device=base.device).flatten()
    weights.requires_grad_()
    latents = latents.to(base.device)
    captions = latents.captions or ("",) * len(latents.mean)
    prompts = [", ".join(filter(None, (recipe.prompt, caption))) for caption in captions]
    text = base.encode_prompts(prompts)
    total = torch.zeros_like(weights)
    with adapt(base.unet, whole, weights):
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
    timesteps = (shares * len(base.alphas_cumprod)).long().clamp(max=len(base.alphas_cumprod) - 1)
    for parts in zip(*(x.split(_AT_ONCE) for x in (index, timesteps, noise)), strict=True):
        yield tuple(part.to(base.device) for part in parts)  # pyright: ignore[reportReturnType]
