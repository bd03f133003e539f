"""Which subjects are left to train, and in which batches."""

import hashlib
from collections.abc import Sequence

from ..dataset import WeightDataset


def mark(name: str) -> str:
    """Return what stands for a subject in the files of others, which may be shared without it."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def plan_batches(
    dataset: WeightDataset, names: Sequence[str], size: int, *, retry_failed: bool
) -> list[list[str]]:
    """Return the batches in which to train the subjects that have no model yet.

    The last bits of a model depend on who was trained in the same batch, which each model's header
    lists by `mark`. So a batch of which only some models are stored, because a run was killed or a
    file damaged, is trained again as it was: the missing models come out with the same bytes.
    """
    for name in names:
        dataset.path_of(name)  # raises if the dataset cannot store it
    failures, known = dataset.failures, {mark(name): name for name in names}
    missing = dict.fromkeys(name for name in names if name not in dataset and name not in failures)
    batches: list[list[str]] = []
    for name in [name for name in names if name not in missing] if missing else []:
        facts = failures[name]["info"] if name in failures else dataset.info(name)
        batch = [known.get(member, "") for member in facts.get("batch", ())]
        if missing.keys() & set(batch) and all(batch):
            batches.append(batch)
            for member in batch:
                missing.pop(member, None)
    failed = [name for name in names if name in failures] if retry_failed else []
    for some in (list(missing), failed):
        batches += [some[start : start + size] for start in range(0, len(some), size)]
    return batches
