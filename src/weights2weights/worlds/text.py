"""The world's words: a byte-pair tokenizer learned from captions and a small CLIP text model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

MAX_TOKENS = 64
_START, _END = "<|startoftext|>", "<|endoftext|>"
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-'!"


def train_tokenizer(captions: Iterable[str], folder: Path) -> Any:
    """Learn a CLIP tokenizer in which every common word is one token, and save it in `folder`.

    Letters, digits and simple punctuation are always there, so any English prompt has tokens.
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
    """Make an untrained CLIP text model for a tokenizer."""
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
    """Give token ids (n, MAX_TOKENS), padded and cut as diffusers pipelines do."""
    return tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=MAX_TOKENS,
        return_tensors="pt",
    ).input_ids
