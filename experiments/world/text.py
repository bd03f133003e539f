"""The world's text model: a byte-pair tokenizer learned from captions, and a small CLIP encoder.

The encoder is pretrained, as CLIP's is, before the denoiser uses it: from a caption it predicts the
labels of the person and a coarse view of the image. Trained with the denoiser alone, it still
ignored words for small features (glasses, freckles) after 230,000 images, since they change so few
pixels.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .training import train_networks

MAX_TOKENS = 77  # as in CLIP; the longest captions take 73
_START, _END = "<|startoftext|>", "<|endoftext|>"
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-'!"


def train_tokenizer(captions: Iterable[str], folder: Path) -> Any:
    """Learn a CLIP tokenizer in which every common word is one token, and save it in `folder`.

    Letters, digits and simple punctuation are always included, so any English prompt has tokens.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learned = Tokenizer(models.BPE(unk_token=_END, end_of_word_suffix="</w>"))
    learned.normalizer = normalizers.Lowercase()
    words = Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
    learned.pre_tokenizer = pre_tokenizers.Split(words, "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[_START, _END],
        end_of_word_suffix="</w>",
        initial_alphabet=list(_CHARACTERS),
        show_progress=False,
    )
    learned.train_from_iterator(captions, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_file, merges_file = learned.model.save(str(folder))
    vocabulary = json.loads(Path(vocabulary_file).read_text())
    for character in _CHARACTERS:
        vocabulary.setdefault(character, len(vocabulary))
        vocabulary.setdefault(character + "</w>", len(vocabulary))
    Path(vocabulary_file).write_text(json.dumps(vocabulary))
    tokenizer = CLIPTokenizer(
        vocab=vocabulary_file, merges=merges_file, model_max_length=MAX_TOKENS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_text_encoder(tokenizer: Any, width: int = 128, layers: int = 2) -> Any:
    """Return an untrained CLIP text model for a tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokenize(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Return token ids (n, MAX_TOKENS), padded and truncated as diffusers pipelines do."""
    return tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=MAX_TOKENS,
        return_tensors="pt",
    ).input_ids


def train_text_encoder(
    tokenizer: Any,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    latents: torch.Tensor,
    folder: Path,
    *,
    device: str = "cpu",
    steps: int = 4000,
    batch: int = 128,
    learning_rate: float = 2e-3,
    minutes: float = float("inf"),
) -> Any:
    """Train a text model to predict what an image shows from any of its captions.

    One linear layer reads the states from the caption's end on, which attend to all of it. The loss
    is the cross entropy of the labels plus the squared error of the latents averaged over a 4 × 4
    grid.

    Args:
        tokenizer: the tokenizer of the captions.
        tokens: token ids (n, captions, MAX_TOKENS).
        labels: bool (n, labels), of the person in each image.
        latents: (n, c, h, w), with mean 0 and std 1.
        folder: for checkpoints.
        device: "cpu" or "cuda".
        steps: number of steps.
        batch: captions per step.
        learning_rate: peak learning rate.
        minutes: stop with a checkpoint after this time.

    Raises:
        TimeIsUp: after `minutes`; the next call continues.
    """
    torch.manual_seed(0)
    text_encoder = build_text_encoder(tokenizer).to(device)
    coarse = F.adaptive_avg_pool2d(latents.float(), 4).flatten(1).to(device)
    truth, tokens = labels.float().to(device), tokens.to(device)
    reader = nn.Linear(text_encoder.config.hidden_size, truth.shape[1] + coarse.shape[1]).to(device)

    def loss_of(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(tokens), (batch,), generator=generator, device=device)
        which = torch.randint(tokens.shape[1], (batch,), generator=generator, device=device)
        prompts = tokens[chosen, which].long()
        with torch.autocast(device, torch.bfloat16):
            predicted = reader(text_encoder(prompts)[0]).float()
        logits, view = predicted.split([truth.shape[1], coarse.shape[1]], dim=-1)
        at_end = (prompts == tokenizer.eos_token_id).float()
        of_labels = F.binary_cross_entropy_with_logits(
            logits, truth[chosen, None].expand_as(logits), reduction="none"
        ).mean(-1)
        of_view = (view - coarse[chosen, None]).square().mean(-1)
        return ((of_labels + 0.2 * of_view) * at_end).sum() / at_end.sum()

    return train_networks(
        nn.ModuleDict({"text_encoder": text_encoder, "reader": reader}),
        loss_of,
        folder=folder,
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        minutes=minutes,
    )["text_encoder"]
