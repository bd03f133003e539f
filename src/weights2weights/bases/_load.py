"""From a folder, a hub id or a pipeline to a base: read, check, freeze, put in place."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import torch

from .._cpu import quicken
from ..errors import InputError
from ._base import Base
from ._find import find_base

_loading = RLock()


def load_base(
    spec: str | Path = "people",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Base:
    """Load a base model, or give the one that this process has already loaded.

    Args:
        spec: the word of an embedded world ("people"), a folder in diffusers layout, or a hub id.
        device: "cpu", "cuda", "mps".
        dtype: float32, or bfloat16 / float16 where speed and memory matter more: see `Base.dtype`.

    Raises:
        W2WError: no such base, a part is missing or cannot be read, or it is of a kind that the
            library does not know (two text encoders, no cross-attention, another prediction type).
    """
    source = find_base(spec)
    with _loading:
        return _load(str(spec), str(source), torch.device(device), dtype)


@lru_cache(maxsize=4)
def _load(spec: str, source: str, device: torch.device, dtype: torch.dtype) -> Base:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.utils.import_utils import is_accelerate_available
    from transformers import CLIPTextModel, CLIPTokenizer

    # float32 first, whatever the files hold, so that the hash is that of the values
    networks = {
        "torch_dtype": torch.float32,
        "use_safetensors": True,
        "low_cpu_mem_usage": is_accelerate_available(),
    }
    part = ""
    try:
        with _quiet():
            part = "unet"
            unet = UNet2DConditionModel.from_pretrained(source, subfolder=part, **networks)
            part = "vae"
            vae = AutoencoderKL.from_pretrained(source, subfolder=part, **networks)
            part = "text_encoder"
            text_encoder = CLIPTextModel.from_pretrained(
                source, subfolder=part, dtype=torch.float32, use_safetensors=True
            )
            part = "tokenizer"
            tokenizer = CLIPTokenizer.from_pretrained(source, subfolder=part)
            part = "scheduler"
            scheduler_config: Any = DDIMScheduler.load_config(source, subfolder=part)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        where = "" if Path(source).is_dir() else "no folder here, and from the hub "
        raise InputError(
            f"base {spec!r}: {where}its {part} cannot be read ({reason}); expected a Stable"
            " Diffusion 1 or 2 in diffusers layout with safetensors weights"
        ) from error
    return _assemble(spec, unet, vae, text_encoder, tokenizer, scheduler_config, device, dtype)


def base_from_pipeline(
    pipeline: Any,
    id: str = "",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Base:
    """Make a base of a `StableDiffusionPipeline` at hand.

    The networks are shared with the pipeline, not copied: they are frozen, put into evaluation mode
    and moved to `device` and `dtype`. On a CPU the UNet's GEGLU layers and attention processors are
    replaced for good by faster ones that compute the same; give a copy to keep them.

    Raises:
        W2WError: its parts are of a kind that the library does not know.
    """
    return _assemble(
        id,
        pipeline.unet,
        pipeline.vae,
        pipeline.text_encoder,
        pipeline.tokenizer,
        dict(pipeline.scheduler.config),
        torch.device(device),
        dtype,
    )


def _assemble(
    spec: str,
    unet: Any,
    vae: Any,
    text_encoder: Any,
    tokenizer: Any,
    scheduler_config: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
) -> Base:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler_config = {k: v for k, v in scheduler_config.items() if not k.startswith("_")}
    _require_known(spec, unet, vae, text_encoder, scheduler_config)
    for network in (unet, vae, text_encoder):
        network.eval().requires_grad_(False)
    hash = _content_hash(unet, vae, text_encoder, scheduler_config)
    with _quiet():  # `to` tells at length that no module needs float32
        unet.to(device=device, dtype=dtype)
    vae.to(device=device)
    text_encoder.to(device=device)
    _choose_attention(unet, device)
    scheduler: Any = DDIMScheduler.from_config(scheduler_config)
    return Base(
        id=spec,
        hash=hash,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler_config=scheduler_config,
        device=device,
        dtype=dtype,
        alphas_cumprod=scheduler.alphas_cumprod.to(device),
    )


def _require_known(
    spec: str, unet: Any, vae: Any, text_encoder: Any, scheduler_config: dict[str, Any]
) -> None:
    prediction = scheduler_config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise InputError(f"base {spec!r} predicts {prediction!r}; expected epsilon or v_prediction")
    pairs = [
        ("latent channels", unet.config.in_channels, vae.config.latent_channels),
        ("text width", unet.config.cross_attention_dim, text_encoder.config.hidden_size),
    ]
    for what, of_unet, of_other in pairs:
        if of_unet != of_other:
            raise InputError(
                f"base {spec!r}: the UNet expects {what} {of_unet}, its partner gives {of_other};"
                " expected the parts of one plain text-to-image Stable Diffusion"
            )


def _content_hash(unet: Any, vae: Any, text_encoder: Any, scheduler_config: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    schedule = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    latents = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
    settings = [
        [scheduler_config.get(name) for name in (*schedule, "rescale_betas_zero_snr")],
        [vae.config.get(name) for name in latents],
    ]
    digest.update(json.dumps(settings).encode())
    for network in (unet, vae, text_encoder):
        for name, value in sorted(network.state_dict().items()):
            if value.is_floating_point():  # the others are position counters of some versions
                digest.update(f"{name} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _choose_attention(unet: Any, device: torch.device) -> None:
    """Choose the attention that is fastest on this device; results differ by rounding only.

    Measured on the people UNet (5.9 M, 2 cores, batch 32, ms per training sample): bfloat16
    4.7 plain against 8.3 fused, float32 equal; drawing 2.5 against 2.8. The CPU's fused attention
    has a slow backward pass. Plain attention keeps the tokens × tokens matrix, which at the 4,096
    tokens of a 512 px image costs more memory than it saves time, so it is kept for small bases;
    elsewhere diffusers' default, PyTorch's fused attention, is the fastest.
    """
    if device.type == "cpu" and unet.config.sample_size**2 <= 1024:
        quicken(unet)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' advice and progress bars while loading; their errors still come."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    levels = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
    bar = of_transformers.is_progress_bar_enabled()
    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(levels[0])
        of_transformers.set_verbosity(levels[1])
        if bar:
            of_transformers.enable_progress_bar()
