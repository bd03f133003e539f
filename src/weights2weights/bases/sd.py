"""Stable Diffusion 1 and 2: one CLIP text encoder, a VAE, and a UNet with cross-attention.

`Base.denoising_loss` is the one loss of DreamBooth, of inversion and of concept sliders.
"""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from .._cpu import use_fast_modules
from .._device import usable_device
from ..errors import InputError
from ..layout import PAPER_ALPHA, PAPER_TARGETS, WeightLayout
from ._diffusion import add_noise, noise_target
from ._hash import NETWORKS, content_hash
from ._pixels import as_pixels

# Prompts are encoded this many at a time, never fewer: a prompt's embedding must not depend, to the
# last bit, on which others were asked for, or a run that resumes would not end in the same bytes.
_PROMPTS_AT_ONCE = 8
_CACHED_PROMPT_BYTES = 2**29
# The VAE works on this many pixels at once, 32 images of 64 px or 4 of 512 px (about 2 GB with
# Stable Diffusion's); larger batches are no faster.
_VAE_PIXELS = 2**20
_VAE_IMAGES = 32

_log = logging.getLogger(__name__)
_encoding = RLock()  # every call reorders the cache of prompts


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen latent diffusion model and the few things one does with it.

    Attributes:
        id: how it was asked for: "people", a folder, a hub id.
        hash: 16 hex characters over the values of all weights and the settings that give a LoRA
            its meaning (noise schedule, prediction type, scale of the latents). The same weights
            have the same hash in float16 and float32, and wherever they are stored.
        unet: the denoiser; its weights are in `dtype`.
        vae: between images and latents; weights float32.
        text_encoder: CLIP's; weights float32.
        tokenizer: of `text_encoder`.
        scheduler_config: the base's own scheduler settings, as in its folder.
        device: of the networks.
        dtype: in which the UNet computes and the VAE decodes. Anything but float32 runs under
            autocast; latents, embeddings and losses stay float32.
        alphas_cumprod: ᾱ of every timestep, float32 on `device`.
    """

    id: str
    hash: str
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    alphas_cumprod: Float[Tensor, "timesteps"]
    _prompts: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"Base({self.id!r}, {self.size} px, {dtype}, {self.device})"

    @classmethod
    def from_pipeline(
        cls,
        pipeline: Any,
        id: str = "",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Base":
        """Return the base of a `StableDiffusionPipeline`, which stays as it is.

        The networks are copies that share the pipeline's weights, so no memory is needed unless
        `device` or `dtype` differ. Hashes all weights, which takes seconds for large models.

        Args:
            pipeline: has a UNet, a VAE, a text encoder, a tokenizer and a scheduler.
            id: a name for messages and files.
            device: None is the pipeline's.
            dtype: of the UNet; None is the pipeline's.

        Raises:
            InputError: its parts are of a kind that the library does not support, or offloaded.
        """
        networks = {name: getattr(pipeline, name) for name in NETWORKS}
        for network in networks.values():
            if hasattr(network, "_hf_hook"):
                raise InputError(
                    f"the pipeline offloads its {type(network).__name__}: expected networks on one"
                    " device; call `pipeline.remove_all_hooks()` first"
                )
        parts = {x: _shared_copy(getattr(y, "_orig_mod", y)) for x, y in networks.items()}
        parts |= {"tokenizer": pipeline.tokenizer, "scheduler": dict(pipeline.scheduler.config)}
        device = usable_device(device or pipeline.unet.device)
        return cls.assemble(id, content_hash(parts), parts, device, dtype or pipeline.unet.dtype)

    @classmethod
    def assemble(
        cls, id: str, hash: str, parts: Mapping[str, Any], device: torch.device, dtype: torch.dtype
    ) -> "Base":
        """Return a base of networks that nobody else uses: freeze, move and prepare them.

        Args:
            id: see `Base`.
            hash: see `Base`.
            parts: by the names of their subfolders; that of the scheduler is its settings.
            device: of the networks.
            dtype: of the UNet.

        Raises:
            InputError: parts of an unknown kind, or that do not belong together.
        """
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        settings = {k: v for k, v in parts["scheduler"].items() if not k.startswith("_")}
        networks = {name: parts[name] for name in NETWORKS}
        _require_known(id, scheduler_config=settings, **networks)
        for name, network in networks.items():
            network.eval().requires_grad_(False)
            network.to(device=device, dtype=dtype if name == "unet" else torch.float32)
        if _wants_fast_modules(parts["unet"], device):
            use_fast_modules(parts["unet"])
        scheduler: Any = DDIMScheduler.from_config(settings)
        return cls(
            id=id,
            hash=hash,
            **networks,
            tokenizer=parts["tokenizer"],
            scheduler_config=settings,
            device=device,
            dtype=dtype,
            alphas_cumprod=scheduler.alphas_cumprod.to(device),
        )

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Base":
        """Return this base on another device or in another dtype; this one stays as it is.

        A base to which nothing refers any more is unloaded. What was rounded to a smaller dtype
        stays rounded.
        """
        device, dtype = usable_device(device or self.device), dtype or self.dtype
        if (device, dtype) == (self.device, self.dtype):
            return self
        parts = {name: _shared_copy(getattr(self, name)) for name in NETWORKS}
        parts |= {"tokenizer": self.tokenizer, "scheduler": self.scheduler_config}
        return Base.assemble(self.id, self.hash, parts, device, dtype)

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: "epsilon" or "v_prediction"."""
        return self.scheduler_config.get("prediction_type", "epsilon")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latent of one image."""
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    @property
    def size(self) -> int:
        """Side of the base's images in pixels."""
        return self.unet.config.sample_size * self._factor

    @property
    def _factor(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def layout(
        self,
        rank: int = 1,
        alpha: float = PAPER_ALPHA,
        targets: Sequence[str] = PAPER_TARGETS,
    ) -> WeightLayout:
        """Return the layout of LoRAs on this base; the defaults are the paper's."""
        return WeightLayout.from_denoiser(
            self.unet, targets=tuple(targets), rank=rank, alpha=alpha, base=self.id
        )

    def autocast(self) -> torch.autocast:
        """Compute in `dtype` inside; nothing changes for float32."""
        reduced = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype if reduced else None, enabled=reduced)

    @contextmanager
    def gradient_checkpointing(self, enabled: bool = True) -> Iterator[None]:
        """Recompute activations in backward passes inside; enter it before `adapt`."""
        if not enabled:
            yield
            return
        self.unet.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self.unet.disable_gradient_checkpointing()

    def encode_prompts(self, prompts: Sequence[str]) -> Float[Tensor, "n tokens width"]:
        """Return the text encoder's last hidden states, on `device`; repeated prompts are cached.

        What exceeds the tokenizer's length is cut off, with a line in the log.
        """
        with _encoding, torch.no_grad():
            unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prompts]
            for start in range(0, len(unknown), _PROMPTS_AT_ONCE):
                self._encode(unknown[start : start + _PROMPTS_AT_ONCE])
            for prompt in prompts:
                self._prompts[prompt] = self._prompts.pop(prompt)  # used last, forgotten last
            encoded = torch.stack([self._prompts[prompt] for prompt in prompts])
            while len(self._prompts) * encoded[0].nbytes > _CACHED_PROMPT_BYTES:
                del self._prompts[next(iter(self._prompts))]
            return encoded

    def _encode(self, prompts: Sequence[str]) -> None:
        """Encode a few prompts in a batch of fixed size and cache them."""
        length = self.tokenizer.model_max_length
        for prompt in prompts:
            tokens = self.tokenizer(prompt).input_ids
            if len(tokens) > length:
                kept = self.tokenizer.decode(tokens[:length], skip_special_tokens=True)
                _log.warning(
                    "prompt of %d tokens, this base reads %d; kept: %r", len(tokens), length, kept
                )
        batch = [*prompts, *[""] * (_PROMPTS_AT_ONCE - len(prompts))]
        padded = self.tokenizer(
            batch, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        hidden = self.text_encoder(padded.input_ids.to(self.device))[0]
        self._prompts.update(zip(prompts, hidden.clone().unbind(), strict=False))

    def encode_images(self, images: Any) -> Float[Tensor, "n c h w"]:
        """Return the latents of images, scaled as the UNet expects them: the posterior's mean.

        Args:
            images: uint8 "n h w 3" (torch or NumPy) or a sequence of PIL images of one size, both
                sides multiples of the VAE's factor (8 for Stable Diffusion).

        Returns:
            float32 latents on `device`.

        Raises:
            InputError: images of another kind, shape or size.
        """
        return self.encode_moments(images)[0]

    @torch.no_grad()
    def encode_moments(
        self, images: Any
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """Return mean and standard deviation of the VAE's posterior, scaled for the UNet.

        Always float32: images are encoded once and used for thousands of steps. Arguments and
        failures as for `encode_images`.
        """
        pixels = as_pixels(images, self._factor)
        shift, scale = self._latent_scale()
        means, stds = [], []
        for part in pixels.split(_vae_batch(pixels.shape[1] * pixels.shape[2])):
            # contiguous: else all convolutions run channels-last, half as fast on CPUs
            signal = part.to(self.device).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
            posterior = self.vae.encode(signal).latent_dist
            means.append((posterior.mean - shift) * scale)
            stds.append(posterior.std * scale)
        return torch.cat(means), torch.cat(stds)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n height width 3"]:
        """Return the images of latents, on the CPU."""
        shift, scale = self._latent_scale()
        pixels = latents.shape[2] * latents.shape[3] * self._factor**2
        images = []
        with self.autocast():
            for part in latents.to(self.device).float().split(_vae_batch(pixels)):
                decoded = self.vae.decode(part / scale + shift).sample.float()
                levels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
                images.append(levels.to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(images)

    def denoise(
        self,
        noisy: Float[Tensor, "n c h w"],
        timesteps: Int[Tensor, "n"],
        prompts: Float[Tensor, "n tokens width"],
    ) -> Float[Tensor, "n c h w"]:
        """Return the UNet's prediction in float32; see `prediction_type` for its meaning."""
        with self.autocast():
            return self.unet(noisy, timesteps, prompts, return_dict=False)[0].float()

    def denoising_loss(
        self,
        latents: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        timesteps: Int[Tensor, "n"],
        prompts: Float[Tensor, "n tokens width"],
        *,
        mask: Float[Tensor, "n h w"] | None = None,
    ) -> Float[Tensor, "n"]:
        """Return the denoising loss of every sample: the mean squared error of the prediction.

        Equation 1 of the paper for "epsilon"; for "v_prediction" the error is that of the velocity.
        Gradients flow to whatever adapts the UNet.

        Args:
            latents: clean latents, scaled as `encode_images` gives them.
            noise: standard normal.
            timesteps: from 0 (clean) up to, not including, the length of `alphas_cumprod`.
            prompts: as `encode_prompts` gives them.
            mask: how much each latent pixel counts, at least 0. The error is the weighted mean, so
                the size of the masked area and the scale of the mask do not matter.
        """
        alpha_bar = self.alphas_cumprod[timesteps]
        target = noise_target(latents, noise, alpha_bar, self.prediction_type)
        prediction = self.denoise(add_noise(latents, noise, alpha_bar), timesteps, prompts)
        error = (prediction - target).square().mean(1)
        if mask is None:
            return error.mean((1, 2))
        return (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1e-6)

    def _latent_scale(self) -> tuple[Tensor | float, Tensor | float]:
        """Return (shift, scale) of normalised = (vae's latents - shift) · scale."""
        config = self.vae.config
        scale = config.scaling_factor
        if config.latents_mean is None or config.latents_std is None:
            return config.shift_factor or 0.0, scale
        mean, std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, scale / std


def _shared_copy(network: nn.Module) -> Any:
    """Return a network of new modules over the same weights, so that it can be changed freely."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in network.parameters()
    }
    memo |= {id(buffer): buffer for buffer in network.buffers()}
    return copy.deepcopy(network, memo)


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


def _wants_fast_modules(unet: Any, device: torch.device) -> bool:
    """Return whether plain attention is the fastest here; results differ by rounding only.

    Measured on the people UNet (5.9 M, 2 cores, batch 32, ms per training sample): bfloat16
    4.7 plain against 8.3 fused, float32 equal; generating 2.5 against 2.8. The CPU's fused
    attention has a slow backward pass. Plain attention keeps the tokens × tokens matrix, which at
    the 4,096 tokens of a 512 px image costs more memory than it saves time; elsewhere diffusers'
    default, PyTorch's fused attention, is the fastest.
    """
    return device.type == "cpu" and unet.config.sample_size**2 <= 1024


def _vae_batch(pixels: int) -> int:
    return max(1, min(_VAE_IMAGES, _VAE_PIXELS // pixels))
