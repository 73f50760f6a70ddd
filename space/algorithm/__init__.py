"""Memory learning algorithm, axis 4: how the gradient of a token becomes a change of the memory. One file an option."""

from miras_search.space.algorithm.descent import Gd, Momentum
from miras_search.space.algorithm.multi_step import MultiStep
from miras_search.space.algorithm.protocol import (
    ALGORITHM,
    Algorithm,
    Coefficients,
    Descent,
    Pairs,
    Writes,
    decay_matrix,
)
from miras_search.space.siblings import load_siblings

load_siblings(__name__, __path__)

__all__ = [
    "ALGORITHM",
    "Algorithm",
    "Coefficients",
    "Descent",
    "Gd",
    "Momentum",
    "MultiStep",
    "Pairs",
    "Writes",
    "decay_matrix",
]
