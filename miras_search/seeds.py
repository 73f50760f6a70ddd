"""Which seeds are for what, and what so many can show.

A search compares trials on small ones; its best are compared again on seeds of their own. At the bottom, because the
study, the engine and the readers all tell the two apart, and a plan promises what the test can keep.
"""

from __future__ import annotations

FIRST_CONFIRM_SEED = 1_000_000
FIRST_CALIBRATION_SEED = 3_000_000
FIRST_TUNE_SEED = 2_000_000
"""Of those that tuning derives; which ones a study is tuned on is part of its configuration."""


def confirms(seed: int) -> bool:
    """Whether a job with this seed belongs to the confirmation of a search."""
    return seed >= FIRST_CONFIRM_SEED


EXACT_SEEDS = 16  # 2^15 distinct flips at this size; beyond it the flips are drawn
DRAWS = 65_535  # with the unflipped data counted in, the smallest p is 1 / 65,536, what 17 seeds would attain exactly


def smallest_p(seeds: int) -> float:
    """The smallest two-sided p that so many paired seeds can reach by sign flips: 2 / 2^n, at most 1; more where they
    are drawn.
    """
    return min(1.0, max(2.0 / 2.0**seeds, 1.0 / (DRAWS + 1.0)))


FIRST_CROSSED_SEED = 2_000_000_000
MOST_CROSSED = 32
"""Starts, draws of training data and evaluations that can be told apart in a crossed seed."""


def crossed_seeds(levels: int) -> list[int]:
    """The seeds that cross so many starts, draws of training data and evaluations, evaluations changing fastest."""
    digits = range(levels)
    return [
        FIRST_CROSSED_SEED + (start * MOST_CROSSED + data) * MOST_CROSSED + evaluation
        for start in digits
        for data in digits
        for evaluation in digits
    ]


def crossed(seed: int) -> tuple[int, int, int] | None:
    """Which start, draw of training data and evaluation a crossed seed stands for; None for any other."""
    number = seed - FIRST_CROSSED_SEED
    if not 0 <= number < MOST_CROSSED**3:
        return None
    start, rest = divmod(number, MOST_CROSSED**2)
    return (start, *divmod(rest, MOST_CROSSED))
