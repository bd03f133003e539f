"""Stable Diffusion 1 and 2: one CLIP text encoder, a VAE, and a UNet with cross-attention."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ._conditions import Conditions
from ._diffusion import Diffusion
from ._family import Family

_log = logging.getLogger(__name__)


class UNetFamily(Family):
    """What Stable Diffusion 1, 2 and XL share: a UNet and denoising diffusion."""

    @property
    def width(self) -> int:
        """Width of the activations at the UNet's first level."""
        return self.denoiser.config.block_out_channels[0]

    def fault(self, settings: dict[str, Any]) -> str:
        """Say why parts and the scheduler's settings cannot be a base; nothing if they can."""
        prediction = settings.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            return f"predicts {prediction!r}; expected epsilon or v_prediction"
        return super().fault(settings)

    def process(self, settings: dict[str, Any]) -> Diffusion:
        """Return the forward process that the scheduler's settings describe."""
        return Diffusion.of(settings)


class StableDiffusion(UNetFamily):
    """Stable Diffusion 1 and 2; see `Family`."""

    pipeline = "StableDiffusionPipeline"
    classes: ClassVar = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
    }
    large = ("unet",)
    preset = "paper"
    steps = 20  # the paper takes 50; from 20 on the difference is hardly visible
    guidance = 3.0  # the paper's 2.5 to 4

    def widths(self) -> list[tuple[str, int, int]]:
        """Return (what, of the denoiser, of the text encoders) that must be equal."""
        text = self.parts["text_encoder"].config.hidden_size
        return [("text width", self.denoiser.config.cross_attention_dim, text)]

    def encode(self, prompts: Sequence[str], device: Any) -> Conditions:
        """Return the last hidden states; what is cut off gets a line in the log."""
        tokenizer, length = self.parts["tokenizer"], self.parts["tokenizer"].model_max_length
        for prompt in prompts:
            tokens = tokenizer(prompt).input_ids
            if len(tokens) > length:
                kept = tokenizer.decode(tokens[:length], skip_special_tokens=True)
                _log.warning(
                    "prompt of %d tokens, this base reads %d; kept: %r", len(tokens), length, kept
                )
        padded = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        hidden = self.parts["text_encoder"](padded.input_ids.to(device))[0]
        return Conditions({"encoder_hidden_states": hidden})

    def predict(
        self, noisy: Tensor, times: Tensor, conditions: Conditions, guidance: float
    ) -> Tensor:
        """Run the UNet on noisy latents."""
        return self.denoiser(noisy, times, **conditions.tensors, return_dict=False)[0]
