"""The bench of the statistics on a few studies: it runs the whole pipeline, and its figures mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from miras_search.bench import pipeline, statistics
from miras_search.bench.surrogate import SETTINGS, Setting


def test_the_bench_reports_error_coverage_and_power() -> None:
    result = statistics.run(studies=8, settings=("normal", "noisy base"), seeds=(6, 8))
    family, coverage, power = (result[name] for name in ("family", "coverage", "power"))
    assert isinstance(family, list)
    assert isinstance(coverage, list)
    assert isinstance(power, list)
    assert [(row["setting"], row["seeds"]) for row in family] == [
        ("normal", 6), ("normal", 8), ("noisy base", 6), ("noisy base", 8),
    ]  # fmt: skip
    assert all(row["low"] <= row["error"] <= row["high"] for row in family)
    assert family[-1]["guarded"] > family[0]["guarded"]
    assert {row["interval"] for row in coverage} == {"table", "t, BCa"}
    assert len(power) == 2 * len(statistics.EFFECTS)
    text = statistics.table(result)
    assert "family-wise error" in text
    assert "noisy base" in text


def test_the_same_start_gives_the_same_figures() -> None:
    first, again = (statistics.run(studies=4, settings=("modes",), seeds=(6,), start=3) for _ in range(2))
    assert first["family"] == again["family"]
    assert first["power"] == again["power"]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_noise_has_the_mean_zero(name: str) -> None:
    drawn = SETTINGS[name].noise(np.random.default_rng(0), 40_000, 4)
    assert drawn.mean(axis=0) == pytest.approx(np.zeros(4), abs=0.06)


def test_cells_that_are_alike_share_their_noise() -> None:
    name = "skewed base, alike cells"
    drawn = SETTINGS[name].noise(np.random.default_rng(0), 8, 6)
    assert (drawn[:, 1:] == drawn[:, [1]]).all() and (drawn[:, 0] != drawn[:, 1]).all()
    (row,) = statistics.run(studies=3, settings=(name,), seeds=(6,))["family"]
    assert row["setting"] == name and row["guarded"] > 0


def test_intervals_of_one_study_count_as_far_as_they_differ() -> None:
    random = np.random.default_rng(0)
    hits = (random.random((400, 5)) < 0.95).astype(float).tolist()
    apart = [[(-one, 1.0) if one else (0.5, 1.0) for one in study] for study in hits]
    alike = [study[:1] * 5 for study in apart]
    widths = []
    for studies in (apart, alike):
        row = statistics._covered("normal", 8, "table", studies)
        assert row["low"] < row["coverage"] < row["high"]
        widths.append(row["high"] - row["low"])
    assert widths[1] == pytest.approx(np.sqrt(5) * widths[0], rel=0.2)


def test_stages_before_the_comparison_have_a_place() -> None:
    seen: list[Sequence[int]] = []

    def look(setting: Setting, random: np.random.Generator, candidates: Sequence[int]) -> Sequence[int]:
        seen.append(candidates)
        return candidates[:7]

    plan = pipeline.Plan(seeds=6, prepare=(look, pipeline.pilot(5)))
    found = pipeline.run(SETTINGS["normal"], plan, np.random.default_rng(0))
    assert list(seen[0]) == list(range(1, 41))
    assert len(found.intervals) == plan.cells


def test_a_large_effect_is_decided_and_only_that() -> None:
    effect = np.array([20.0, 0.0, 0.0, 0.0, 0.0])
    random = np.random.default_rng(0)
    found = [pipeline.run(SETTINGS["normal"], pipeline.Plan(seeds=8), random, effect) for _ in range(20)]
    assert sum(0 in one.decided for one in found) >= 18
    assert sum(bool(one.decided - {0}) for one in found) <= 4


def test_tuning_keeps_the_best_setting_of_each_cell_and_a_pilot_the_best_cells() -> None:
    def noise(random: np.random.Generator, seeds: int, columns: int) -> np.ndarray:
        return np.tile(np.arange(columns) % 5, (seeds, 1)).astype(float)

    known, random = Setting("known", "no noise", noise), np.random.default_rng(0)
    assert pipeline.tune(4)(known, random, range(1, 13)) == [4, 8, 9]
    assert pipeline.pilot(2)(known, random, [3, 4, 8, 9]) == [4, 9]
