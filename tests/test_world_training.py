"""The training of the world on a few images: every part, resumed, and the whole recipe."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from experiments.world import images, training
from experiments.world.autoencoder import (
    build_autoencoder,
    decode,
    encode,
    normalise_latents,
    psnr,
)
from experiments.world.denoiser import build_unet, focus_weight, train_denoiser
from experiments.world.images import draw_images
from experiments.world.recipe import Recipe, train_world
from experiments.world.scorer import save_scorer, train_scorer
from experiments.world.text import (
    MAX_TOKENS,
    build_text_encoder,
    tokenize,
    train_text_encoder,
    train_tokenizer,
)
from experiments.world.training import TimeIsUp, train_networks
from weights2weights.errors import W2WError
from weights2weights.worlds.scorers import Scorer, ScorerNetwork, as_signal


def _regression(folder, minutes=float("inf")):
    torch.manual_seed(0)
    layer = nn.Linear(4, 1)
    target = torch.tensor([[1.0, -2.0, 3.0, 0.5]])

    def loss_of(generator):
        x = torch.randn(16, 4, generator=generator)
        return (layer(x) - x @ target.T).square().mean()

    networks = nn.ModuleDict({"layer": layer})
    return train_networks(
        networks,
        loss_of,
        folder=folder,
        steps=300,
        learning_rate=0.1,
        batch=16,
        minutes=minutes,
    )


def test_training_learns_and_an_interrupted_run_ends_equal(tmp_path, monkeypatch):
    whole = _regression(tmp_path / "whole")
    learned = whole["layer"].weight
    torch.testing.assert_close(learned, torch.tensor([[1.0, -2.0, 3.0, 0.5]]), atol=0.05, rtol=0)

    calls = 0
    broken = None
    while broken is None:
        with suppress(TimeIsUp):
            broken = _regression(tmp_path / "broken", minutes=0.0004)
        calls += 1
        assert calls < 300
    assert calls > 2
    torch.testing.assert_close(broken["layer"].weight, learned, atol=0, rtol=0)


def test_a_kill_while_a_result_is_written_leaves_no_file(tmp_path, monkeypatch):
    def killed(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        training.save_atomically(torch.ones(2), tmp_path / "result.pt")
    assert not (tmp_path / "result.pt").exists()
    monkeypatch.undo()
    training.save_atomically(torch.ones(2), tmp_path / "result.pt")
    assert torch.equal(torch.load(tmp_path / "result.pt", weights_only=True), torch.ones(2))


def test_normalising_latents_changes_no_image():
    torch.manual_seed(0)
    vae = build_autoencoder(32, (8, 8)).eval()
    images = draw_images("people", 3, 6, size=32).images
    signal = as_signal(images, "cpu")
    with torch.no_grad():
        before = vae.encode(signal).latent_dist
        seen = vae.decode(before.mean).sample
        spread = before.std / before.mean.std((0, 2, 3), keepdim=True)
        normalise_latents(vae, before.mean)
        after = vae.encode(signal).latent_dist
        torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(8), atol=1e-4, rtol=0)
        torch.testing.assert_close(vae.decode(after.mean).sample, seen, atol=1e-4, rtol=0)
        torch.testing.assert_close(after.std, spread, rtol=1e-3, atol=0)


def test_encode_and_decode_keep_order_and_range():
    torch.manual_seed(0)
    vae = build_autoencoder(32, (8, 8)).eval()
    images = draw_images("people", 3, 5, size=32).images
    latents = encode(vae, images, "cpu", batch=2)
    assert latents.shape == (5, 8, 16, 16)
    seen = decode(vae, latents, "cpu", batch=2)
    assert seen.shape == images.shape
    assert seen.dtype == np.uint8


def test_psnr_of_known_errors():
    images = np.zeros((1, 4, 4, 3), np.uint8)
    assert psnr(images, images + 51) == pytest.approx(20 * np.log10(5), abs=1e-9)


def test_tokenizer_knows_common_words_and_spells_the_others(tmp_path):
    captions = draw_images("people", 3, 60, captions=4, size=16).captions
    tokenizer = train_tokenizer([text for texts in captions for text in texts], tmp_path)
    assert tokenizer.tokenize("a bald man") == ["a</w>", "bald</w>", "man</w>"]
    assert len(tokenizer.tokenize("zebra")) > 1
    tokens = tokenize(tokenizer, ["a photo of a man", "man " * 100])
    assert tokens.shape == (2, MAX_TOKENS)
    assert tokens[0, 0] == tokenizer.bos_token_id
    assert (tokens[:, -1] == tokenizer.eos_token_id).all()


def test_a_scorer_learns_skin_from_a_few_people_and_survives_saving(tmp_path):
    drawn = draw_images("people", 3, 40, images=2, size=64)
    views = drawn.images.reshape(40, 2, 64, 64, 3)
    names = ("Dark_Skin", "Male")
    columns = [13, 0]
    scorer = train_scorer(
        views,
        drawn.labels[::2][:, columns],
        names,
        tmp_path / "run",
        steps=30,
        subjects_per_batch=8,
    )
    seen = scorer.attributes(drawn.images)[:, 0] > 0.5
    assert (seen.numpy() == drawn.labels[:, 13]).mean() > 0.85
    norms = scorer.identity(drawn.images).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(80))
    save_scorer(scorer, tmp_path / "scorer")
    loaded = Scorer.load(tmp_path / "scorer")
    assert loaded.label_names == names
    torch.testing.assert_close(
        loaded.attributes(drawn.images), scorer.attributes(drawn.images), atol=5e-3, rtol=0
    )
    with pytest.raises(W2WError, match="does not hold a scorer"):
        Scorer.load(tmp_path)


def test_scorers_take_images_of_any_size():
    network = ScorerNetwork(3)
    for size in (64, 96, 128):
        embedding, logits = network(torch.zeros(2, 3, size, size))
        assert embedding.shape == (2, 128)
        assert logits.shape == (2, 3)


def test_a_text_encoder_learns_to_read_captions(tmp_path):
    rng = np.random.default_rng(0)
    hats = rng.random(64) < 0.5
    captions = [["a man with hat" if hat else "a man", "hat" if hat else "man"] for hat in hats]
    tokenizer = train_tokenizer([text for texts in captions for text in texts], tmp_path / "words")
    tokens = torch.stack([tokenize(tokenizer, texts) for texts in captions])
    latents = torch.from_numpy(hats).float()[:, None, None, None].expand(-1, 4, 8, 8)
    encoder = train_text_encoder(
        tokenizer,
        tokens,
        torch.from_numpy(hats)[:, None],
        latents,
        tmp_path / "text",
        steps=60,
        batch=16,
    )
    with torch.no_grad():
        states = encoder(tokenize(tokenizer, ["a man with hat", "a man", "hat", "man"]))[0]
    said, same = states[[0, 2], -1], states[[1, 3], -1]
    between = (said[:, None] - same[None]).norm(dim=-1).min()
    within = max((said[0] - said[1]).norm(), (same[0] - same[1]).norm())
    assert between > 2 * within, "the end of a caption encodes hats and little else"


def test_a_denoiser_continues_from_a_given_one(tmp_path):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a man with hat", "a woman"], tmp_path / "words")
    tokens = tokenize(tokenizer, ["a man with hat", "a woman"])[:, None]
    empty, latents = tokenize(tokenizer, [""]), torch.randn(2, 4, 16, 16)
    given = build_unet(16, 4)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    trained = train_denoiser(
        latents,
        tokens,
        empty,
        build_text_encoder(tokenizer),
        (0.25, 0.25, 0.75, 0.75),
        tmp_path / "run",
        unet=given,
        steps=2,
        batch=2,
        learning_rate=1e-4,
    )
    moved = [
        (value - before[name]).abs().max().item()
        for name, value in trained["unet"].state_dict().items()
    ]
    assert 0 < max(moved) < 1e-3


def test_errors_in_the_focus_count_four_times_and_the_mean_stays():
    weight = focus_weight((0.25, 0.5, 0.75, 1.0), torch.Size([8, 16]))
    inside, outside = weight[4:, 4:12], weight[:4]
    assert weight.shape == (8, 16)
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
    assert (inside == 4 * outside[0, 0]).all() and (weight == inside[0, 0]).sum() == inside.numel()


def test_populations_share_nobody_and_rows_belong_together():
    drawn = draw_images("people", 3, 4, images=2, captions=2, size=32)
    assert drawn.images.shape == (8, 32, 32, 3)
    assert drawn.subjects.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [len(texts) for texts in drawn.captions] == [2] * 8
    np.testing.assert_array_equal(drawn.labels[0], drawn.labels[1])
    other = draw_images("people", 4, 4, images=2, size=32)
    assert not np.array_equal(drawn.images, other.images)


def test_an_interrupted_drawing_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_SUBJECTS_PER_CHUNK", 3)
    whole = draw_images("people", 3, 7, captions=1, size=16, folder=tmp_path, workers=1)
    chunks = sorted(tmp_path.glob("*.npz"))
    assert len(chunks) == 3
    chunks[1].unlink()
    again = draw_images("people", 3, 7, captions=1, size=16, folder=tmp_path, workers=1)
    np.testing.assert_array_equal(whole.images, again.images)
    assert whole.captions == again.captions
    assert again.subjects.tolist() == list(range(7))


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


def test_the_recipe_makes_a_pipeline_and_continues_from_it(tmp_path):
    from diffusers import StableDiffusionPipeline

    with pytest.raises(TimeIsUp):
        train_world(tmp_path / "work", TINY, minutes=0.0, log=lambda line: None)
    lines = []
    work = train_world(tmp_path / "work", TINY, log=lines.append)
    assert "16 images of 32 pixels encoded" in lines
    pipeline = StableDiffusionPipeline.from_pretrained(work / "base")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a photo of a man", num_inference_steps=2).images[0].size == (32, 32)
    assert len(Scorer.load(work / "scorer-people").label_names) == 33
    assert len(Scorer.load(work / "scorer-dogs").label_names) == 22

    start = str(work / "base")
    more = train_world(tmp_path / "more", TINY, start=start, log=lambda line: None)
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
