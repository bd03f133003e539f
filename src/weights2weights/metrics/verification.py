"""Do pictures show the same subject? Identity similarity, and the area under the ROC curve."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._roc import roc_auc as roc_auc


def id_score(
    embeddings: Float[Tensor, "*batch e"], others: Float[Tensor, "*batch e"]
) -> Float[Tensor, "*batch"]:
    """Give the cosine similarity of identity embeddings, pair by pair (the paper's ID score)."""
    return torch.nn.functional.cosine_similarity(embeddings, others, dim=-1)


def verification_auc(
    embeddings: Float[Tensor, "n e"],
    subjects: Int[Tensor, " n"],
    others: Float[Tensor, "m e"] | None = None,
    other_subjects: Int[Tensor, " m"] | None = None,
) -> float:
    """Give how often two pictures of one subject are more alike than two of different subjects.

    Args:
        embeddings: identity embeddings of pictures.
        subjects: who is in each.
        others: a second set to compare with; None compares the first with itself, each pair once.
        other_subjects: who is in those.

    Raises:
        W2WError: no pair shows one subject, or all do.
    """
    unit = torch.nn.functional.normalize(embeddings, dim=-1)
    if others is None or other_subjects is None:
        first, second = torch.triu_indices(len(unit), len(unit), 1)
        return roc_auc((unit @ unit.T)[first, second], subjects[first] == subjects[second])
    unit_others = torch.nn.functional.normalize(others, dim=-1)
    same = subjects[:, None] == other_subjects[None, :]
    return roc_auc((unit @ unit_others.T).flatten(), same.flatten())
