"""CLIP scores by a random CLIP."""

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from weights2weights.errors import W2WError
from weights2weights.metrics.alignment import ClipAlignment, clip_score


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of images of 24 px and texts of 32 tokens, as `save_pretrained` writes it."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    end = 2 * len(tiny.CHARACTERS) + 1
    config = CLIPConfig(
        text_config={
            **shared,
            "num_hidden_layers": 1,
            "vocab_size": end + 1,
            "max_position_embeddings": tiny.TEXT_LENGTH,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={**shared, "num_hidden_layers": 1, "image_size": 24, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    tiny.tokenizer(folder).save_pretrained(folder)
    crop = {"height": 24, "width": 24}
    CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size=crop).save_pretrained(folder)
    return folder


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 40, 32, 3), dtype=np.uint8)


def test_clip_score_is_a_hundred_cosines_and_never_below_zero():
    images = torch.tensor([[3.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    torch.testing.assert_close(clip_score(images, texts), torch.tensor([100.0, 50 * 2**0.5, 0.0]))


def test_alignment_equals_that_of_transformers(clip_folder, images):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    texts = ["a bald person", "a hat", "a bald person"]
    model = CLIPModel.from_pretrained(clip_folder)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(texts, padding=True, return_tensors="pt")
    pixels = processor(list(images), return_tensors="pt").pixel_values
    with torch.no_grad():
        output = model(pixel_values=pixels, **tokens)
    expected = 100 * (output.image_embeds * output.text_embeds).sum(-1).clamp_min(0)

    judge = ClipAlignment(str(clip_folder))
    assert judge.name.startswith("CLIP score (")
    torch.testing.assert_close(judge.alignment(images, texts), expected, atol=1e-4, rtol=0)


def test_texts_alone_are_exact_and_long_ones_are_truncated(clip_folder):
    from transformers import CLIPModel, CLIPTokenizer

    texts = ["a hat", "bald"]
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(clip_folder).get_text_features(**tokens).pooler_output
    judge = ClipAlignment(str(clip_folder))
    torch.testing.assert_close(judge.embed_texts(texts), expected)
    assert judge.embed_texts(["hat " * 100]).shape == (1, 12)


def test_a_missing_clip_and_missing_texts_are_errors(clip_folder, images, tmp_path):
    with pytest.raises(W2WError, match="CLIP model"):
        ClipAlignment(str(tmp_path / "nothing"))
    with pytest.raises(W2WError, match="1 texts for 3 images"):
        ClipAlignment(str(clip_folder)).alignment(images, ["a hat"])
