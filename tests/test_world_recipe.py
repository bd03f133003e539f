"""The whole recipe on a handful of images: every stage, resumed, and on from an earlier base."""

import pytest
import torch

from experiments.world.recipe import Recipe, TimeIsUp, train_world
from weights2weights.worlds.scorers import Scorer

TINY = Recipe(
    size=32,
    subjects=8,
    captions=2,
    autoencoder_steps=2,
    autoencoder_batch=4,
    text_steps=2,
    denoiser_steps=2,
    denoiser_batch=2,
    scorer_subjects=4,
    scorer_steps=2,
)


def test_every_stage_from_images_to_a_pipeline_and_on_from_it(tmp_path):
    from diffusers import StableDiffusionPipeline

    with pytest.raises(TimeIsUp):
        train_world("people", tmp_path / "work", TINY, minutes=0.0, say=lambda line: None)
    told = []
    work = train_world("people", tmp_path / "work", TINY, say=told.append)
    assert told[0] == "8 images of 32 pixels"
    pipeline = StableDiffusionPipeline.from_pretrained(work / "base")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a photo of a man", num_inference_steps=2).images[0].size == (32, 32)
    assert len(Scorer.load(work / "scorer").label_names) == 33

    more = train_world(
        "people", tmp_path / "more", TINY, start=str(work / "base"), say=lambda line: None
    )
    again = StableDiffusionPipeline.from_pretrained(more / "base")
    before, after = pipeline.vae.state_dict(), again.vae.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert again.tokenizer.get_vocab() == pipeline.tokenizer.get_vocab()
    assert any(
        not torch.equal(value, pipeline.unet.state_dict()[name])
        for name, value in again.unet.state_dict().items()
    )
    for config in (more / "base").glob("*/config.json"):
        assert str(tmp_path) not in config.read_text()
