"""When seeds fall into two modes, and the exact tests on solved seeds and steps, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from miras_search.analysis.modes import Time, mcnemar, solve_rates, solve_speed, time_to, two_modes


def test_modes_are_found_within_cells_only() -> None:
    assert two_modes([[0.95, 0.97, 0.2], [0.94, 0.21, 0.22]]) == pytest.approx((0.22 + 0.94) / 2)
    assert two_modes([[0.95, 0.97, 0.96], [0.2, 0.21, 0.22]]) is None  # cells that differ are no modes
    assert two_modes([[0.9, 0.7, 0.5, 0.3], [0.8, 0.6, 0.4, 0.2]]) is None  # spread, without a gap


def test_one_mode_is_rarely_taken_for_two() -> None:
    random = np.random.default_rng(0)
    found = [two_modes(random.normal(size=(5, 8))) for _ in range(400)]
    assert sum(limit is not None for limit in found) <= 8


@pytest.mark.parametrize("cells", [[], [[0.5]], [[0.5, 0.5], [0.5, 0.5]], [[], [0.1, 0.9]]])
def test_little_to_see_has_no_modes(cells: list[list[float]]) -> None:
    assert two_modes(cells) is None


def test_solved_seeds_are_compared_in_pairs() -> None:
    cell = {seed: 0.9 for seed in range(8)}
    reference = {seed: 0.9 if seed < 2 else 0.1 for seed in range(8)}
    found = solve_rates(cell, reference, 0.5)
    assert found is not None
    assert (found.cell, found.of, found.reference, found.reference_of) == (8, 8, 2, 8)
    assert found.mcnemar == pytest.approx(2 / 2**6)  # six seeds by one alone: a coin that fell six times alike
    assert found.fisher == pytest.approx(0.00699, abs=1e-5)
    assert found.high == 1.0
    assert mcnemar(0, 0) == 1.0


def test_a_diverged_seed_did_not_solve_it_and_nan_is_refused() -> None:
    found = solve_rates({1: 0.9, 2: -math.inf}, {3: 0.9}, 0.5)
    assert found is not None
    assert (found.cell, found.of, found.mcnemar) == (1, 2, None)
    lower = solve_rates({1: 0.1, 2: math.inf}, {1: 0.9}, 0.5, higher_is_better=False)
    assert lower is not None
    assert (lower.cell, lower.reference) == (1, 0)
    assert solve_rates({}, {1: 0.9}, 0.5) is None
    with pytest.raises(ValueError, match="NaN"):
        solve_rates({1: math.nan}, {1: 0.9}, 0.5)


def test_time_is_the_first_step_beyond_the_limit() -> None:
    curve = [(10.0, 0.2), (20.0, math.nan), (30.0, 0.8), (40.0, 0.1)]
    assert time_to(curve, 0.5) == Time(30.0, True)
    assert time_to(curve[:2], 0.5) == Time(20.0, False)
    assert time_to(curve, 0.15, higher_is_better=False) == Time(40.0, True)
    assert time_to([], 0.5) is None


def test_steps_to_the_solution() -> None:
    fast = {seed: Time(100.0 + seed, True) for seed in range(6)}
    slow = {seed: Time(300.0, seed < 2) for seed in range(6)}
    found = solve_speed(fast, slow)
    assert found is not None
    assert found.exact == pytest.approx(2 / 2**6)
    assert found.logrank is not None
    assert found.logrank < 0.01
    assert found.median == 102.0
    assert found.reference_median is None  # a third of them is not half


def test_nobody_solves_it_or_all_at_once() -> None:
    never = {seed: Time(300.0, False) for seed in range(4)}
    found = solve_speed(never, never)
    assert found is not None
    assert (found.median, found.exact, found.logrank) == (None, 1.0, None)
    alike = {seed: Time(100.0, True) for seed in range(4)}
    found = solve_speed(alike, alike)
    assert found is not None
    assert (found.exact, found.logrank) == (1.0, 1.0)
    assert solve_speed({}, alike) is None


def test_many_pairs_are_drawn() -> None:
    fast = {seed: Time(100.0 + seed, True) for seed in range(20)}
    slow = {seed: Time(300.0 + seed, True) for seed in range(20)}
    found = solve_speed(fast, slow)
    assert found is not None
    assert found.exact == pytest.approx(1 / 20_001)
