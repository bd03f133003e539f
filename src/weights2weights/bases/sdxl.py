"""Stable Diffusion XL: two CLIP text encoders, and a UNet that also reads the size of the image."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._conditions import Conditions
from .sd import UNetFamily


class StableDiffusionXL(UNetFamily):
    """Stable Diffusion XL; see `Family`."""

    pipeline = "StableDiffusionXLPipeline"
    classes: ClassVar = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
    }
    large = ("unet",)
    preset = "sdxl"
    steps = 30
    guidance = 5.0  # the pipeline's

    def widths(self) -> list[tuple[str, int, int]]:
        """Return (what, of the denoiser, of the text encoders) that must be equal."""
        text = (self.parts[name].config.hidden_size for name in ("text_encoder", "text_encoder_2"))
        return [("text width", self.denoiser.config.cross_attention_dim, sum(text))]

    def encode(self, prompts: Sequence[str], device: Any) -> Conditions:
        """Return the last hidden states but one of both encoders, and the pooled second."""
        hidden, _, pooled, _ = self.encoded_by_pipeline(
            prompts, device=device, do_classifier_free_guidance=False
        )
        return Conditions({"encoder_hidden_states": hidden, "text_embeds": pooled})

    def negative(self, conditions: Conditions, prompt: str) -> Conditions:
        """Return zeros without a negative prompt, as the model was trained."""
        if prompt:
            return conditions
        return Conditions({k: torch.zeros_like(x) for k, x in conditions.tensors.items()})

    def predict(
        self, noisy: Tensor, times: Tensor, conditions: Conditions, guidance: float
    ) -> Tensor:
        """Run the UNet on noisy latents of images that were neither resized nor cropped."""
        height, width = (side * self.factor for side in noisy.shape[2:])
        size = torch.tensor([height, width, 0, 0, height, width], device=noisy.device)
        text = conditions.tensors
        added = {"text_embeds": text["text_embeds"], "time_ids": size.float().expand(len(noisy), 6)}
        return self.denoiser(
            noisy,
            times,
            text["encoder_hidden_states"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
