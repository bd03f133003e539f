"""From a renderer to a base model: every stage of a world's training, in order, resumable.

draw images → autoencoder → scorers → words → denoiser → a Stable Diffusion folder → LoRAs' start

Each stage leaves its result in the work folder and is skipped when the result is there, so the same
call goes on after an interruption. Everything runs on a CPU in hours and on a GPU in minutes; the
shipped base is the CPU recipe's.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weights2weights.bases import load_base
from weights2weights.worlds import load_world
from weights2weights.worlds.scorers import Scorer

from .autoencoder import build_autoencoder, decode, encode, train_autoencoder
from .denoiser import save_pipeline, train_denoiser
from .images import BASE_POPULATION, SCORER_POPULATION, Images, draw_images
from .scorer import train_scorer
from .start import learn_start
from .text import MAX_TOKENS, tokenize, train_text_encoder, train_tokenizer
from .training import save_whole


@dataclass(frozen=True)
class Recipe:
    """How much of everything.

    Attributes:
        size: pixels per side; the latents have a quarter of it (three autoencoder levels).
        subjects: persons drawn for autoencoder and denoiser, one image each.
        captions: descriptions of each image.
        autoencoder_steps: of `autoencoder_batch` images.
        text_steps: of 128 captions.
        denoiser_steps: of `denoiser_batch` images.
        scorer_subjects: persons drawn for the scorers, four images each.
        scorer_steps: of 64 persons, two images each.
    """

    size: int = 64
    subjects: int = 60_000
    captions: int = 4
    autoencoder_steps: int = 5000
    autoencoder_batch: int = 16
    text_steps: int = 1500
    denoiser_steps: int = 9000
    denoiser_batch: int = 32
    scorer_subjects: int = 5000
    scorer_steps: int = 900


CPU = Recipe()
GPU = Recipe(
    subjects=200_000,
    autoencoder_steps=20_000,
    autoencoder_batch=64,
    text_steps=20_000,
    denoiser_steps=60_000,
    denoiser_batch=256,
    scorer_subjects=20_000,
    scorer_steps=6000,
)
_SCORER_PICTURES = 4


class TimeIsUp(Exception):
    """The minutes given to a call are over; what is done is kept, and the next call goes on."""


def train_world(
    world: str,
    work: Path,
    recipe: Recipe = CPU,
    *,
    start: str | None = None,
    device: str = "cpu",
    minutes: float = float("inf"),
    say: Callable[[str], None] = print,
) -> Path:
    """Train a world's base and scorers, from nothing or on from an earlier base.

    Args:
        world: name of the world.
        work: folder for checkpoints, logs and results; `base/` and `scorer/` in it are what ships.
        recipe: how much of everything.
        start: a base to go on with, "people" or a folder. Its autoencoder and words are kept, its
            UNet and text encoder learn on. None starts from nothing.
        device: "cpu" or "cuda".
        minutes: stop with checkpoints after this time.
        say: receives a line per stage.

    Returns:
        `work`, with `base/` (diffusers layout, float16), `scorer/` and `recipe.json` complete.

    Raises:
        TimeIsUp: call again with the same arguments to go on.
    """
    deadline = time.monotonic() + 60 * minutes

    def left() -> float:
        return (deadline - time.monotonic()) / 60

    drawn = draw_images(
        world,
        BASE_POPULATION,
        recipe.subjects,
        captions=recipe.captions,
        size=recipe.size,
        folder=work / "images",
    )
    say(f"{len(drawn.images):,} images of {recipe.size} pixels")
    begun = None if start is None else copy.deepcopy(load_base(start))
    vae = begun.vae.to(device) if begun else _autoencoder(drawn, work, recipe, device, left())
    say("autoencoder trained")
    scorer = _scorer(world, vae, work, recipe, device, left())
    scorer.save(work / "scorer")
    say("scorers trained")
    texts = [text for several in drawn.captions for text in several]
    tokenizer = begun.tokenizer if begun else train_tokenizer(texts, work / "words")
    tokens = tokenize(tokenizer, texts).to(torch.int16).view(len(drawn.images), -1, MAX_TOKENS)
    latents = _latents(vae, drawn.images, work, device)
    text_encoder = begun.text_encoder if begun else None
    if text_encoder is None:
        labels = torch.from_numpy(drawn.labels)
        text_encoder = _require(
            train_text_encoder(
                tokenizer,
                tokens,
                labels,
                latents,
                work / "text",
                device=device,
                steps=recipe.text_steps,
                minutes=left(),
            )
        )
    say("words learned")
    networks = _require(
        train_denoiser(
            latents,
            tokens,
            tokenize(tokenizer, [""]),
            text_encoder,
            load_world(world).focus,
            work / "denoiser",
            unet=begun.unet if begun else None,
            device=device,
            steps=recipe.denoiser_steps,
            batch=recipe.denoiser_batch,
            minutes=left(),
        )
    )
    save_pipeline(vae, tokenizer, networks, work / "base")
    learn_start(world, load_base(work / "base"), work / "base")
    (work / "recipe.json").write_text(json.dumps({"world": world, **asdict(recipe)}, indent=1))
    say(f"base in {work / 'base'}")
    return work


def _autoencoder(drawn: Images, work: Path, recipe: Recipe, device: str, minutes: float) -> Any:
    stored = work / "autoencoder.pt"
    if stored.exists():
        vae = build_autoencoder(recipe.size)
        vae.load_state_dict(torch.load(stored, weights_only=True))
        return vae.to(device).eval().requires_grad_(False)
    vae = _require(
        train_autoencoder(
            drawn.images,
            work / "autoencoder",
            device=device,
            steps=recipe.autoencoder_steps,
            batch=recipe.autoencoder_batch,
            minutes=minutes,
        )
    )
    save_whole(vae.state_dict(), stored)
    return vae


def _scorer(
    world: str, vae: Any, work: Path, recipe: Recipe, device: str, minutes: float
) -> Scorer:
    drawn = draw_images(
        world,
        SCORER_POPULATION,
        recipe.scorer_subjects,
        images=_SCORER_PICTURES,
        size=recipe.size,
        folder=work / "images",
    )
    stored = work / "round-trips.npy"
    if not stored.exists():
        draft = work / "round-trips.tmp.npy"
        np.save(draft, decode(vae, encode(vae, drawn.images, device), device))
        draft.replace(stored)
    shape = (recipe.scorer_subjects, _SCORER_PICTURES, *drawn.images.shape[1:])
    views = np.concatenate([drawn.images.reshape(shape), np.load(stored).reshape(shape)], axis=1)
    names = load_world(world).label_names
    labels = drawn.labels[::_SCORER_PICTURES]
    return _require(
        train_scorer(
            views,
            labels,
            names,
            work / "scorer-run",
            device=device,
            steps=recipe.scorer_steps,
            minutes=minutes,
        )
    )


def _latents(vae: Any, images: np.ndarray, work: Path, device: str) -> torch.Tensor:
    stored = work / "latents.pt"
    if stored.exists():
        return torch.load(stored, weights_only=True)
    latents = encode(vae, images, device).half()
    save_whole(latents, stored)
    return latents


def _require(trained: Any) -> Any:
    if trained is None:
        raise TimeIsUp
    return trained
