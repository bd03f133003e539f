"""The page of a study: pairs of images in random order and on random sides, with attention checks.

The page knows the two images of a pair only as "first" and "second". Which method drew which is in
the key, a file that stays with whoever runs the study.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .._files import make_folder, read_regular, write_atomic
from .._json import canonical_json
from ..errors import InputError
from ..images import decode_image

SIDES = ("left", "right")
_TEMPLATES = Path(__file__).parent / "templates"
_MEDIA = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_CONSENT = (
    "I am at least 18 years old and take part voluntarily. My choices and the time that each took "
    "are saved in a file on this device, without my name; nothing is sent anywhere until I send "
    "the file myself."
)


@dataclass(frozen=True)
class StudyFiles:
    """What `make_study` wrote: the page for raters, and the key to their answers."""

    page: Path
    key: Path


def make_study(
    out: str | Path,
    methods: Mapping[str, str | Path],
    *,
    questions: Sequence[str] = ("Which image do you prefer?",),
    reference: str | Path | None = None,
    pairs: int | None = None,
    checks: int = 3,
    consent: str = _CONSENT,
    seed: int = 0,
) -> StudyFiles:
    """Write a web page that asks raters to choose between images of two or more methods.

    The page works offline and from any static host. Every rater sees the questions in an order of
    their own, each pair on random sides, and saves the answers as a file at the end.

    Args:
        out: folder for `study.html` and `key.json`.
        methods: name → folder of images; those with one file name, extension aside, are compared.
        questions: each is asked about every pair.
        reference: folder of images to show above a pair, such as the photo that was inverted.
        pairs: number of pairs, spread evenly over the pairs of methods; None takes all.
        checks: attention checks, which ask for the image on one side.
        consent: what raters agree to before they begin.
        seed: of the choice of pairs.

    Raises:
        InputError: fewer than two methods, no common images, too few pairs, or an unusable image.
    """
    folders = {name: _images(Path(folder)) for name, folder in methods.items()}
    shown = _images(Path(reference)) if reference is not None else None
    _require(len(folders) >= 2, f"a study of {len(folders)} methods; expected two or more")
    _require(bool(questions), "a study without questions; expected one or more")
    common = set.intersection(*(set(images) for images in folders.values()))
    items = sorted(common & set(shown) if shown is not None else common)
    _require(bool(items), f"no image has the same name in all of {', '.join(map(str, methods))}")
    rng = np.random.default_rng(seed)
    chosen = _choose_pairs(list(folders), items, pairs, rng)
    places: dict[Path, int] = {}  # in the page, which holds each image once

    def place(path: Path) -> int:
        return places.setdefault(path, len(places))

    trials: list[dict[str, Any]] = []
    secret: list[dict[str, str]] = []
    for item, names in chosen:
        first, second = (names[i] for i in rng.permutation(2))
        pair = {"first": place(folders[first][item]), "second": place(folders[second][item])}
        if shown is not None:
            pair["reference"] = place(shown[item])
        for question in questions:
            trials.append({**pair, "question": question})
            secret.append({"item": item, "question": question, "first": first, "second": second})
    for _ in range(checks):
        side = SIDES[int(rng.integers(2))]
        pair = trials[int(rng.integers(len(trials)))]
        trials.append({**pair, "question": f"To show that you are reading, choose the {side} one."})
        secret.append({"check": side})
    images = [_data_uri(path) for path in places]
    return _write(Path(out), {"trials": trials, "images": images}, secret, consent, seed)


def _choose_pairs(
    methods: list[str], items: list[str], pairs: int | None, rng: np.random.Generator
) -> list[tuple[str, tuple[str, str]]]:
    """Return (item, two methods) for every pair: all methods equally often, items at random."""
    both = list(combinations(methods, 2))
    most = len(both) * len(items)
    wanted = most if pairs is None else pairs
    _require(
        len(both) <= wanted <= most,
        f"{wanted} pairs of {len(items)} common images and {len(methods)} methods; expected from "
        f"{len(both)} to {most}",
    )
    orders = {names: [items[i] for i in rng.permutation(len(items))] for names in both}
    return [
        (orders[both[i % len(both)]][i // len(both)], both[i % len(both)]) for i in range(wanted)
    ]


def _write(
    out: Path, content: dict[str, Any], secret: list[dict[str, str]], consent: str, seed: int
) -> StudyFiles:
    from ..evaluate.page import render

    study = hashlib.sha256(canonical_json(content)).hexdigest()[:16]
    page = render("study.html", _TEMPLATES, study=study, consent=consent, **content)
    files = StudyFiles(out / "study.html", out / "key.json")
    make_folder(out)
    write_atomic(files.page, [page.encode()])
    key = {"study": study, "seed": seed, "trials": secret}
    write_atomic(files.key, [canonical_json(key)])
    return files


def _images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by file name without extension."""
    _require(folder.is_dir(), f"{folder} is not a directory; expected one with images")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _MEDIA}
    _require(bool(found), f"{folder} has no image; expected PNG, JPEG or WebP files")
    return found


def _data_uri(path: Path) -> str:
    data = read_regular(path)
    decode_image(data, str(path))  # a broken image would be a blank pair
    kind = _MEDIA[path.suffix.lower()]
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)
