"""Do pictures show the same subject? Identity similarity, and the area under the ROC curve."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def roc_auc(scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float:
    """Give the area under the ROC curve: how often a true case scores above a false one.

    Ties count half (the Mann-Whitney statistic from average ranks).

    Raises:
        ValueError: all cases are true, or all are false.
    """
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if positives == 0 or negatives == 0:
        raise ValueError(
            f"roc_auc needs true and false cases, got {positives} true and {negatives} false ones"
        )
    _, place, count = scores.double().unique(return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0) - (count - 1).double() / 2)[place]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


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
        ValueError: no pair shows one subject, or all do.
    """
    unit = torch.nn.functional.normalize(embeddings, dim=-1)
    if others is None or other_subjects is None:
        first, second = torch.triu_indices(len(unit), len(unit), 1)
        return roc_auc((unit @ unit.T)[first, second], subjects[first] == subjects[second])
    unit_others = torch.nn.functional.normalize(others, dim=-1)
    same = subjects[:, None] == other_subjects[None, :]
    return roc_auc((unit @ unit_others.T).flatten(), same.flatten())
