"""Does an image show what a text asks for? The CLIP score, and its stand-in in drawn worlds.

The CLIP score (Hessel et al. 2021, arXiv:2104.08718) is 100 times the cosine of an image's and a
text's embeddings, not below 0. An edit is judged by the gain: the score of the image after it
minus that of the image before, with the caption of the edit.

CLIP knows nothing of drawn worlds, whose attribute reader stands in: the gain is then the change
of the logit with which the reader sees the attribute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..errors import InputError
from .protocols import AttributeReader, TextAlignment

CLIP = "openai/clip-vit-large-patch14"
"""The model that most papers measure with; its code and weights are under the MIT licence."""

_AT_ONCE = 32
_SUREST = 1e-6  # probabilities nearer to 0 or 1 are read as this near: logits within ±13.8


def clip_score(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> Float[Tensor, " n"]:
    """Return 100 · max(cos, 0) of the embeddings of images and texts, pair by pair."""
    return 100 * F.cosine_similarity(images, texts, dim=-1).clamp_min(0)


def alignment_gain(
    judge: TextAlignment,
    before: UInt8[np.ndarray, "n h w 3"],
    after: UInt8[np.ndarray, "n h w 3"],
    texts: Sequence[str],
) -> Float[Tensor, " n"]:
    """Return how much better each image agrees with its text after an edit than before."""
    return judge.alignment(after, texts) - judge.alignment(before, texts)


def logit(probabilities: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return log(p / (1 - p)) in float32, within ±13.8."""
    return torch.logit(probabilities.double(), eps=_SUREST).float()


@dataclass(frozen=True)
class ReaderAlignment:
    """The stand-in for CLIP in a drawn world: the logit of an attribute, read off the image.

    Attributes:
        reader: such as `worlds.scorers.Scorer`.
    """

    reader: AttributeReader
    name: str = "reader logit"

    def alignment(
        self, images: UInt8[np.ndarray, "n h w 3"], texts: Sequence[str]
    ) -> Float[Tensor, " n"]:
        """Return the logit of one label for each image.

        Args:
            images: images.
            texts: a label's name for each, with "-" before it where its absence is asked for.

        Raises:
            W2WError: another number of labels than of images, or no such label.
        """
        _check_texts(images, texts)
        names = list(self.reader.label_names)
        wanted = [text.removeprefix("-") for text in texts]
        if unknown := [name for name in wanted if name not in names]:
            raise InputError(f"{unknown[0]!r} is none of the labels ({', '.join(names)})")
        sign = torch.tensor([-1.0 if text.startswith("-") else 1.0 for text in texts])
        columns = torch.tensor([names.index(name) for name in wanted])
        seen = self.reader.attributes(images).gather(1, columns[:, None])[:, 0]
        return sign * logit(seen)


class ClipAlignment:
    """The CLIP score, with a model that transformers can load.

    Attributes:
        name: "CLIP score (…)", for reports.
    """

    def __init__(self, model: str = CLIP, device: str = "cpu"):
        """Load a model.

        Args:
            model: folder or hub id of a CLIP model; downloaded once.
            device: "cpu", "cuda", "mps".

        Raises:
            W2WError: there is no such model, or it is no CLIP.
        """
        from transformers import CLIPModel, CLIPTokenizer

        try:
            network: Any = CLIPModel.from_pretrained(model, use_safetensors=True)
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"CLIP model {model!r} cannot be read ({reason}); expected a folder or hub id such"
                f" as {CLIP}"
            ) from error
        self._network = network.to(device).eval().requires_grad_(False)
        self._device = device
        self.name = f"CLIP score ({model})"

    def alignment(
        self, images: UInt8[np.ndarray, "n h w 3"], texts: Sequence[str]
    ) -> Float[Tensor, " n"]:
        """Return the CLIP score of each image with its own text.

        Raises:
            W2WError: another number of texts than of images.
        """
        _check_texts(images, texts)
        different = list(dict.fromkeys(texts))
        of_texts = self.embed_texts(different)[[different.index(text) for text in texts]]
        return clip_score(self.embed_images(images), of_texts)

    @torch.no_grad()
    def embed_images(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Return CLIP's embeddings of images, not normalised."""
        parts = []
        for start in range(0, len(images), _AT_ONCE):
            signal = self._signal(images[start : start + _AT_ONCE])
            pooled = self._network.vision_model(pixel_values=signal).pooler_output
            parts.append(self._network.visual_projection(pooled).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        """Return CLIP's embeddings of texts, not normalised; what is too long is cut off."""
        length = self._network.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(texts), _AT_ONCE):
            tokens = self._tokenizer(
                list(texts[start : start + _AT_ONCE]),
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            ).to(self._device)
            pooled = self._network.text_model(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
            ).pooler_output
            parts.append(self._network.text_projection(pooled).cpu())
        return torch.cat(parts)

    def _signal(self, images: np.ndarray) -> Tensor:
        """Prepare images as CLIP does: the middle square at its size, standardised."""
        from PIL import Image

        side = self._network.config.vision_config.image_size
        height, width = images.shape[1:3]
        scale = side / min(height, width)
        tall, wide = max(side, int(height * scale)), max(side, int(width * scale))
        top, left = (tall - side) // 2, (wide - side) // 2
        squares = [
            Image.fromarray(image)
            .resize((wide, tall), Image.Resampling.BICUBIC)
            .crop((left, top, left + side, top + side))
            for image in images
        ]
        pixels = torch.from_numpy(np.stack([np.asarray(square) for square in squares]))
        signal = pixels.to(self._device).permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (_MEAN, _STD)
        )
        return (signal - mean) / std


# of the images that CLIP was trained on, per colour
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def _check_texts(images: np.ndarray, texts: Sequence[str]) -> None:
    if len(images) != len(texts) or not len(texts):
        raise InputError(
            f"{len(texts)} texts for {len(images)} images: expected one for each image"
        )
