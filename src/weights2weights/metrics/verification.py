"""Do images show the same subject? Identity similarity and the area under the ROC curve."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError


def id_score(
    embeddings: Float[Tensor, "*batch e"], others: Float[Tensor, "*batch e"]
) -> Float[Tensor, "*batch"]:
    """Return the cosine similarity of identity embeddings, pair by pair (the paper's ID score)."""
    return torch.nn.functional.cosine_similarity(embeddings, others, dim=-1)


def verification_auc(
    embeddings: Float[Tensor, "n e"],
    subjects: Int[Tensor, " n"],
    others: Float[Tensor, "m e"] | None = None,
    other_subjects: Int[Tensor, " m"] | None = None,
) -> float:
    """Return how often two images of one subject are more similar than two of different subjects.

    Args:
        embeddings: identity embeddings of images.
        subjects: the subject of each image.
        others: a second set to compare with; None compares the first with itself, each pair once.
        other_subjects: the subjects of the second set.

    Raises:
        InputError: no pair shows the same subject, or all do.
    """
    unit = torch.nn.functional.normalize(embeddings, dim=-1)
    if others is None or other_subjects is None:
        first, second = torch.triu_indices(len(unit), len(unit), 1)
        return roc_auc((unit @ unit.T)[first, second], subjects[first] == subjects[second])
    unit_others = torch.nn.functional.normalize(others, dim=-1)
    same = subjects[:, None] == other_subjects[None, :]
    return roc_auc((unit @ unit_others.T).flatten(), same.flatten())


def roc_auc(scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float:
    """Return how often a positive scores above a negative; ties count half.

    Raises:
        InputError: all cases are positive, or all are negative.
    """
    positive, negative = scores[truth], scores[~truth].sort().values
    if not len(positive) or not len(negative):
        raise InputError(
            f"{len(positive)} positive and {len(negative)} negative cases; the area under a ROC"
            " curve needs both"
        )
    below = torch.searchsorted(negative, positive)
    upto = torch.searchsorted(negative, positive, right=True)
    return float((below + upto).double().mean()) / (2 * len(negative))
