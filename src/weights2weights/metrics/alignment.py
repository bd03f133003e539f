"""Does an image show what a text asks for? The CLIP score, for photos.

100 times the cosine of the image's and the text's embeddings, at least 0 (Hessel et al. 2021,
arXiv:2104.08718). An edit is measured by the score of the image after it minus that of the image
before, with the caption of the edit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import InputError

CLIP = "openai/clip-vit-large-patch14"
"""The model that most papers measure with; its code and weights are under the MIT licence."""

_BATCH = 32


def clip_score(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
    """Return 100 · max(cos, 0) of the embeddings of images and texts, pair by pair."""
    return 100 * F.cosine_similarity(images, texts, dim=-1).clamp_min(0)


class ClipAlignment:
    """The CLIP score by any CLIP model that transformers can load.

    Attributes:
        name: "CLIP score (…)", for reports.
    """

    def __init__(self, model: str = CLIP, device: str = "cpu"):
        """Load a CLIP model from a folder or, downloaded once, from the hub.

        Raises:
            InputError: there is no such model, or it is not a CLIP model.
        """
        # torchvision's resizing would give slightly other scores wherever it is installed
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        try:
            network: Any = CLIPModel.from_pretrained(model, use_safetensors=True)
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(model)
            self._processor: Any = CLIPImageProcessorPil.from_pretrained(model)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            message = f"cannot load CLIP model {model!r} ({reason}); expected one such as {CLIP}"
            raise InputError(message) from error
        self._network = network.to(device).eval().requires_grad_(False)
        self.name = f"CLIP score ({model})"

    def alignment(
        self, images: UInt8[np.ndarray, "n h w 3"], texts: Sequence[str]
    ) -> Float[Tensor, " n"]:
        """Return the CLIP score of each image with its own text.

        Raises:
            InputError: the numbers of texts and images differ, or are 0.
        """
        if len(images) != len(texts) or not len(texts):
            raise InputError(f"{len(texts)} texts for {len(images)} images; expected one each")
        distinct = list(dict.fromkeys(texts))
        of_texts = self.embed_texts(distinct)[[distinct.index(text) for text in texts]]
        return clip_score(self.embed_images(images), of_texts)

    @torch.no_grad()
    def embed_images(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Return CLIP's embeddings of images, not normalised."""
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = self._processor(list(images[start : start + _BATCH]), return_tensors="pt")
            batch = batch.to(self._network.device)
            parts.append(self._network.get_image_features(**batch).pooler_output.cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        """Return CLIP's embeddings of texts, not normalised; long texts are truncated."""
        length = self._network.config.text_config.max_position_embeddings
        options = {"padding": "max_length", "truncation": True, "max_length": length}
        tokens = self._tokenizer(list(texts), **options, return_tensors="pt")
        features = self._network.get_text_features(**tokens.to(self._network.device))
        return features.pooler_output.cpu()
