"""How much fits into memory: what is free on a device, and how many LoRAs train at once."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor

from .adapter import adapt
from .bases import Base
from .errors import ResourceError
from .layout import WeightLayout

# Samples in one pass, beyond which a pass is no cheaper per sample: people UNet on 2 cores, ms per
# training sample at batch 1, 8, 16, 32, 64: 30, 8.4, 6.3, 5.0, 4.7 (bfloat16).
_MAX_SAMPLES = {"cpu": 64}
_MAX_SAMPLES_ON_ACCELERATORS = 256


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = psutil.virtual_memory().available
    if device.type == "mps":  # shares the machine's memory, up to a limit
        left = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return min(available, left)
    return available


def loras_that_fit(base: Base, layout: WeightLayout, samples: int) -> int:
    """Return how many LoRAs can train at once in half of the free memory, at least 1.

    Measured, not guessed: one forward pass for one LoRA, counting the bytes that autograd keeps.
    No more than the batch size beyond which a larger one gains nothing.

    Args:
        base: the model to fine-tune.
        layout: of the LoRAs.
        samples: training samples of each LoRA per step.
    """
    weights = torch.zeros(1, layout.num_parameters, device=base.device, requires_grad=True)
    latents = torch.zeros(samples, *base.latent_shape, device=base.device)
    timesteps = torch.zeros(samples, dtype=torch.int64, device=base.device)
    prompts = base.encode_prompts([""]).expand(samples)
    with _counting_saved(base) as saved, adapt(base.denoiser, layout, weights):
        base.denoising_loss(latents, latents, timesteps, prompts)
    each = sum(saved.values()) + 6 * weights.nbytes  # gradient, two moments, copies
    largest = _MAX_SAMPLES.get(base.device.type, _MAX_SAMPLES_ON_ACCELERATORS)
    return max(1, min(largest // samples, free_memory(base.device) // 2 // each))


@contextmanager
def out_of_memory_explained(base: Base, what: str) -> Iterator[None]:
    """Turn running out of memory into a `ResourceError` that names the batch, "8 subjects" say."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"{what} at once do not fit into the memory of {base.device}; expected a smaller"
            " batch: lower subjects_per_batch or the samples per step, set"
            " gradient_checkpointing, or load the base with dtype bfloat16"
        ) from error


@contextmanager
def _counting_saved(base: Base) -> Iterator[dict[int, int]]:
    """Collect address → bytes of everything autograd keeps, apart from the base itself."""
    own = {parameter.untyped_storage().data_ptr() for parameter in base.denoiser.parameters()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield saved
