"""Images from models: many models, prompts and seeds in one batch, and delayed injection.

A weight vector is a model; this is where it is seen. All combinations of K models, P prompts and S
seeds run through one UNet, each sample through its own LoRA (`adapter.adapt`), with deterministic
DDIM and classifier-free guidance in one doubled batch. Noise depends on the seed alone and is that
of `torch.Generator("cpu").manual_seed(seed)`, so an image is the same in any company, and the same
as `StableDiffusionPipeline` gives.

Delayed injection (Dravid et al. 2024, appendix I): the first, noisiest steps, which lay out the
scene, run with the original weights and the later ones with the edited ones.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ._memory import free_memory
from .adapter import Adapter, adapt
from .bases import Base
from .errors import InputError
from .layout import WeightLayout

if TYPE_CHECKING:
    from PIL.Image import Image

GUIDANCE = 3.0
"""Strength of classifier-free guidance; the paper draws with 2.5 to 4."""

STEPS = 20
"""Steps of DDIM; the paper takes 50, from 20 on the eye sees little difference."""

# Larger batches are no faster: people UNet on 2 cores, ms per sample and pass at batch 1, 8, 32:
# 15, 5.5, 4.3.
_MOST_AT_ONCE = {"cpu": 32, "mps": 16}
_MOST_ON_ACCELERATORS = 64


def generate(
    base: Base,
    weights: Float[Tensor, "k d"] | None,
    layout: WeightLayout | None,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    negative_prompt: str = "",
    inject_at: int | None = None,
    original: Float[Tensor, "k d"] | None = None,
    chunk: int | None = None,
    progress: bool = False,
) -> UInt8[Tensor, "k p s h w 3"]:
    """Draw every prompt with every seed from every model.

    Args:
        base: the model that the weights personalise.
        weights: one LoRA per row; None draws the base itself, with K = 1.
        layout: of the weights; not needed without them.
        prompts: P texts.
        seeds: S seeds of the initial noise.
        steps: of DDIM.
        guidance: 1 follows the prompt as it is, in half the time; more, more strictly.
        negative_prompt: what guidance leads away from.
        inject_at: timestep from which on, downwards, `weights` act; before, at higher and noisier
            timesteps, `original` does. None, or the number of training timesteps (1000): always.
        original: the models before their edit, for `inject_at`; None is the plain base.
        chunk: samples per pass, each twice with guidance; None lets the free memory decide. If it
            does not suffice on a GPU, the chunk is halved until it does.
        progress: a bar on stderr.

    Returns:
        images on the CPU. The same seed gives the same image whatever the batch, up to float
        rounding: at most one grey level in float32.

    Raises:
        W2WError: an argument out of its range or of another shape, or not even one image fits
            into the GPU's memory.
    """
    _check(weights, layout, prompts, seeds, steps, inject_at, original, chunk)
    K, P, S = 1 if weights is None else weights.shape[0], len(prompts), len(seeds)
    sampler = _Sampler(base, prompts, negative_prompt, seeds, steps, guidance, inject_at)
    chunk = chunk or _fitting(base, 1 if guidance == 1 else 2)
    images: list[Tensor] = []
    done, total = 0, K * P * S
    with _stack(base, layout, weights) as adapter, _bar(total * steps, progress) as bar:
        while done < total:
            items = torch.arange(done, min(done + chunk, total))
            start = bar.n
            try:
                model, prompt, seed = items // (P * S), items // S % P, items % S
                select = _Selection(adapter, weights, original, model)
                images.append(base.decode(sampler.draw(select, prompt, seed, bar)))
                done += len(items)
                continue
            except torch.OutOfMemoryError as error:
                if len(items) == 1:
                    raise InputError(
                        f"one image of {base.size} px does not fit into the memory of"
                        f" {base.device}; load the base with dtype bfloat16, or on another device"
                    ) from error
            # outside of `except`, whose traceback would keep the tensors alive
            bar.n, chunk = start, (len(items) + 1) // 2
            torch.cuda.empty_cache()
    return torch.cat(images).view(K, P, S, *images[0].shape[1:])


class _Sampler:
    """DDIM with guidance for any subset of (prompt, seed); everything shared is made once."""

    def __init__(
        self,
        base: Base,
        prompts: Sequence[str],
        negative_prompt: str,
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        inject_at: int | None,
    ):
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        self.base, self.guidance, self.inject_at = base, guidance, inject_at
        self.prompts = base.encode_prompts(prompts)
        self.negative = base.encode_prompts([negative_prompt])
        self.noise = torch.cat([initial_noise(base, seed) for seed in seeds])
        # Latents have no range to be clipped to, whatever another scheduler's settings leave open.
        self.scheduler: Any = DDIMScheduler.from_config(base.scheduler_config, clip_sample=False)
        self.scheduler.set_timesteps(steps)

    @torch.no_grad()
    def draw(self, select: "_Selection", prompt: Tensor, seed: Tensor, bar: Any) -> Tensor:
        device = self.base.device
        latents = self.noise[seed].to(device)
        text = self.prompts[prompt.to(device)]
        if self.guidance != 1:
            text = torch.cat([self.negative.expand_as(text), text])
        for timestep in self.scheduler.timesteps:
            select.edited(self.inject_at is None or int(timestep) <= self.inject_at)
            predicted = self._predict(latents, timestep, text)
            latents = self.scheduler.step(predicted, timestep, latents).prev_sample
            bar.update(len(seed))
        return latents

    def _predict(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        batch = latents.repeat(text.shape[0] // latents.shape[0], 1, 1, 1)
        timesteps = timestep.to(batch.device).expand(batch.shape[0])
        predicted = self.base.denoise(batch, timesteps, text)
        if self.guidance == 1:
            return predicted
        plain, prompted = predicted.chunk(2)
        return plain + self.guidance * (prompted - plain)


class _Selection:
    """The models of one chunk: only their rows are on the device, edited or original."""

    def __init__(
        self,
        adapter: Adapter | None,
        weights: Tensor | None,
        original: Tensor | None,
        model: Tensor,
    ):
        self.adapter = adapter
        if adapter is None or weights is None:
            return
        device = adapter.weights.device
        first, last = int(model[0]), int(model[-1])
        rows = slice(first, last + 1)
        self.weights = weights[rows].to(device)
        self.original = None if original is None else original[rows].to(device)
        adapter.index = None  # an index for other rows would not fit the new ones
        adapter.weights = self.weights
        adapter.index = (model - first).to(device)

    def edited(self, yes: bool) -> None:
        """Let the edited weights act, or the original ones."""
        if self.adapter is None:
            return
        if self.original is None:
            self.adapter.enabled = yes
        else:
            wanted = self.weights if yes else self.original
            if self.adapter.weights is not wanted:
                self.adapter.weights = wanted


def initial_noise(base: Base, seed: int) -> Float[Tensor, "1 c h w"]:
    """Return the noise that a seed stands for, on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, *base.latent_shape), generator=generator)


