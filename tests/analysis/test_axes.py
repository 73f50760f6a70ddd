"""Effects of axes, Shapley's shares, importances and seed shares on cases whose answers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from miras_search.analysis.factorial import AS_BASE, Observation, anova
from miras_search.analysis.importance import Method, all_importances, importances
from miras_search.analysis.shapley import shapley


def table(worth: dict[tuple[str, str], float], seeds: int = 3, noise: float = 0.0) -> list[Observation]:
    random = np.random.default_rng(0)
    return [
        Observation({"bias": a, "memory": b}, seed, value + 0.5 * seed + noise * random.normal())
        for (a, b), value in worth.items()
        for seed in range(seeds)
    ]


ADDITIVE = {("l2", "m"): 0.0, ("l2", "n"): 1.0, ("dot", "m"): 2.0, ("dot", "n"): 3.0}


def test_shares_of_a_sum_by_hand() -> None:
    found = anova(table(ADDITIVE))
    assert found is not None
    assert found.method == "exact"
    shares = {str(one): one.share for one in found.effects}
    assert shares == pytest.approx({"bias": 0.8, "memory": 0.2, "bias x memory": 0.0})
    assert {str(one): one.p for one in found.effects} == {"bias": 0.0, "memory": 0.0, "bias x memory": 1.0}  # no noise
    assert found.noise_sd == 0.0


def test_one_axis_at_a_time_has_main_effects_and_says_what_it_cannot_tell() -> None:
    found = anova([one for one in table(ADDITIVE, noise=0.1) if one.levels != {"bias": "dot", "memory": "n"}])
    assert found is not None
    assert found.method == "least squares"
    assert [one.term for one in found.effects] == [("bias",), ("memory",)]
    assert found.left_out == (("bias", "memory"),)
    assert all(one.p is not None and one.p < 0.001 for one in found.effects)
    assert all(one.p_holm is not None and one.p is not None and one.p_holm >= one.p for one in found.effects)


def test_one_seed_leaves_nothing_for_the_noise() -> None:
    found = anova(table(ADDITIVE, seeds=1))
    assert found is not None
    assert found.noise_sd is None
    assert all(one.p is None and one.f is None for one in found.effects)
    assert found.effects[0].share == pytest.approx(0.8)


def test_nothing_varies() -> None:
    assert anova([]) is None
    assert anova([Observation({"bias": "l2"}, seed, 0.5) for seed in range(3)]) is None
    flat = anova(table(dict.fromkeys(ADDITIVE, 1.0)))
    assert flat is not None
    assert {one.share for one in flat.effects} == {0.0}
    assert {one.p for one in flat.effects} == {1.0}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Observation({"bias": "l2", "memory": "m"}, 9, math.nan), "not finite"),
        (Observation({"bias": "l2"}, 9, 0.0), "differ in their axes"),
        (Observation({"bias": "l2", "memory": "m"}, 0, 0.0), "two values"),
    ],
)
def test_bad_observations_are_refused(bad: Observation, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        anova([*table(ADDITIVE), bad])


def test_shapley_splits_an_interaction_in_halves() -> None:
    worth = {("l2", "m"): 0.0, ("l2", "n"): 0.0, ("dot", "m"): 0.0, ("dot", "n"): 1.0}  # only both together
    found = shapley(table(worth), {"bias": "l2", "memory": "m"}, {"bias": "dot", "memory": "n"})
    assert found is not None
    assert {one.axis: one.value for one in found.shares} == pytest.approx({"bias": 0.5, "memory": 0.5})
    assert (found.whole, found.seeds) == (1.0, 3)


def test_shapley_is_the_mean_over_orders_and_adds_up() -> None:
    random = np.random.default_rng(1)
    data = [
        Observation(dict(zip("abc", levels, strict=True)), seed, float(random.normal()))
        for levels in itertools.product("01", repeat=3)
        for seed in range(4)
    ]
    start, end = dict.fromkeys("abc", "0"), dict.fromkeys("abc", "1")
    found = shapley(data, start, end)
    assert found is not None
    assert math.fsum(one.value for one in found.shares) == pytest.approx(found.whole)
    mean = {key: np.mean([one.value for one in data if tuple(one.levels.values()) == key]) for key in
            itertools.product("01", repeat=3)}  # fmt: skip
    steps = []
    for order in itertools.permutations(range(3)):
        before = ["0"] * 3
        for axis in order:
            after = [*before]
            after[axis] = "1"
            if axis == 0:
                steps.append(mean[tuple(after)] - mean[tuple(before)])
            before = after
    assert found.shares[0].value == pytest.approx(np.mean(steps))


def test_shapley_needs_every_mixture() -> None:
    data = [one for one in table(ADDITIVE) if one.levels != {"bias": "dot", "memory": "m"}]
    assert shapley(data, {"bias": "l2", "memory": "m"}, {"bias": "dot", "memory": "n"}) is None
    assert shapley(data, {"bias": "l2", "memory": "m"}, {"bias": "l2", "memory": "m"}) is None
    one = shapley(data, {"bias": "l2", "memory": "m"}, {"bias": "l2", "memory": "n"})
    assert one is not None
    assert one.shares[0].value == pytest.approx(1.0)


def test_ped_anova_ranks_the_axis_that_matters_first() -> None:
    random = np.random.default_rng(0)
    data = [
        Observation({"bias": a, "memory": b}, seed, (a == "dot") + 0.01 * float(random.normal()))
        for a in ("l2", "dot", "kl")
        for b in "mn"
        for seed in range(5)
    ]
    found = importances(data)
    assert found is not None
    assert next(iter(found.shares)) == "bias"
    assert math.fsum(found.shares.values()) == pytest.approx(1.0)
    assert "best tenth" in found.label
    assert importances(data[:9]) is None
    assert importances([Observation(one.levels, one.seed, 1.0) for one in data]) is None


@pytest.mark.parametrize("method", ["PED-ANOVA", "fANOVA"])
def test_an_axis_drawn_from_a_range_is_no_list_of_choices(method: Method) -> None:
    """As choices every rate would be a level of its own, and to have any would tell all."""
    random = np.random.default_rng(0)
    data = []
    for seed in range(120):
        rate, bias = float(10 ** random.uniform(-4, -1)), str(random.choice(["l2", "dot"]))
        value = float((bias == "dot") + 0.05 * random.normal())
        data.append(Observation({"train.lr": f"{rate:.6g}", "bias": bias}, seed, value))
    base = Observation({"train.lr": AS_BASE, "bias": AS_BASE}, 0, 5.0)  # no number on that axis: left out
    found = importances([*data, base], method=method)
    assert found is not None
    assert list(found.shares) == ["bias", "train.lr"] and found.shares["bias"] > 0.7


def test_fanova_shares_the_variance_of_a_forest() -> None:
    data = table(ADDITIVE, seeds=6, noise=0.1)
    found = importances(data, method="fANOVA")
    assert found is not None
    assert "forest" in found.label
    assert [one.method for one in all_importances(data)] == ["PED-ANOVA", "fANOVA"]
