"""From subjects to a dataset: batches of subjects, each stored as soon as it is done."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .._cache import Cache
from .._config import require_fields
from .._memory import loras_that_fit
from ..bases import Base
from ..dataset import WeightDataset
from ..errors import InputError, W2WError
from ..layout import WeightLayout
from ..subjects import Subject
from ._config import DreamBoothConfig, default_config
from ._latents import class_latents, subject_latents
from ._loop import run_key, train_batch
from ._progress import ProgressLog

_DIVERGED = "its loss became infinite or NaN; check its images or lower the learning rate"

_log = logging.getLogger(__name__)


def train(
    base: Base,
    subjects: Sequence[Subject],
    out: str | Path,
    config: DreamBoothConfig | None = None,
    *,
    subjects_per_batch: int | None = None,
    labels: Any = None,
    cache: str | Path | None = None,
    retry_failed: bool = False,
    log: str | Path | None = None,
    progress: bool = False,
    **changes: Any,
) -> WeightDataset:
    """Train a LoRA for every subject and store them; resumes where an earlier call stopped.

    A step costs one forward and backward pass over K × train_batch_size samples, twice that with
    prior preservation. Each batch of K subjects is stored as soon as it is done.

    Args:
        base: the model to fine-tune; left unchanged.
        subjects: as `find_subjects` returns them; stored in this order.
        out: folder of the dataset, new or started by an earlier identical call.
        config: the settings; None takes those of the base's preset.
        subjects_per_batch: K, how many subjects train at once; None measures what fits into memory
            and keeps to it when the call is repeated.
        labels: a table indexed by the subjects' names; rows of others are left out.
        cache: folder for latents, class images and checkpoints; None is `$W2W_CACHE`, else
            `~/.cache/weights2weights`. It may be shared, and deleted at any time.
        retry_failed: train the subjects again that failed in an earlier call.
        log: file to append a line of JSON to every few steps and for every failure.
        progress: show a progress bar on stderr.
        **changes: fields of the settings to change.

    Returns:
        the dataset; its `failed` maps each subject without weights to the reason.

    Raises:
        InputError: no subjects, duplicate names, unknown or invalid settings, or a dataset with
            other settings in `out`.
        ResourceError: K subjects do not fit into memory, or the dataset cannot be written.

    Example:
        >>> def learn(base, folder):
        ...     return train(base, find_subjects(folder), "loras", DreamBoothConfig(steps=800))
    """
    config = config or default_config(base)
    require_fields(config, changes)
    config = replace(config, **changes)
    known = {subject.name: subject for subject in subjects}
    if not subjects or len(known) < len(subjects):
        raise InputError(
            f"{len(subjects)} subjects of {len(known)} names: expected at least one subject, and a"
            " different name for each"
        )
    layout = base.layout(rank=config.rank, alpha=config.alpha, targets=config.targets)
    K = subjects_per_batch or _batch_size(base, layout, config, Path(out))
    _check_labels(known, labels)
    recipe = asdict(config)
    recipe |= {"subjects_per_batch": K, "dtype": str(base.dtype).removeprefix("torch.")}
    dataset = WeightDataset.create(out, layout, labels=labels, base_hash=base.hash, recipe=recipe)
    for name, reason in dataset.verify([name for name in known if name in dataset]).items():
        _log.warning("%s; moved to %s, trained again", reason, dataset.move_aside(name))
    batches = _plan_batches(dataset, list(known), K, retry_failed)
    store, prior = Cache(cache), None
    with ProgressLog(log, sum(map(len, batches)) * config.steps, progress) as reports:
        for batch in batches:
            latents, failed = {}, {}
            for name in batch:
                try:
                    latents[name] = subject_latents(base, config, known[name], store)
                except W2WError as error:
                    failed[name] = str(error)
            reports.failed(failed, config.steps * len(failed))
            if latents and config.prior_loss_weight and prior is None:
                prior = class_latents(base, config, store, progress)
            run = (base, layout, config, latents, prior)
            learned = train_batch(*run, store, reports) if latents else {}
            diverged = {name: _DIVERGED for name in latents if name not in learned}
            _store(dataset, batch, learned, failed | diverged)
            store.forget(run_key(*run))
            reports.failed(diverged)
            reports.stored(list(learned))
    return dataset


def _plan_batches(
    dataset: WeightDataset, names: Sequence[str], size: int, retry_failed: bool
) -> list[list[str]]:
    """Return the batches in which to train the subjects that have no model yet.

    The last bits of a model depend on who was trained in the same batch, which each model's header
    lists by `_mark`. So a batch of which only some models are stored, because a run was killed or a
    file damaged, is trained again as it was: the missing models come out with the same bytes.
    """
    for name in names:
        dataset.path_of(name)  # raises if the dataset cannot store it
    failures, known = dataset.failures, {_mark(name): name for name in names}
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


def _store(
    dataset: WeightDataset,
    batch: Sequence[str],
    learned: Mapping[str, tuple[Tensor, dict[str, Any]]],
    failed: Mapping[str, str],
) -> None:
    """Write what is missing of a batch; each file lists who was in it, for `_plan_batches`."""
    info = {"batch": [_mark(name) for name in batch]}
    for name in batch:
        if name in dataset:
            continue
        if name in learned:
            weights, facts = learned[name]
            dataset.write(name, weights, seed=dataset.recipe["seed"], info=facts | info)
        else:
            dataset.write_failure(name, failed[name], info=info)


def _mark(name: str) -> str:
    """Return what stands for a subject in the files of others, which may be shared without it."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _batch_size(base: Base, layout: WeightLayout, config: DreamBoothConfig, out: Path) -> int:
    """Return the number of subjects that an earlier call trained at once, or else that fit."""
    recipe = WeightDataset.open(out).recipe if (out / "dataset.json").exists() else {}
    samples = config.train_batch_size * (2 if config.prior_loss_weight else 1)
    return recipe.get("subjects_per_batch") or loras_that_fit(base, layout, samples)


def _check_labels(known: Mapping[str, Subject], labels: Any) -> None:
    """Raise InputError if a label table names none of the subjects."""
    names = () if labels is None else labels.index if hasattr(labels, "columns") else labels
    if labels is not None and not any(name in known for name in names):
        raise InputError(
            f"the labels name none of the subjects: their first row is {next(iter(names), None)!r},"
            f" the first subject is {next(iter(known))!r}; expected the names of the subjects'"
            " folders"
        )
