"""An edit judged by a reader: whether it succeeded, and what else it changed."""

import pytest
import torch

from weights2weights.errors import W2WError
from weights2weights.metrics.attributes import edit_success, logit, others_kept

NAMES = ("Bald", "Wavy_Hair", "Male", "Chubby")


def test_logit_inverts_the_sigmoid_and_stays_finite():
    x = torch.linspace(-9, 9, 7)
    torch.testing.assert_close(logit(x.sigmoid()), x, atol=2e-3, rtol=0)
    assert torch.isfinite(logit(torch.tensor([0.0, 1.0]))).all()


def test_success_where_there_was_something_to_change():
    before = torch.tensor([[0.1, 0.9], [0.2, 0.3]])
    after = torch.tensor([[0.9, 0.9], [0.4, 0.7]])
    nan = float("nan")
    wanted = torch.tensor([[1.0, nan], [0.0, 1.0]])
    torch.testing.assert_close(edit_success(after, True, before), wanted, equal_nan=True)
    assert edit_success(after, True).tolist() == [[1, 1], [0, 1]]
    assert edit_success(after, False).tolist() == [[0, 0], [1, 0]]


def test_others_kept_counts_neither_the_edited_nor_the_excused():
    before = torch.tensor([0.1, 0.9, 0.9, 0.2])
    after = torch.tensor([0.9, 0.1, 0.6, 0.7])
    assert float(others_kept(before, after, NAMES, "Bald")) == pytest.approx(1 / 3)
    assert float(others_kept(before, after, NAMES, "Bald", ["Wavy_Hair"])) == 0.5
    assert float(others_kept(before, after, NAMES, ["Bald", "Chubby"], ["Wavy_Hair"])) == 1.0
    batch = others_kept(before.expand(2, 3, 4), after.expand(2, 3, 4), NAMES, "Bald")
    assert batch.shape == (2, 3)


def test_unknown_labels_and_none_left_are_errors():
    p = torch.rand(2, 4)
    with pytest.raises(W2WError, match="unknown label 'Blond'"):
        others_kept(p, p, NAMES, "Blond")
    with pytest.raises(W2WError, match="none is left"):
        others_kept(p, p, NAMES, "Bald", NAMES[1:])