def image_grid(
    images: UInt8[Tensor, "rows columns h w 3"],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    cell: int | None = None,
) -> "Image":
    """Lay images out as a table with captions.

    Args:
        images: as `generate` gives them, with its middle axes flattened.
        rows: a caption for every row, or none; long lines are wrapped.
        columns: a caption for every column, or none.
        cell: width of a cell in pixels; None enlarges small images by a whole factor to at least
            128 px.

    Returns:
        a PIL image.

    Raises:
        W2WError: another number of captions than of rows or columns.
    """
    from PIL import Image, ImageDraw, ImageFont

    table = images.cpu().numpy()
    R, C, height, width = table.shape[:4]
    for captions, count, what in ((rows, R, "rows"), (columns, C, "columns")):
        if captions and len(captions) != count:
            raise InputError(f"{len(captions)} captions for {count} {what}: expected one each")
    wide = cell or width * max(1, -(-128 // width))
    tall, gap = round(wide * height / width), max(2, wide // 64)
    font = ImageFont.load_default(size=max(11, wide // 11))
    beside, above = _wrap(rows, wide - gap, font), _wrap(columns, wide - gap, font)
    left = max((_extent(text, font)[0] for text in beside), default=-2 * gap) + 2 * gap
    top = max((_extent(text, font)[1] for text in above), default=-2 * gap) + 2 * gap
    sheet = Image.new("RGB", (left + C * (wide + gap) - gap, top + R * (tall + gap) - gap), "white")
    for r in range(R):
        for c in range(C):
            image = Image.fromarray(table[r, c])
            if image.size != (wide, tall):
                image = image.resize((wide, tall), Image.Resampling.BICUBIC)
            sheet.paste(image, (left + c * (wide + gap), top + r * (tall + gap)))
    pen = ImageDraw.Draw(sheet)
    for r, text in enumerate(beside):
        place = gap, top + r * (tall + gap) + tall // 2
        pen.multiline_text(place, text, "black", font, anchor="lm")
    for c, text in enumerate(above):
        place = left + c * (wide + gap) + wide // 2, gap
        pen.multiline_text(place, text, "black", font, anchor="ma", align="center")
    return sheet


def _wrap(captions: Sequence[str], width: int, font: Any) -> list[str]:
    letters = max(8, int(width / font.getlength("n")))
    return [
        "\n".join(textwrap.fill(line, letters) for line in caption.splitlines())
        for caption in captions
    ]


def _extent(text: str, font: Any) -> tuple[int, int]:
    from PIL import Image, ImageDraw

    pen = ImageDraw.Draw(Image.new("1", (1, 1)))
    box = pen.multiline_textbbox((0, 0), text, font=font)
    return int(box[2]), int(box[3])


def _check(
    weights: Tensor | None,
    layout: WeightLayout | None,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    inject_at: int | None,
    original: Tensor | None,
    chunk: int | None,
) -> None:
    if isinstance(prompts, str):
        raise InputError(f"prompts came as the text {prompts!r}: expected a list of texts")
    if not prompts or not seeds:
        raise InputError(
            f"{len(prompts)} prompts and {len(seeds)} seeds: expected at least one of each"
        )
    if weights is not None and layout is None:
        raise InputError("weights came without their layout: expected both, or neither")
    if weights is None and (inject_at is not None or original is not None):
        raise InputError("delayed injection without weights: expected the weights to inject")
    if original is not None and (weights is None or original.shape != weights.shape):
        shape = None if weights is None else tuple(weights.shape)
        raise InputError(
            f"original of shape {tuple(original.shape)}: expected one row for each row of weights,"
            f" {shape}"
        )
    if original is not None and inject_at is None:
        raise InputError("original came without inject_at: expected the timestep of the injection")
    if steps < 1 or (chunk is not None and chunk < 1):
        raise InputError(f"{steps} steps in chunks of {chunk}: expected at least 1 of each")


@contextmanager
def _stack(
    base: Base, layout: WeightLayout | None, weights: Tensor | None
) -> Iterator[Adapter | None]:
    if weights is None or layout is None:
        yield None
        return
    with adapt(base.unet, layout, weights[:1].detach().to(base.device)) as adapter:
        yield adapter


def _fitting(base: Base, passes: int) -> int:
    """Return the number of images that fit at once into half of the memory at hand, by estimate.

    A pass keeps about 24 maps of the widest level (skip connections, the block at work) and, where
    attention is not fused, two tokens × tokens matrices per head.
    """
    _, height, width = base.latent_shape
    config = base.unet.config
    maps = 24 * height * width * config.block_out_channels[0]
    attention = 0
    if base.device.type == "cpu" and height * width <= 1024:
        attention = 2 * max(1, config.block_out_channels[0] // 32) * (height * width) ** 2
    bytes_each = passes * 4 * (maps + attention)
    most = _MOST_AT_ONCE.get(base.device.type, _MOST_ON_ACCELERATORS)
    return max(1, min(most, free_memory(base.device) // 2 // bytes_each))


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=" image-steps", disable=not progress, leave=False)
