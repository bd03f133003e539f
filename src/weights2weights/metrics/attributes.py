"""Did an edit do what was asked, and nothing else? From the outputs of an `AttributeReader`.

What is undefined for an image, such as making a bald man bald, is NaN: `confidence` leaves it out
and counts it.
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError

SEEN = 0.5
"""Probability above which a reader is taken to see a label."""

_EPSILON = 1e-6  # keeps logits within ±13.8


def logit(probabilities: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return log(p / (1 - p)) in float32, clipped to ±13.8.

    The change of a logit is for drawings what the gain in CLIP score is for photos.
    """
    return torch.logit(probabilities.double(), eps=_EPSILON).float()


def edit_success(
    after: Float[Tensor, "*batch"],
    wanted: bool | Bool[Tensor, "*#batch"],
    before: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Return 1 for every image in which the reader sees the wanted change, else 0.

    Args:
        after: probability of the label in the edited images.
        wanted: whether the edit should add the label or remove it, for all images or for each.
        before: its probability in the unedited images; those that already show the wanted state
            become NaN. None counts every image.
    """
    success = ((after > SEEN) == wanted).float()
    if before is not None:
        success = success.masked_fill((before > SEEN) == wanted, torch.nan)
    return success


def others_kept(
    before: Float[Tensor, "*batch labels"],
    after: Float[Tensor, "*batch labels"],
    label_names: Sequence[str],
    edited: str | Collection[str],
    excused: Collection[str] = (),
) -> Float[Tensor, "*batch"]:
    """Return for every image the fraction of the other labels that the reader sees unchanged.

    Args:
        before: probabilities in the unedited images.
        after: probabilities in the edited images.
        label_names: names of the columns.
        edited: the label or labels that the edit should change; left out.
        excused: labels that must change with them (`World.tied`); left out too.

    Raises:
        InputError: a name is not a label, or no label is left.
    """
    apart = {*([edited] if isinstance(edited, str) else edited), *excused}
    if unknown := sorted(apart - set(label_names)):
        raise InputError(f"unknown label {unknown[0]!r}; expected one of {', '.join(label_names)}")
    others = [i for i, name in enumerate(label_names) if name not in apart]
    if not others:
        raise InputError(f"all {len(label_names)} labels are edited or excused; none is left")
    same = (before > SEEN) == (after > SEEN)
    return same[..., others].float().mean(-1)
