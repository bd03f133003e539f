"""The recipe's parts on a few images: resuming, folded latents, words, scorers."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments.world import recipe, training
from experiments.world.autoencoder import (
    build_autoencoder,
    decode,
    encode,
    normalise_latents,
    psnr,
)
from experiments.world.denoiser import build_unet, focus_weight, train_denoiser
from experiments.world.images import draw_images
from experiments.world.scorer import train_scorer
from experiments.world.text import (
    MAX_TOKENS,
    build_text_encoder,
    tokenize,
    train_text_encoder,
    train_tokenizer,
)
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
    return training.train_networks(
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
    assert whole is not None
    learned = whole["layer"].weight
    torch.testing.assert_close(learned, torch.tensor([[1.0, -2.0, 3.0, 0.5]]), atol=0.05, rtol=0)

    calls = 0
    while (broken := _regression(tmp_path / "broken", minutes=0.0004)) is None:
        calls += 1
        assert calls < 300
    assert calls > 1
    torch.testing.assert_close(broken["layer"].weight, learned, atol=0, rtol=0)


def test_a_kill_while_a_result_is_written_leaves_none(tmp_path, monkeypatch):
    def killed(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    monkeypatch.setattr(recipe, "encode", lambda vae, images, device: torch.ones(2))
    with pytest.raises(KeyboardInterrupt):
        recipe._latents(None, np.zeros(2), tmp_path, "cpu")
    monkeypatch.undo()
    monkeypatch.setattr(recipe, "encode", lambda vae, images, device: torch.ones(2))
    for _ in range(2):
        assert torch.equal(
            recipe._latents(None, np.zeros(2), tmp_path, "cpu"), torch.ones(2).half()
        )


def test_folding_the_latents_spread_changes_no_image():
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
        torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(vae.decode(after.mean).sample, seen, atol=1e-4, rtol=0)
        torch.testing.assert_close(after.std, spread, rtol=1e-3, atol=0)


def test_encode_and_decode_keep_order_and_range():
    torch.manual_seed(0)
    vae = build_autoencoder(32, (8, 8)).eval()
    images = draw_images("people", 3, 5, size=32).images
    latents = encode(vae, images, "cpu", batch=2)
    assert latents.shape == (5, 4, 16, 16)
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
    assert scorer is not None
    seen = scorer.attributes(drawn.images)[:, 0] > 0.5
    assert (seen.numpy() == drawn.labels[:, 13]).mean() > 0.85
    norms = scorer.identity(drawn.images).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(80))
    scorer.save(tmp_path / "scorer")
    loaded = Scorer.load(tmp_path / "scorer")
    assert loaded.label_names == names
    torch.testing.assert_close(
        loaded.attributes(drawn.images), scorer.attributes(drawn.images), atol=5e-3, rtol=0
    )
    with pytest.raises(W2WError, match="holds no scorer"):
        Scorer.load(tmp_path)


def test_scorers_look_at_images_of_any_size():
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
    assert encoder is not None
    with torch.no_grad():
        states = encoder(tokenize(tokenizer, ["a man with hat", "a man", "hat", "man"]))[0]
    said, same = states[[0, 2], -1], states[[1, 3], -1]
    between = (said[:, None] - same[None]).norm(dim=-1).min()
    within = max((said[0] - said[1]).norm(), (same[0] - same[1]).norm())
    assert between > 2 * within, "the end of a caption tells of hats and little else"


def test_a_denoiser_goes_on_from_a_given_one(tmp_path):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a man with hat", "a woman"], tmp_path / "words")
    tokens = tokenize(tokenizer, ["a man with hat", "a woman"])[:, None]
    empty, latents = tokenize(tokenizer, [""]), torch.randn(2, 4, 16, 16)
    given = build_unet(16)
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
    assert trained is not None
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
