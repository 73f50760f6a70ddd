"""Which seeds are for what. A search compares trials on small ones; its best are compared again on seeds of their own.

At the bottom, because the study, the engine and the readers all tell the two apart.
"""

from __future__ import annotations

FIRST_CONFIRM_SEED = 1_000_000
FIRST_CALIBRATION_SEED = 3_000_000
FIRST_TUNE_SEED = 2_000_000
"""Of those that tuning derives; which ones a study is tuned on is part of its configuration."""


def confirms(seed: int) -> bool:
    """Whether a job with this seed belongs to the confirmation of a search."""
    return seed >= FIRST_CONFIRM_SEED
