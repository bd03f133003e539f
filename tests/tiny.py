"""A random Stable Diffusion small enough for any test: real block names, built in memory.

Every function is deterministic in `seed`, leaves the global random state alone and needs no
network. `unet()` has 69,204 numbers and 28 target layers (to_q, to_v) in down_blocks,
mid_block and up_blocks; images are 16 px, latents 4 x 8 x 8.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WIDTHS = (8, 16)
TEXT_WIDTH = 12
TEXT_LENGTH = 32
LATENT_SIZE = 8
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-'!"


def _seeded(build: Callable[[], Any], seed: int) -> Any:
    """Build a network under its own random state, frozen and in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval().requires_grad_(False)


def unet(seed: int = 0, **overrides: Any) -> Any:
    """A `UNet2DConditionModel` whose layer names are those of Stable Diffusion 1.5."""
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": LATENT_SIZE,
        "block_out_channels": WIDTHS,
        "layers_per_block": 1,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    return _seeded(lambda: UNet2DConditionModel(**(config | overrides)), seed)


def vae(seed: int = 0) -> Any:
    """An `AutoencoderKL` between 16 px images and 4 x 8 x 8 latents."""
    from diffusers import AutoencoderKL

    return _seeded(
        lambda: AutoencoderKL(
            block_out_channels=WIDTHS,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=2 * LATENT_SIZE,
        ),
        seed,
    )


def tokenizer(folder: Path) -> Any:
    """A `CLIPTokenizer` that spells words letter by letter; `folder` receives its two files."""
    from transformers import CLIPTokenizer

    pieces = [c + end for end in ("", "</w>") for c in CHARACTERS]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=TEXT_LENGTH)


def text_encoder(seed: int = 0) -> Any:
    """A one-layer `CLIPTextModel` for `tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    end = 2 * len(CHARACTERS) + 1
    config = CLIPTextConfig(
        vocab_size=end + 1,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    return _seeded(lambda: CLIPTextModel(config), seed)


def scheduler(prediction_type: str = "epsilon") -> Any:
    """A `DDIMScheduler` with Stable Diffusion's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def pipeline(folder: Path, seed: int = 0, prediction_type: str = "epsilon") -> Any:
    """A whole `StableDiffusionPipeline`; `folder` receives the tokenizer's files."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        vae=vae(seed),
        text_encoder=text_encoder(seed),
        tokenizer=tokenizer(folder),
        unet=unet(seed),
        scheduler=scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def base_folder(folder: Path, seed: int = 0, prediction_type: str = "epsilon") -> Path:
    """Save `pipeline` as an ordinary diffusers folder and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base"
    pipeline(folder, seed, prediction_type).save_pretrained(base)
    return base


def unet_inputs(batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents "b 4 8 8", timesteps "b" and prompt embeddings "b 32 12" for `unet`."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, LATENT_SIZE, LATENT_SIZE, generator=generator)
    timesteps = torch.randint(0, 1000, (batch,), generator=generator)
    prompts = torch.randn(batch, TEXT_LENGTH, TEXT_WIDTH, generator=generator)
    return latents, timesteps, prompts


def base_inputs(batch: int = 1, seed: int = 0) -> tuple[Any, ...]:
    """What `unet_inputs` returns, as `Base.denoise` takes it."""
    from weights2weights.bases import Conditions

    latents, timesteps, prompts = unet_inputs(batch, seed)
    return latents, timesteps, Conditions({"encoder_hidden_states": prompts})
