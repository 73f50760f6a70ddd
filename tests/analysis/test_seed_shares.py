"""Variance components of crossed seeds on cases whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from miras_search.analysis.seed_shares import seed_shares
from miras_search.seeds import FIRST_CROSSED_SEED, crossed, crossed_seeds
from miras_search.training.config import Seeds


def test_variance_of_the_seeds_comes_back() -> None:
    random = np.random.default_rng(0)
    values = random.normal(0, 2, (60, 1, 1)) + random.normal(0, 1, (1, 60, 1)) + random.normal(0, 0.5, (60, 60, 4))
    found = seed_shares(values)
    assert found is not None
    by_name = {str(one): one.variance for one in found}
    assert by_name["init"] == pytest.approx(4.0, rel=0.4)
    assert by_name["data"] == pytest.approx(1.0, rel=0.4)
    assert by_name["init x data x eval"] == pytest.approx(0.25, rel=0.1)
    assert by_name["eval"] < 0.01
    assert math.fsum(one.share for one in found) == pytest.approx(1.0)


def test_variance_components_by_hand() -> None:
    # rows differ by 2, columns do not, no interaction: mean squares 4 and 0 and 0, so init = 4 / 2
    found = seed_shares([[0.0, 0.0], [2.0, 2.0]], ("init", "data"))
    assert found is not None
    assert {str(one): one.variance for one in found} == {"init": 2.0, "data": 0.0, "init x data": 0.0}


def test_seeds_without_a_crossing_have_no_shares() -> None:
    assert seed_shares(np.ones((2, 2, 2))) is None
    assert seed_shares(np.arange(3.0)[:, None, None]) is None
    with pytest.raises(ValueError, match="expected one axis for each"):
        seed_shares([1.0, 2.0])
    with pytest.raises(ValueError, match="not finite"):
        seed_shares([[1.0, math.nan], [1.0, 2.0]], ("init", "data"))


def test_a_crossed_seed_sets_each_generator_by_itself() -> None:
    found = {crossed(seed): Seeds.of(seed) for seed in crossed_seeds(3)}
    assert list(found)[:4] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)]
    assert len(found) == 27
    for role, place in (("init", 0), ("data", 1), ("eval", 2)):
        numbers = {levels[place]: {getattr(one, role) for key, one in found.items() if key[place] == levels[place]}
                   for levels in found}  # fmt: skip
        assert all(len(same) == 1 for same in numbers.values())
        assert len(set.union(*numbers.values())) == 3
    assert found[0, 1, 2].init == Seeds.of(0).init
    assert crossed(0) is crossed(FIRST_CROSSED_SEED - 1) is None
