"""FLUX.1 dev and schnell: CLIP and T5, flow matching, a transformer over packed latents."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._conditions import Conditions
from ._diffusion import Flow
from ._family import Family


class Flux(Family):
    """FLUX.1; see `Family`. Dev was distilled with guidance as an input, schnell needs none."""

    pipeline = "FluxPipeline"
    classes: ClassVar = {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
    }
    large = ("transformer", "text_encoder_2")
    preset = "flux"
    guidance = 3.5  # of the pipeline, and of diffusers' training script
    reads_guidance = True

    @property
    def side(self) -> int:
        """Height and width of a latent: the pipeline's, as the transformer's settings lack it."""
        return 128

    @property
    def patch(self) -> int:
        """Side of a token in latent pixels."""
        return 2

    @property
    def steps(self) -> int:
        """Steps of sampling: the pipeline's 28 for dev, 4 for schnell."""
        return 28 if self._guided else 4

    @property
    def channels(self) -> int:
        """Number of channels of a latent; a token packs 2 × 2 pixels."""
        return self.denoiser.config.in_channels // self.patch**2

    def widths(self) -> list[tuple[str, int, int]]:
        """Return (what, of the denoiser, of the text encoders) that must be equal."""
        config, parts = self.denoiser.config, self.parts
        short, long = parts["text_encoder"].config, parts["text_encoder_2"].config
        return [
            ("text width", config.joint_attention_dim, long.d_model),
            ("pooled text width", config.pooled_projection_dim, short.hidden_size),
        ]

    def process(self, settings: dict[str, Any]) -> Flow:
        """Return the forward process that the scheduler's settings describe."""
        return Flow.of(settings)

    def encode(self, prompts: Sequence[str], device: Any) -> Conditions:
        """Return the hidden states of T5 and the pooled one of CLIP."""
        hidden, pooled, _ = self.encoded_by_pipeline(prompts, device=device)
        return Conditions({"encoder_hidden_states": hidden, "pooled_projections": pooled})

    def predict(
        self, noisy: Tensor, times: Tensor, conditions: Conditions, guidance: float
    ) -> Tensor:
        """Run the transformer on packed latents."""
        from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

        (n, _, height, width), text = noisy.shape, conditions.tensors
        place: Any = (noisy.device, noisy.dtype)
        predicted = self.denoiser(
            FluxPipeline._pack_latents(noisy, *noisy.shape),
            timestep=times / 1000,
            guidance=noisy.new_full((n,), guidance) if self._guided else None,
            txt_ids=torch.zeros(text["encoder_hidden_states"].shape[1], 3).to(*place),
            img_ids=FluxPipeline._prepare_latent_image_ids(n, height // 2, width // 2, *place),
            return_dict=False,
            **text,
        )[0]
        return FluxPipeline._unpack_latents(predicted, height, width, vae_scale_factor=1)

    @property
    def _guided(self) -> bool:
        return self.denoiser.config.guidance_embeds
