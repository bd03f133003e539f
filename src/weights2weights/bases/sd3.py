"""Stable Diffusion 3 and 3.5: two CLIP text encoders and T5, flow matching, a transformer."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ._conditions import Conditions
from ._diffusion import Flow
from ._family import Family


class StableDiffusion3(Family):
    """Stable Diffusion 3; see `Family`."""

    pipeline = "StableDiffusion3Pipeline"
    classes: ClassVar = {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5Tokenizer",
    }
    large = ("transformer", "text_encoder_3")
    preset = "sd3"
    steps = 28
    guidance = 7.0  # the pipeline's, as are the steps

    @property
    def patch(self) -> int:
        """Side of a token in latent pixels."""
        return self.denoiser.config.patch_size

    def widths(self) -> list[tuple[str, int, int]]:
        """Return (what, of the denoiser, of the text encoders) that must be equal."""
        config, long = self.denoiser.config, self.parts["text_encoder_3"].config.d_model
        pooled = (
            self.parts[name].config.projection_dim for name in ("text_encoder", "text_encoder_2")
        )
        return [
            ("text width", config.joint_attention_dim, long),
            ("pooled text width", config.pooled_projection_dim, sum(pooled)),
        ]

    def process(self, settings: dict[str, Any]) -> Flow:
        """Return the forward process that the scheduler's settings describe."""
        return Flow.of(settings, sd3=True)

    def encode(self, prompts: Sequence[str], device: Any) -> Conditions:
        """Return the hidden states of all encoders and the pooled ones of CLIP's."""
        hidden, _, pooled, _ = self.encoded_by_pipeline(
            prompts, prompt_3=None, device=device, do_classifier_free_guidance=False
        )
        return Conditions({"encoder_hidden_states": hidden, "pooled_projections": pooled})

    def predict(
        self, noisy: Tensor, times: Tensor, conditions: Conditions, guidance: float
    ) -> Tensor:
        """Run the transformer on noisy latents."""
        inputs = {"timestep": times, **conditions.tensors}
        return self.denoiser(noisy, **inputs, return_dict=False)[0]
