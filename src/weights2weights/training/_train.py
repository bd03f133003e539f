"""From subjects to a dataset: groups, one after the other, each stored in one piece."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapter import adapt
from ..bases import Base, free_memory
from ..dataset import WeightDataset
from ..errors import InputError, W2WError
from ..subjects import Subject
from ._chance import subject_seed
from ._group import Learner, train_group
from ._journal import Journal
from ._latents import Cache, class_latents, default_cache, subject_latents
from ._recipe import PAPER, RECIPES, DreamBoothConfig

# Samples in one pass, beyond which a pass is no cheaper per sample: people UNet on 2 cores, ms per
# training sample at batch 1, 8, 16, 32, 64: 30, 8.4, 6.3, 5.0, 4.7 (bfloat16).
_MOST_SAMPLES = {"cpu": 64}
_MOST_SAMPLES_ON_ACCELERATORS = 256


def train(
    base: Base,
    subjects: Sequence[Subject],
    out: str | Path,
    recipe: DreamBoothConfig | None = None,
    *,
    group: int | None = None,
    labels: Any = None,
    cache: str | Path | None = None,
    retry_failed: bool = False,
    metrics: str | Path | None = None,
    progress: bool = False,
    **changes: Any,
) -> WeightDataset:
    """Fine-tune the base for every subject and keep the weights; go on where an earlier call ended.

    Costs per step one pass of the UNet, forth and back, over K × train_batch_size samples, twice
    that with prior preservation. Each group of K is stored in one piece when it is done.

    Args:
        base: to be fine-tuned; it is left as it was.
        subjects: as `find_subjects` gives them, in the order in which they will be stored.
        out: folder of the dataset, new or begun by the same call before.
        recipe: None takes that of the base's world, for any other base the paper's.
        group: K, how many subjects are trained at once; None picks what the memory holds and keeps
            to it when the call is repeated.
        labels: a table indexed by the subjects' names; rows of others are left out.
        cache: folder for latents, class images and checkpoints; None is `default_cache()`. What
            is there is found again by content, so it may be shared, and deleted at any time.
        retry_failed: try again what failed in an earlier call.
        metrics: file that receives a line of JSON every few steps and for every failure.
        progress: a bar on stderr with rate and time left.
        **changes: fields of the recipe to change.

    Returns:
        the dataset. Its `failed` names subjects without weights and says why: no or broken
        images, or a loss that became infinite or NaN.

    Raises:
        W2WError: no subjects, two of one name, a recipe that makes no sense, a dataset in `out`
            with other settings, a K that does not fit into the memory, a failure to write.
    """
    recipe = replace(recipe or RECIPES.get(base.id, PAPER), **changes)
    known = {subject.name: subject for subject in subjects}
    if not subjects or len(known) < len(subjects):
        raise InputError(
            f"{len(subjects)} subjects of {len(known)} names: expected at least one, and a name for"
            " each"
        )
    layout = base.layout(rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets)
    group = group or _stored_group(Path(out)) or group_size(base, recipe)
    dataset = WeightDataset.create(
        out,
        layout,
        names=list(known),
        labels=_labels_of(known, labels),
        base_hash=base.hash,
        recipe={**asdict(recipe), "group": group, "dtype": str(base.dtype).split(".")[-1]},
        resume=True,
    )
    waiting = [name for name in dataset.pending() if name in known]
    if retry_failed:
        waiting += [name for name in dataset.failed if name in known]
    kept, prior = Cache(Path(cache) if cache else default_cache()), None
    with Journal(metrics, len(waiting) * recipe.steps, progress) as journal:
        for start in range(0, len(waiting), group):
            members = [known[name] for name in waiting[start : start + group]]
            learners, failed = _encode_group(base, recipe, members, kept)
            journal.end((), failed, recipe.steps * len(failed))
            if not learners:
                dataset.append((), torch.empty(0, layout.num_parameters), failed=failed)
                continue
            if recipe.prior_weight and prior is None:
                prior = class_latents(base, recipe, kept, progress)
            done = train_group(base, layout, recipe, learners, prior, kept, journal)
            # Learned and failed in one step: a group is either pending as a whole or settled, so
            # that an interrupted run meets the same groups again.
            dataset.append(done.names, done.weights, info=done.info, failed=failed | done.failed)
            kept.forget(done.run)
            journal.end(done.names, done.failed, 0)
    if not dataset.pending():
        dataset.finish()
        dataset.refresh()
    return dataset


def group_size(base: Base, recipe: DreamBoothConfig) -> int:
    """Return the K that half of the free memory holds, up to the size where passes stop gaining.

    Measured, not guessed: one forward pass for one subject, counting the bytes that autograd keeps.
    """
    samples = recipe.train_batch_size * (2 if recipe.prior_weight else 1)
    layout = base.layout(rank=recipe.rank, alpha=recipe.alpha, targets=recipe.targets)
    weights = torch.zeros(1, layout.num_parameters, device=base.device, requires_grad=True)
    latents = torch.zeros(samples, *base.latent_shape, device=base.device)
    timesteps = torch.zeros(samples, dtype=torch.int64, device=base.device)
    prompts = base.encode_prompts([recipe.prompt] * samples)
    with _counting_saved(base) as saved, adapt(base.unet, layout, weights):
        base.denoising_loss(latents, latents, timesteps, prompts)
    each = sum(saved.values()) + 6 * weights.nbytes  # gradient, two moments, copies
    most = _MOST_SAMPLES.get(base.device.type, _MOST_SAMPLES_ON_ACCELERATORS)
    return max(1, min(most // samples, free_memory(base.device) // 2 // each))


@contextmanager
def _counting_saved(base: Base) -> Iterator[dict[int, int]]:
    """Collect address → bytes of all that autograd keeps inside, apart from the base itself."""
    own = {parameter.untyped_storage().data_ptr() for parameter in base.unet.parameters()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield saved


def _encode_group(
    base: Base, recipe: DreamBoothConfig, members: Sequence[Subject], cache: Cache
) -> tuple[list[Learner], dict[str, str]]:
    """Return the subjects whose images could be read, and why the others could not."""
    learners, failed = [], {}
    for subject in members:
        try:
            latents = subject_latents(base, recipe, subject, cache)
            learners.append(Learner(subject.name, subject_seed(recipe, subject.name), latents))
        except W2WError as error:
            failed[subject.name] = str(error)
    return learners, failed


def _stored_group(out: Path) -> int | None:
    if not (out / "manifest.json").exists():
        return None
    return WeightDataset.open(out).recipe.get("group")


def _labels_of(known: Mapping[str, Subject], labels: Any) -> Any:
    """Return the rows of a label table that belong to the subjects."""
    if labels is None:
        return None
    if hasattr(labels, "columns"):
        chosen = labels[labels.index.isin(list(known))]
    else:
        chosen = {name: row for name, row in labels.items() if name in known}
    if not len(chosen):
        first = next(iter(labels.index if hasattr(labels, "columns") else labels), None)
        raise InputError(
            f"the labels name none of the subjects: they know {first!r}, the first subject is"
            f" {next(iter(known))!r}; expected the names of the subjects' folders"
        )
    return chosen
