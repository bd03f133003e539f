"""From a renderer to a base model: all stages of the world's training in order, resumable.

images → autoencoder → scorers → tokenizer and text encoder → denoiser → a Stable Diffusion folder
→ the initialisation of LoRAs

Each stage leaves its result in the work folder and is skipped when the result is there, so the same
call continues after an interruption. Everything runs on a CPU in hours and on a GPU in minutes; the
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
from weights2weights.worlds.people import PEOPLE
from weights2weights.worlds.scorers import Scorer

from .autoencoder import build_autoencoder, decode, encode, train_autoencoder
from .denoiser import save_pipeline, train_denoiser
from .images import BASE_POPULATION, SCORER_POPULATION, Images, draw_images
from .scorer import train_scorer
from .start import learn_start
from .text import MAX_TOKENS, tokenize, train_text_encoder, train_tokenizer
from .training import save_atomically


@dataclass(frozen=True)
class Recipe:
    """The amount of everything.

    Attributes:
        size: pixels per side; latents have a quarter of it (three autoencoder levels).
        subjects: people drawn for autoencoder and denoiser, one image each.
        captions: captions per image.
        autoencoder_steps: steps of `autoencoder_batch` images.
        text_steps: steps of 128 captions.
        denoiser_steps: steps of `denoiser_batch` images.
        scorer_subjects: people drawn for the scorers, four images each.
        scorer_steps: steps of 64 people, two images each.
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
_SCORER_IMAGES = 4


def train_world(
    work: Path,
    recipe: Recipe = CPU,
    *,
    start: str | None = None,
    device: str = "cpu",
    minutes: float = float("inf"),
    log: Callable[[str], None] = print,
) -> Path:
    """Train base and scorers, from scratch or from an earlier base.

    Args:
        work: folder for checkpoints, logs and results; `base/` and `scorer/` in it are what ships.
        recipe: the amount of everything.
        start: a base to continue from, "people" or a folder. Its autoencoder and tokenizer are
            kept; its UNet and text encoder are trained further. None starts from scratch.
        device: "cpu" or "cuda".
        minutes: stop with checkpoints after this time.
        log: receives a line per stage.

    Returns:
        `work`, with `base/` (diffusers layout, float16), `scorer/` and `recipe.json` complete.

    Raises:
        TimeIsUp: call again with the same arguments to continue.
    """
    run = _Run(work, recipe, device, time.monotonic() + 60 * minutes)
    drawn = draw_images(
        BASE_POPULATION,
        recipe.subjects,
        captions=recipe.captions,
        size=recipe.size,
        folder=work / "images",
    )
    log(f"{len(drawn.images):,} images of {recipe.size} pixels")
    begun = None if start is None else copy.deepcopy(load_base(start))
    vae = begun.vae.to(device) if begun else run.autoencoder(drawn)
    log("autoencoder trained")
    run.scorer(vae).save(work / "scorer")
    log("scorers trained")
    latents = run.latents(vae, drawn.images)
    texts = [text for several in drawn.captions for text in several]
    tokenizer = begun.tokenizer if begun else train_tokenizer(texts, work / "words")
    tokens = tokenize(tokenizer, texts).to(torch.int16).view(len(drawn.images), -1, MAX_TOKENS)
    if begun:
        text_encoder = begun.text_encoder
    else:
        text_encoder = train_text_encoder(
            tokenizer,
            tokens,
            torch.from_numpy(drawn.labels),
            latents,
            work / "text",
            steps=recipe.text_steps,
            **run.limits(),
        )
    log("text encoder trained")
    networks = train_denoiser(
        latents,
        tokens,
        tokenize(tokenizer, [""]),
        text_encoder,
        PEOPLE.focus,
        work / "denoiser",
        unet=begun.unet if begun else None,
        steps=recipe.denoiser_steps,
        batch=recipe.denoiser_batch,
        **run.limits(),
    )
    save_pipeline(vae, tokenizer, networks, work / "base")
    learn_start(load_base(work / "base"), work / "base")
    (work / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    log(f"base in {work / 'base'}")
    return work


@dataclass
class _Run:
    """One call, and the stages that keep more than checkpoints."""

    work: Path
    recipe: Recipe
    device: str
    deadline: float

    def autoencoder(self, drawn: Images) -> Any:
        stored = self.work / "autoencoder.pt"
        if stored.exists():
            vae = build_autoencoder(self.recipe.size)
            vae.load_state_dict(torch.load(stored, weights_only=True))
            return vae.to(self.device).eval().requires_grad_(False)
        vae = train_autoencoder(
            drawn.images,
            self.work / "autoencoder",
            steps=self.recipe.autoencoder_steps,
            batch=self.recipe.autoencoder_batch,
            **self.limits(),
        )
        save_atomically(vae.state_dict(), stored)
        return vae

    def scorer(self, vae: Any) -> Scorer:
        count = self.recipe.scorer_subjects
        drawn = draw_images(
            SCORER_POPULATION,
            count,
            images=_SCORER_IMAGES,
            size=self.recipe.size,
            folder=self.work / "images",
        )
        stored = self.work / "round-trips.npy"
        if not stored.exists():
            draft = self.work / "round-trips.tmp.npy"
            np.save(draft, decode(vae, encode(vae, drawn.images, self.device), self.device))
            draft.replace(stored)
        shape = (count, _SCORER_IMAGES, *drawn.images.shape[1:])
        views = [images.reshape(shape) for images in (drawn.images, np.load(stored))]
        return train_scorer(
            np.concatenate(views, axis=1),
            drawn.labels[::_SCORER_IMAGES],
            PEOPLE.label_names,
            self.work / "scorer-run",
            steps=self.recipe.scorer_steps,
            **self.limits(),
        )

    def latents(self, vae: Any, images: np.ndarray) -> torch.Tensor:
        stored = self.work / "latents.pt"
        if not stored.exists():
            save_atomically(encode(vae, images, self.device).half(), stored)
        return torch.load(stored, weights_only=True)

    def limits(self) -> dict[str, Any]:
        """Return the device and the minutes left, as every training takes them."""
        return {"device": self.device, "minutes": (self.deadline - time.monotonic()) / 60}
