"""What owners of many LoRAs ask of a folder: what is in it, what is alike, what it is about."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ._gram import gram
from ._read import Update

if TYPE_CHECKING:
    import pandas
    from PIL.Image import Image

NEAR_COPY = 0.98
"""Cosine of two updates above which one is nearly a copy of the other."""

_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON = {"lora", "safetensors", "final", "model", "style", "epoch", "step", "steps", "the", "and"}


def survey(updates: Sequence[Update], refused: Mapping[str, str]) -> dict[str, Any]:
    """Return what a folder of LoRAs holds, as JSON values.

    Args:
        updates: as `read_updates` returns them.
        refused: likewise.
    """

    def counts(values: Any) -> dict[str, int]:
        return {str(value): count for value, count in Counter(values).most_common()}

    cosines = gram(updates).cosines
    return {
        "format": "folder of LoRAs",
        "models": len(updates),
        "ranks": counts(update.layout.rank for update in updates),
        "alphas": counts(f"{update.layout.alpha:g}" for update in updates),
        "bases": counts(update.layout.base or "unknown" for update in updates),
        "layers": counts(len(update.layout.modules) for update in updates),
        "mean_cosine": mean_cosine(cosines),
        "near_copies": near_copies(cosines, [update.name for update in updates]),
        "refused": dict(refused),
    }


def mean_cosine(cosines: Float[Tensor, "n n"]) -> float:
    """Return the mean cosine of two different updates; NaN of one alone."""
    n = len(cosines)
    return float((cosines.sum() - n) / (n * (n - 1))) if n > 1 else float("nan")


def near_copies(cosines: Float[Tensor, "n n"], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return pairs of models that are nearly the same, most alike first."""
    pairs = (torch.triu(cosines, 1) > NEAR_COPY).nonzero().tolist()
    found = [{"names": [names[i], names[j]], "similarity": float(cosines[i, j])} for i, j in pairs]
    return sorted(found, key=lambda pair: -pair["similarity"])


def labels_from_headers(updates: Sequence[Update], least: int = 3) -> "pandas.DataFrame":
    """Return labels that file names and kohya's headers suggest, for want of a table.

    A label is a word of the name, or a tag of the training captions (`ss_tag_frequency`) that at
    least half of a model's images have. Those of fewer than `least` models, or of nearly all, are
    left out. Where a model states no tags, labels that come from tags alone are missing.
    """
    import pandas

    words = [{w.lower() for w in _WORD.findall(u.name)} - _COMMON for u in updates]
    tags = [_tags(update.metadata) for update in updates]
    count = Counter(word for found in words for word in found)
    for found, own in zip(tags, words, strict=True):
        count.update((found or set()) - own)
    kept = sorted(w for w, c in count.items() if least <= c <= len(updates) - least)
    named = set().union(*words)
    rows = [
        {
            label: True
            if label in own or label in (found or ())
            else (None if found is None and label not in named else False)
            for label in kept
        }
        for own, found in zip(words, tags, strict=True)
    ]
    names = [update.name for update in updates]
    return pandas.DataFrame(rows, index=names, columns=kept).astype("boolean")


def _tags(metadata: Mapping[str, str]) -> set[str] | None:
    """Return the frequent tags of a kohya header, None if it states none."""
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", ""))
        total: defaultdict[str, float] = defaultdict(float)
        for folder in folders.values():
            for tag, count in folder.items():
                total[str(tag).strip().lower()[:40]] += float(count)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    most = max(total.values(), default=0.0)
    return {tag for tag, count in total.items() if tag and count >= most / 2}


def draw_map(updates: Sequence[Update], size: int = 1600) -> "Image":
    """Draw LoRAs as a map: near each other if their updates are alike.

    The axes are the two leading principal components of the unit updates, by rank of position so
    that nothing piles up. A picture NAME.png or .jpg next to NAME.safetensors is shown.
    """
    from PIL import Image, ImageDraw, ImageFont

    cosines = gram(updates).cosines
    centred = cosines - cosines.mean(0) - cosines.mean(1, keepdim=True) + cosines.mean()
    _, vectors = torch.linalg.eigh(centred)
    axes = vectors[:, [-1, -2 if len(updates) > 1 else -1]]
    places = axes.argsort(0).argsort(0) / max(len(updates) - 1, 1)
    cell = max(min(int(size / max(len(updates), 1) ** 0.5), size // 6), 24)
    sheet = Image.new("RGB", (size + cell, size + cell), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=max(10, cell // 8))
    for update, (x, y) in zip(updates, places.tolist(), strict=True):
        left, top = int(x * size), int((1 - y) * size)
        preview = _preview(update)
        if preview is None:
            pen.ellipse((left, top, left + 8, top + 8), fill="steelblue")
        else:
            with Image.open(preview) as image:
                sheet.paste(image.convert("RGB").resize((cell, cell)), (left, top))
        pen.text((left, top + (10 if preview is None else cell)), update.name[:24], "black", font)
    return sheet


def _preview(update: Update) -> Any:
    if update.path is None:
        return None
    stem = update.path.with_suffix("") if update.path.is_file() else update.path
    names = [f"{stem}{suffix}" for suffix in (".png", ".preview.png", ".jpg", ".jpeg", ".webp")]
    return next((name for name in names if _is_image(name)), None)


def _is_image(path: str) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, UnidentifiedImageError, SyntaxError):
        return False
    return True
