"""Directions: what to add to a model so that its subject becomes bald or younger.

A direction is a unit vector in the coefficients of the training models, found from a label. Its
strengths count their standard deviations along it, so that they mean the same for every attribute
and space. docs/maths.md explains the methods.

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
