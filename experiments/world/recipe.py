"""From renderers to a base model: all stages of the world's training in order, resumable.

images → autoencoder → latents → tokenizer and text encoder → denoiser → a Stable Diffusion folder →
the initialisation of LoRAs → scorers

Each stage leaves its result in the work folder and is skipped when the result is there, so the same
call continues after an interruption. Everything runs on a CPU in hours and on a GPU in minutes.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from weights2weights.bases import load_base
from weights2weights.worlds.people import PEOPLE
from weights2weights.worlds.scorers import Scorer

from .autoencoder import build_autoencoder, decode, encode, train_autoencoder
from .denoiser import save_pipeline, train_denoiser
from .images import BASE_POPULATION, SCORER_POPULATION, draw_images
from .kinds import KINDS
from .scorer import save_scorer, train_scorer
from .start import learn_start
from .text import MAX_TOKENS, tokenize, train_text_encoder, train_tokenizer
from .training import TimeIsUp, save_atomically


@dataclass(frozen=True)
class Recipe:
    """The amount of everything.

    Attributes:
        size: pixels per side; latents have an eighth of it (four autoencoder levels).
        subjects: subjects of each kind drawn for the denoiser, one image each.
        captions: captions per image.
        autoencoder_subjects: how many of them, of each kind, the autoencoder learns from.
        autoencoder_steps: steps of `autoencoder_batch` images.
        text_steps: steps of 128 captions.
        denoiser_steps: steps of `denoiser_batch` images.
        scorer_subjects: subjects of each kind drawn for its scorers, four images each.
        scorer_steps: steps of 64 subjects, two images each.
    """

    size: int = 128
    subjects: int = 60_000
    captions: int = 4
    autoencoder_subjects: int = 20_000
    autoencoder_steps: int = 7000
    autoencoder_batch: int = 16
    text_steps: int = 3000
    denoiser_steps: int = 40_000
    denoiser_batch: int = 32
    scorer_subjects: int = 4000
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
_SUBJECTS_PER_BLOCK = 4000  # drawn and encoded before the next ones


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
        work: folder for checkpoints, logs and results; `base/` and `scorer-KIND/` are what ships.
        recipe: the amount of everything.
        start: a base to continue from, "people" or a folder. Its autoencoder and tokenizer are
            kept; its UNet and text encoder are trained further. None starts from scratch.
        device: "cpu" or "cuda".
        minutes: stop with checkpoints after this time.
        log: receives a line per stage.

    Returns:
        `work`, with `base/` (diffusers layout, float16), the scorers and `recipe.json` complete.

    Raises:
        TimeIsUp: call again with the same arguments to continue.
    """
    run = _Run(work, recipe, device, time.monotonic() + 60 * minutes)
    begun = None if start is None else copy.deepcopy(load_base(start))
    vae = begun.vae.to(device) if begun else run.autoencoder()
    log("autoencoder trained")
    latents, labels, texts = run.encoded(vae)
    log(f"{len(latents):,} images of {recipe.size} pixels encoded")
    tokenizer = begun.family.parts["tokenizer"] if begun else train_tokenizer(texts, work / "words")
    tokens = tokenize(tokenizer, texts).to(torch.int16).view(len(latents), -1, MAX_TOKENS)
    if begun:
        text_encoder = begun.family.parts["text_encoder"]
    else:
        text_encoder = train_text_encoder(
            tokenizer,
            tokens,
            labels,
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
        unet=begun.denoiser if begun else None,
        steps=recipe.denoiser_steps,
        batch=recipe.denoiser_batch,
        **run.limits(),
    )
    save_pipeline(vae, tokenizer, networks, work / "base")
    learn_start(load_base(work / "base"), work / "base")
    log(f"base in {work / 'base'}")
    vae.float()  # saved in half precision
    for kind in KINDS:
        save_scorer(run.scorer(kind, vae), work / f"scorer-{kind}")
        log(f"scorers of {kind} trained")
    (work / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    return work


@dataclass
class _Run:
    """One call, and the stages that keep more than checkpoints."""

    work: Path
    recipe: Recipe
    device: str
    deadline: float

    def autoencoder(self) -> Any:
        stored = self.work / "autoencoder.pt"
        if stored.exists():
            vae = build_autoencoder(self.recipe.size)
            vae.load_state_dict(torch.load(stored, weights_only=True))
            return vae.to(self.device).eval().requires_grad_(False)
        subjects = min(self.recipe.autoencoder_subjects, self.recipe.subjects)
        drawn = [
            draw_images(
                kind,
                BASE_POPULATION,
                subjects,
                size=self.recipe.size,
                folder=self.work / "images",
            )
            for kind in KINDS
        ]
        vae = train_autoencoder(
            np.concatenate([each.images for each in drawn]),
            self.work / "autoencoder",
            steps=self.recipe.autoencoder_steps,
            batch=self.recipe.autoencoder_batch,
            **self.limits(),
        )
        save_atomically(vae.state_dict(), stored)
        return vae

    def scorer(self, kind: str, vae: Any) -> Scorer:
        count = self.recipe.scorer_subjects
        drawn = draw_images(
            kind,
            SCORER_POPULATION,
            count,
            images=_SCORER_IMAGES,
            size=self.recipe.size,
            folder=self.work / "images",
        )
        stored = self.work / f"round-trips-{kind}.npy"
        if not stored.exists():
            draft = stored.with_suffix(".tmp.npy")
            np.save(draft, decode(vae, encode(vae, drawn.images, self.device), self.device))
            draft.replace(stored)
        shape = (count, _SCORER_IMAGES, *drawn.images.shape[1:])
        views = [images.reshape(shape) for images in (drawn.images, np.load(stored))]
        return train_scorer(
            np.concatenate(views, axis=1),
            drawn.labels[::_SCORER_IMAGES],
            KINDS[kind].world.label_names,
            self.work / f"scorer-{kind}-run",
            steps=self.recipe.scorer_steps,
            **self.limits(),
        )

    def encoded(self, vae: Any) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Return the latents and labels of all images and their captions, in one order.

        Every kind has its own columns of labels; they are False for the others.
        """
        latents, labels, texts = [], [], []
        before = 0
        total = sum(len(kind.world.label_names) for kind in KINDS.values())
        for kind in KINDS:
            for block in self.blocks(kind, vae):
                latents.append(block["latents"])
                after = total - before - block["labels"].shape[1]
                labels.append(pad(block["labels"], (before, after)))
                texts += block["captions"]
            before += len(KINDS[kind].world.label_names)
        return torch.cat(latents), torch.cat(labels), texts

    def blocks(self, kind: str, vae: Any) -> Iterator[dict[str, Any]]:
        """Yield latents (float16), labels and captions of some images at a time."""
        for first in range(0, self.recipe.subjects, _SUBJECTS_PER_BLOCK):
            count = min(_SUBJECTS_PER_BLOCK, self.recipe.subjects - first)
            stored = self.work / "latents" / f"{kind}-{first}-{count}.pt"
            if not stored.exists():
                if time.monotonic() > self.deadline:
                    raise TimeIsUp
                drawn = draw_images(
                    kind,
                    BASE_POPULATION,
                    count,
                    first=first,
                    captions=self.recipe.captions,
                    size=self.recipe.size,
                )
                stored.parent.mkdir(parents=True, exist_ok=True)
                block = {
                    "latents": encode(vae, drawn.images, self.device).half(),
                    "labels": torch.from_numpy(drawn.labels),
                    "captions": [text for several in drawn.captions for text in several],
                }
                save_atomically(block, stored)
            yield torch.load(stored, weights_only=True)

    def limits(self) -> dict[str, Any]:
        """Return the device and the minutes left, as every training takes them."""
        return {"device": self.device, "minutes": (self.deadline - time.monotonic()) / 60}
