"""Directions: what to add to a model so that its subject becomes bald or younger.

A direction is a unit vector n in the coefficients of the training models, found from a label: the
normal of a linear classifier, or the way in which models with the label differ from those without.
Its metric is the Euclidean one of coefficients, which is that of standardised weights. An edit adds
a · spread · n to a model's coefficients, where `spread` is the standard deviation of the training
models along n: strength a means the same for every attribute and every space. The paper's own rule,
one fixed length for each direction, is the strength "paper".

Five ways to a direction, all with an intercept and with equal weight for both classes, so that a
rare label is no weaker than a frequent one:

- `effect`, the default for labels: how mean coefficients change with the label while the other
  labels of the space stay, by multiple regression of the coefficients on all labels, with a
  penalty. A small one separates the labels wholly; a very large one, or no other label, leads to
  `mean_difference`.
- `least_squares`, the paper's: against labels ±1. With n models and components j the normal is
  proportional to S⁻¹ Δ, where S is the mean of the two classes' covariances and Δ the difference of
  their means: what correlates with the label but is not needed to tell it drops out.
- `ridge`: the same with a penalty. From none to a very large one it leads from least squares to
- `mean_difference`: Δ itself, which moves along everything that goes with the label.
- `logistic`: logistic regression with a small penalty.

A classifier's normal answers another question than an edit asks: how best to tell models apart, not
how they differ. In the people space, edits along `effect` leave more of the other labels as they
were, and of the person, than edits along `ridge` that succeed as often.

Effect and ridge use all components; for the others cross-validation chooses how many. Every
direction says how well it tells held-out models apart; that figure comes from folds which had no
part in the choice.

`_fit` is the maths, `_find` gets from labels, sets of models or scores to a direction,
`_direction` is the direction and what it does to models.

Source: Dravid et al. 2024, arXiv:2406.09413, sections 3.3, 4.1 and 4.3, appendix B.
"""

from ._direction import Direction, cosines, edit, edit_model, edit_weights
from ._find import (
    direction_between,
    direction_from_scores,
    find_direction,
    find_directions,
    score_models,
)
from ._fit import METHODS, Method

__all__ = [
    "METHODS",
    "Direction",
    "Method",
    "cosines",
    "direction_between",
    "direction_from_scores",
    "edit",
    "edit_model",
    "edit_weights",
    "find_direction",
    "find_directions",
    "score_models",
]
