"""The area under the ROC curve against scikit-learn's, and verification by identity embeddings."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from weights2weights.errors import W2WError
from weights2weights.metrics.verification import id_score, roc_auc, verification_auc


@pytest.mark.parametrize("levels", [3, 1000])
def test_roc_auc_equals_scikit_learn_with_and_without_ties(levels):
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(500, generator=generator) < 0.3
    noise = torch.rand(500, generator=generator)
    scores = ((noise + 0.4 * truth) * levels).round()
    assert roc_auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_roc_auc_of_one_class_is_an_error():
    with pytest.raises(W2WError, match="3 positive and 0 negative"):
        roc_auc(torch.rand(3), torch.ones(3, dtype=torch.bool))


def test_verification_counts_every_pair_once():
    embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    subjects = torch.tensor([0, 0, 1, 1])
    assert verification_auc(embeddings, subjects) == 1.0
    assert verification_auc(embeddings, torch.tensor([0, 1, 0, 1])) == pytest.approx(0.25, abs=0.26)
    assert verification_auc(embeddings, subjects, embeddings.flip(0), subjects.flip(0)) == 1.0


def test_id_score_is_a_cosine():
    a, b = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [-1.0, -1.0]])
    torch.testing.assert_close(id_score(a, b), torch.tensor([1.0, -1.0]))
