"""The area under the ROC curve, which judges directions, scorers and identities alike."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .errors import W2WError


def roc_auc(scores: Float[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float:
    """Give how often a true case scores above a false one; ties count half.

    Raises:
        W2WError: all cases are true, or all are false.
    """
    positive, negative = scores[truth], scores[~truth].sort().values
    if not len(positive) or not len(negative):
        raise W2WError(
            f"{len(positive)} true and {len(negative)} false cases: expected some of both, which"
            " the area under a ROC curve compares"
        )
    below = torch.searchsorted(negative, positive)
    upto = torch.searchsorted(negative, positive, right=True)
    return float((below + upto).double().mean()) / (2 * len(negative))
