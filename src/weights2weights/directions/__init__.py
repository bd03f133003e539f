"""Directions: what to add to a model so that its subject becomes bald or younger.

A direction is a unit vector n in the coefficients of the training models, found from a label: the
normal of a linear classifier, or how models with the label differ from those without. Lengths are
Euclidean in coefficients, which is Euclidean in standardised weights. An edit adds a · std · n to a
model's coefficients, where `std` is the standard deviation of the training models along n: strength
a means the same for every attribute and every space.

Four methods:

- `effect`, the default for labels: how the mean coefficients change with the label while the other
  labels of the space are held fixed, by multiple regression on all labels with a penalty. A small
  one separates the labels; a very large one, or no other label, gives `mean_difference`.
- `ridge`: the normal of a ridge classifier, proportional to (S + penalty)⁻¹ Δ, where S is the mean
  of the two classes' covariances and Δ the difference of their means: what correlates with the
  label but is not needed to classify it drops out.
- `least_squares`, the paper's: pinv(X) y for the coefficients X of the labelled models and their
  labels y = ±1, neither centred nor weighted by class.
- `mean_difference`: Δ itself, which moves along everything that co-occurs with the label.

All but the paper's give both classes equal weight. A classifier's normal tells models apart; it
does not say how they differ. In the people space, edits along `effect` preserve more of the other
labels, and of the person, than edits along `ridge` that succeed as often.

Every direction reports how well it classifies held-out models, by cross-validation.

Source: Dravid et al. 2024, arXiv:2406.09413, sections 3.3, 4.1 and 4.3, appendix B.
"""

from ._direction import Direction, cosines
from ._edit import edit
from ._find import direction_between, direction_from_scores, find_direction, find_directions
from ._fit import METHODS, FitOptions

__all__ = [
    "METHODS",
    "Direction",
    "FitOptions",
    "cosines",
    "direction_between",
    "direction_from_scores",
    "edit",
    "find_direction",
    "find_directions",
]
