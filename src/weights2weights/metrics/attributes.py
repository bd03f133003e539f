"""Did an edit do what was asked, and nothing else? Shares of what an attribute reader sees.

A reader (`protocols.AttributeReader`) gives a probability for every label; above one half it sees
the label. What is not defined for an image, such as making a bald man bald, is NaN: `confidence`
leaves it out and counts it.
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InputError

SEEN = 0.5
"""Probability above which a reader is taken to see a label."""


def agreement(
    seen: Float[Tensor, "n labels"], truth: Bool[Tensor, "n labels"]
) -> Float[Tensor, " labels"]:
    """Return for every label the share of images in which the reader sees what is true."""
    return ((seen > SEEN) == truth).float().mean(0)


def edit_success(
    after: Float[Tensor, "*batch"],
    wanted: bool,
    before: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Return 1 for every image in which the reader sees the wanted change, else 0.

    Args:
        after: probability of the label in the edited images.
        wanted: whether the label should be there afterwards, or should be gone.
        before: its probability in the images before the edit. Where these show the wanted state
            already there was nothing to change: NaN. None takes every image.
    """
    success = ((after > SEEN) == wanted).float()
    if before is None:
        return success
    return success.masked_fill((before > SEEN) == wanted, torch.nan)


def others_kept(
    before: Float[Tensor, "*batch labels"],
    after: Float[Tensor, "*batch labels"],
    label_names: Sequence[str],
    edited: str | Collection[str],
    excused: Collection[str] = (),
) -> Float[Tensor, "*batch"]:
    """Return for every image the share of the other labels that the reader sees unchanged.

    Args:
        before: probabilities in the images before the edit.
        after: the same after it.
        label_names: of the columns.
        edited: the label or labels that were meant to change; they do not count.
        excused: labels that must change along with them, which do not count either: a bald man has
            no wavy hair (`World.tied`). Give the figure both ways.

    Raises:
        W2WError: a name is no label, or no label is left.
    """
    apart = {edited} if isinstance(edited, str) else set(edited)
    if unknown := sorted((apart | set(excused)) - set(label_names)):
        raise InputError(f"{unknown[0]!r} is none of the labels ({', '.join(label_names)})")
    others = [i for i, name in enumerate(label_names) if name not in apart | set(excused)]
    if not others:
        raise InputError(f"no other label than the {len(label_names)} edited and excused ones")
    same = (before > SEEN) == (after > SEEN)
    return same[..., others].float().mean(-1)
