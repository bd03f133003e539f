"""A base: a frozen latent diffusion model of any family, and the few things one does with it.

`Base.denoising_loss` is the one loss of DreamBooth, of inversion and of concept sliders.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from .._cache import Cache, cache_key
from .._cpu import use_fast_modules
from .._device import usable_device
from ..errors import InputError
from ..layout import PAPER_ALPHA, PAPER_TARGETS, WeightLayout
from ._conditions import Conditions
from ._diffusion import Diffusion, Flow
from ._families import family_of
from ._family import Family
from ._hash import content_hash
from ._pixels import as_pixels

# Prompts are encoded this many at a time, never fewer: a prompt's embedding must not depend, to the
# last bit, on which others were asked for, or a run that resumes would not end in the same bytes.
_PROMPTS_AT_ONCE = 8
_CACHED_PROMPT_BYTES = 2**29
# The VAE works on this many pixels at once, 32 images of 64 px or 4 of 512 px (about 2 GB with
# Stable Diffusion's); larger batches are no faster.
_VAE_PIXELS = 2**20
_VAE_IMAGES = 32

_encoding = RLock()  # every call reorders the cache of prompts


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen latent diffusion model and the few things one does with it.

    Attributes:
        id: how it was asked for: "people", a folder, a hub id.
        hash: 16 hex characters over the values of all weights and the settings that give a LoRA
            its meaning (noise schedule, prediction type, scale of the latents). The same weights
            have the same hash in float16 and float32, and wherever they are stored.
        family: its kind, with its networks and tokenizers.
        process: how images become noisy, what is predicted, and its sampler.
        scheduler_config: the base's own scheduler settings, as in its folder.
        size: side of its images in pixels.
        device: of the denoiser; of the other networks while they work.
        dtype: in which the denoiser computes and the VAE decodes. Anything but float32 runs under
            autocast; latents, embeddings and losses stay float32.
        offload: the VAE and the text encoders wait on the CPU, and encoded prompts are cached on
            disk.
    """

    id: str
    hash: str
    family: Family
    process: Diffusion | Flow
    scheduler_config: dict[str, Any]
    size: int
    device: torch.device
    dtype: torch.dtype
    offload: bool = False
    _prompts: dict[str, Conditions] = field(default_factory=dict)

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
        size: int | None = None,
    ) -> "Base":
        """Return the base of a diffusers pipeline, which stays as it is.

        The networks are copies that share the pipeline's weights, so no memory is needed unless
        `device` or `dtype` differ. Hashes all weights, which takes seconds for large models.

        Args:
            pipeline: a `StableDiffusionPipeline`, `StableDiffusionXLPipeline`,
                `StableDiffusion3Pipeline` or `FluxPipeline`.
            id: a name for messages and files.
            device: None is the pipeline's.
            dtype: of the denoiser; None is the pipeline's.
            size: side of the images in pixels; None is the one the denoiser was made for.

        Raises:
            InputError: a pipeline or parts that the library does not support, or offloaded.
        """
        kind = family_of(type(pipeline).__name__)
        parts = {name: getattr(pipeline, name) for name in kind.classes}
        for name in kind.networks():
            if hasattr(parts[name], "_hf_hook"):
                raise InputError(
                    f"the pipeline offloads its {type(parts[name]).__name__}: expected networks on"
                    " one device; call `pipeline.remove_all_hooks()` first"
                )
            parts[name] = _shared_copy(getattr(parts[name], "_orig_mod", parts[name]))
        family, settings = kind(parts), dict(pipeline.scheduler.config)
        device = usable_device(device or family.denoiser.device)
        hash = content_hash(family, settings)
        return cls.assemble(
            id, hash, family, settings, device, dtype or family.denoiser.dtype, size
        )

    @classmethod
    def assemble(
        cls,
        id: str,
        hash: str,
        family: Family,
        settings: dict[str, Any],
        device: torch.device,
        dtype: torch.dtype,
        size: int | None = None,
        offload: bool = False,
    ) -> "Base":
        """Return a base of networks that nobody else uses: freeze, move and prepare them.

        Args:
            id: see `Base`.
            hash: see `Base`.
            family: with the parts.
            settings: of the scheduler.
            device: see `Base`.
            dtype: see `Base`.
            size: of the images; None is the one the denoiser was made for.
            offload: see `Base`.

        Raises:
            InputError: parts of an unknown kind, or that do not belong together; a size that the
                denoiser cannot have.
        """
        settings = {k: v for k, v in settings.items() if not k.startswith("_")}
        if fault := family.fault(settings):
            raise InputError(f"base {id!r} {fault}")
        denoiser, factor = family.denoiser, family.factor
        size = size or family.side * factor
        if size < 1 or size % (factor * family.patch):
            raise InputError(f"size {size}: expected a multiple of {factor * family.patch} pixels")
        for name in family.networks():
            network = family.parts[name]
            network.eval().requires_grad_(False)
            place = torch.device("cpu") if offload and network is not denoiser else device
            network.to(device=place, dtype=dtype if name in family.large else torch.float32)
        if _wants_fast_modules(denoiser, device, size // factor):
            use_fast_modules(denoiser)
        process = family.process(settings).to(device)
        return cls(id, hash, family, process, settings, size, device, dtype, offload)

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
        return self._copied(device, dtype)

    def twin(self) -> "Base":
        """Return a base of other modules over the same weights, for use by another thread."""
        return self._copied(self.device, self.dtype)

    def _copied(self, device: torch.device, dtype: torch.dtype) -> "Base":
        networks = {name: _shared_copy(self.family.parts[name]) for name in self.family.networks()}
        family = type(self.family)(self.family.parts | networks)
        settings, size, offload = self.scheduler_config, self.size, self.offload
        return Base.assemble(self.id, self.hash, family, settings, device, dtype, size, offload)

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.family.denoiser

    @property
    def vae(self) -> Any:
        """The network between images and latents."""
        return self.family.parts["vae"]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latent of one image."""
        side = self.size // self.family.factor
        return self.family.channels, side, side

    @property
    def num_timesteps(self) -> int:
        """Number of noise levels in training."""
        return len(self.process.levels)

    def layout(
        self,
        rank: int = 1,
        alpha: float = PAPER_ALPHA,
        targets: Sequence[str] = PAPER_TARGETS,
    ) -> WeightLayout:
        """Return the layout of LoRAs on this base; the defaults are the paper's."""
        return WeightLayout.from_denoiser(
            self.denoiser, targets=tuple(targets), rank=rank, alpha=alpha, base=self.id
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
        self.denoiser.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self.denoiser.disable_gradient_checkpointing()

    @contextmanager
    def _working(self, *names: str) -> Iterator[None]:
        """Bring networks that wait on the CPU to the device, as long as they are needed."""
        networks = [self.family.parts[name] for name in names if self.offload]
        try:
            for network in networks:
                network.to(self.device)
            yield
        finally:
            for network in networks:
                network.to("cpu")

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Return what the denoiser reads for prompts, on `device`; repeated prompts are cached.

        What exceeds a tokenizer's length is cut off, with a line in the log.
        """
        with _encoding, torch.no_grad():
            unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prompts]
            if unknown and self.offload:
                unknown = [prompt for prompt in unknown if not self._restore(prompt)]
            for start in range(0, len(unknown), _PROMPTS_AT_ONCE):
                self._encode(unknown[start : start + _PROMPTS_AT_ONCE])
            for prompt in prompts:
                self._prompts[prompt] = self._prompts.pop(prompt)  # used last, forgotten last
            rows = [self._prompts[prompt] for prompt in prompts]
            each = sum(tensor.nbytes for tensor in rows[0].tensors.values())
            while len(self._prompts) * each > _CACHED_PROMPT_BYTES:
                del self._prompts[next(iter(self._prompts))]
            return Conditions.cat(rows)

    def encode_negative(self, prompt: str) -> Conditions:
        """Return what guidance leads away from, one row.

        Raises:
            InputError: the family has no negative prompt, and one was given.
        """
        if prompt and self.family.reads_guidance:
            raise InputError(
                f"negative_prompt {prompt!r}: a {self.family.pipeline} reads guidance as a number"
                " and has no negative prompt; leave it out"
            )
        return self.family.negative(self.encode_prompts([prompt]), prompt)

    def _encode(self, prompts: Sequence[str]) -> None:
        """Encode a few prompts in a batch of fixed size and cache them."""
        batch = [*prompts, *[""] * (_PROMPTS_AT_ONCE - len(prompts))]
        encoders = [name for name in self.family.networks() if name.startswith("text_encoder")]
        with self._working(*encoders):
            encoded = self.family.encode(batch, self.device)
        for i, prompt in enumerate(prompts):
            row = {name: x[i : i + 1].float().clone() for name, x in encoded.tensors.items()}
            self._prompts[prompt] = Conditions(row)
            if self.offload:
                Cache().save(self._prompt_key(prompt), row)

    def _restore(self, prompt: str) -> bool:
        """Read an encoded prompt from disk, if it is there."""
        found = Cache().load(self._prompt_key(prompt))
        if found is not None:
            self._prompts[prompt] = Conditions(found).to(self.device)
        return found is not None

    def _prompt_key(self, prompt: str) -> str:
        return cache_key("prompts", self.hash, str(self.dtype), prompt)

    def encode_images(self, images: Any) -> Float[Tensor, "n c h w"]:
        """Return the latents of images, scaled as the denoiser expects them: the posterior's mean.

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
        """Return mean and standard deviation of the VAE's posterior, scaled for the denoiser.

        Always float32: images are encoded once and used for thousands of steps. Arguments and
        failures as for `encode_images`.
        """
        pixels = as_pixels(images, self.family.factor)
        shift, scale = self._latent_scale()
        means, stds = [], []
        with self._working("vae"):
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
        pixels = latents.shape[2] * latents.shape[3] * self.family.factor**2
        images = []
        with self._working("vae"), self.autocast():
            for part in latents.to(self.device).float().split(_vae_batch(pixels)):
                decoded = self.vae.decode(part / scale + shift).sample.float()
                levels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
                images.append(levels.to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(images)

    def sampler(self, steps: int) -> Any:
        """Return a diffusers scheduler that is ready to take so many steps from noise to image."""
        return self.process.sampler(steps, (self.latent_shape[1] // self.family.patch) ** 2)

    def denoise(
        self,
        noisy: Float[Tensor, "n c h w"],
        times: Float[Tensor, "n"] | Int[Tensor, "n"],
        prompts: Conditions,
        guidance: float | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """Return the denoiser's prediction in float32; see `process` for its meaning.

        Args:
            noisy: noisy latents.
            times: as the sampler's timesteps, or as `process.times` gives them.
            prompts: as `encode_prompts` gives them.
            guidance: scale, for denoisers that read it; None is the family's.
        """
        guidance = self.family.guidance if guidance is None else guidance
        with self.autocast():
            return self.family.predict(noisy, times, prompts, guidance).float()

    def denoising_loss(
        self,
        latents: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        timesteps: Int[Tensor, "n"],
        prompts: Conditions,
        *,
        mask: Float[Tensor, "n h w"] | None = None,
    ) -> Float[Tensor, "n"]:
        """Return the denoising loss of every sample: the mean squared error of the prediction.

        Equation 1 of the paper for "epsilon"; for "v_prediction" and flow matching the error is
        that of the velocity, weighted as diffusers' training scripts do. Gradients flow to whatever
        adapts the denoiser.

        Args:
            latents: clean latents, scaled as `encode_images` gives them.
            noise: standard normal.
            timesteps: from 0 (clean) up to, not including, `num_timesteps`.
            prompts: as `encode_prompts` gives them.
            mask: how much each latent pixel counts, at least 0. The error is the weighted mean, so
                the size of the masked area and the scale of the mask do not matter.
        """
        process = self.process
        noisy, target = (f(latents, noise, timesteps) for f in (process.noisy, process.target))
        prediction = self.denoise(noisy, process.times(timesteps), prompts)
        error, weight = (prediction - target).square().mean(1), process.weight(timesteps)
        if mask is None:
            return error.mean((1, 2)) * weight
        weighted = (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1e-6)
        return weighted * weight

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


def _wants_fast_modules(denoiser: Any, device: torch.device, side: int) -> bool:
    """Return whether a UNet's plain attention is the fastest; results differ by rounding only.

    Measured on the people UNet (5.9 M, 2 cores, batch 32, ms per training sample): bfloat16
    4.7 plain against 8.3 fused, float32 equal; generating 2.5 against 2.8. The CPU's fused
    attention has a slow backward pass. Plain attention keeps the tokens × tokens matrix, which at
    the 4,096 tokens of a 512 px image costs more memory than it saves time; elsewhere diffusers'
    default, PyTorch's fused attention, is the fastest.
    """
    is_unet = hasattr(denoiser.config, "block_out_channels")
    return is_unet and device.type == "cpu" and side**2 <= 1024


def _vae_batch(pixels: int) -> int:
    return max(1, min(_VAE_IMAGES, _VAE_PIXELS // pixels))
