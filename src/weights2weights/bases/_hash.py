"""The hash of a base: the same weights have the same one, however they are stored.

Hashing Stable Diffusion 1.5 means reading 4 GB as float32, so the hash of files is cached by their
names, sizes and times of change.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .._cache import Cache, cache_key
from ._family import Family

Stamp = list[tuple[str, int, int]]
"""Name, size and time of change in nanoseconds of each file of a base."""


def content_hash(family: Family, scheduler: dict[str, Any]) -> str:
    """Return 16 hex characters over all weights and the settings that a LoRA's meaning depends on.

    These are the noise schedule, the prediction type and the scale of the latents.
    """
    schedule = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    latents = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
    settings = [
        [scheduler.get(name) for name in (*schedule, "rescale_betas_zero_snr")],
        [family.parts["vae"].config.get(name) for name in latents],
    ]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for part in family.networks():
        for name, value in sorted(family.parts[part].state_dict().items()):
            if value.is_floating_point():  # the others are position counters of some versions
                digest.update(f"{name} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def stamp_of(folder: Path, parts: Iterable[str]) -> Stamp:
    """Return the stamp of the files of a base's parts."""
    files = [path for part in parts for path in sorted((folder / part).glob("*"))]
    status = [(str(path), path.stat()) for path in files if path.is_file()]
    return [(name, one.st_size, one.st_mtime_ns) for name, one in status]


def cached_hash(stamp: Stamp, compute: Callable[[], str]) -> str:
    """Return the hash of files with a stamp from the cache, or compute and cache it."""
    cache, key = Cache(), cache_key("hashes", stamp)
    found = cache.load_text(key)
    if found is None or not re.fullmatch("[0-9a-f]{16}", found):
        found = compute()
        cache.save_text(key, found)
    return found
