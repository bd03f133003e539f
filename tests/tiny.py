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


# Families other than Stable Diffusion 1; images are 16 px, latents 8 x 8.


def t5_encoder(seed: int = 0) -> Any:
    """A one-layer `T5EncoderModel` for `t5_tokenizer`."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(CHARACTERS) + 4, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return _seeded(lambda: T5EncoderModel(config), seed)


def t5_tokenizer() -> Any:
    """A `T5Tokenizer` that spells words letter by letter."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -2.0)]
    return T5Tokenizer(vocab=pieces + [(c, -3.0) for c in CHARACTERS], extra_ids=0)


def projecting_encoder(seed: int = 0) -> Any:
    """A `CLIPTextModelWithProjection` for `tokenizer`."""
    from transformers import CLIPTextModelWithProjection

    return _seeded(lambda: CLIPTextModelWithProjection(text_encoder(seed).config), seed)


def flow_scheduler(**settings: Any) -> Any:
    """A `FlowMatchEulerDiscreteScheduler`."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**settings)


def flow_vae() -> Any:
    """The VAE with the shift that SD 3 and FLUX.1 have."""
    network = vae()
    network.register_to_config(scaling_factor=1.5035, shift_factor=0.0609)
    return network


def sdxl_pipeline(folder: Path) -> Any:
    """A whole `StableDiffusionXLPipeline`."""
    from diffusers import StableDiffusionXLPipeline

    spell = tokenizer(folder)
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text_encoder(),
        text_encoder_2=projecting_encoder(1),
        tokenizer=spell,
        tokenizer_2=spell,
        unet=unet(
            cross_attention_dim=2 * TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
        ),
        scheduler=scheduler(),
    )


def sd3_pipeline(folder: Path) -> Any:
    """A whole `StableDiffusion3Pipeline`."""
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    spell = tokenizer(folder)
    transformer = _seeded(
        lambda: SD3Transformer2DModel(
            sample_size=LATENT_SIZE,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=32,
            pooled_projection_dim=2 * TEXT_WIDTH,
            pos_embed_max_size=LATENT_SIZE,
        ),
        0,
    )
    return StableDiffusion3Pipeline(
        vae=flow_vae(),
        text_encoder=projecting_encoder(0),
        text_encoder_2=projecting_encoder(1),
        text_encoder_3=t5_encoder(),
        tokenizer=spell,
        tokenizer_2=spell,
        tokenizer_3=t5_tokenizer(),
        transformer=transformer,
        scheduler=flow_scheduler(shift=3.0),
    )


def flux_pipeline(folder: Path, dev: bool = True) -> Any:
    """A whole `FluxPipeline`, dev or schnell."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    transformer = _seeded(
        lambda: FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=dev,
        ),
        0,
    )
    return FluxPipeline(
        vae=flow_vae(),
        text_encoder=text_encoder(),
        text_encoder_2=t5_encoder(),
        tokenizer=tokenizer(folder),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
        scheduler=flow_scheduler(shift=3.0 if dev else 1.0, use_dynamic_shifting=dev),
    )


FAMILIES = {
    "sdxl": sdxl_pipeline,
    "sd3": sd3_pipeline,
    "flux": flux_pipeline,
    "schnell": lambda folder: flux_pipeline(folder, dev=False),
}


def family_pipeline(family: str, folder: Path) -> Any:
    """A whole pipeline of a family; `folder` receives the tokenizer's files."""
    pipe = FAMILIES[family](folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
