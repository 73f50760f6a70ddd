"""Contrasts of a factorial: planted effects, an independent least-squares fit, who has none, and how often they err."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from miras_search.analysis.cells import Cell
from miras_search.analysis.contrasts import Contrast, Contrasts, NoContrasts, contrasts
from miras_search.analysis.factorial import AS_BASE, Levels
from miras_search.analysis.looks import Looks
from miras_search.analysis.paired import sign_flip_stepdown
from miras_search.study.loader import loads

AXES = {"bias": (AS_BASE, "dot"), "memory": (AS_BASE, "mlp", "vector"), "conv": (AS_BASE, "0")}
Value = Callable[[Levels, int], float]


def factorial(axes: Mapping[str, tuple[str, ...]], value: Value, seeds: int = 5) -> dict[Cell, Levels]:
    found = {}
    for number, names in enumerate(itertools.product(*axes.values())):
        levels = dict(zip(axes, names, strict=True))
        found[cell(number, levels, {seed: value(levels, seed) for seed in range(seeds)})] = levels
    return found


class Named(Cell):
    """A cell that can be a key: by its name."""

    def __hash__(self) -> int:
        return hash(self.name)


def cell(number: int, levels: Levels, values: Mapping[int, float], diverged: frozenset[int] = frozenset()) -> Cell:
    changes = {axis: level for axis, level in levels.items() if level != AS_BASE}
    role = "cell" if changes else "base"
    ended = diverged | {*values}
    return Named(str(number), role, number, changes, values, len(ended), 0, diverged, ended=ended)


def found(cells: Mapping[Cell, Levels], looks: Looks | None = None) -> Contrasts:
    return contrasts(list(cells), {one.name: levels for one, levels in cells.items()}, looks)


def by_name(family: tuple[Contrast, ...]) -> dict[str, Contrast]:
    return {str(one): one for one in family}


def planted(levels: Levels, seed: int) -> float:
    """Additive but for dot beside mlp, which gain 0.12 more together."""
    worth = {"dot": 0.3, "mlp": 0.1, "vector": -0.2, "0": -0.05, AS_BASE: 0.0}
    both = 0.12 if levels["bias"] == "dot" and levels["memory"] == "mlp" else 0.0
    return 0.4 + sum(worth[level] for level in levels.values()) + both + 0.03 * seed


def test_planted_effects_by_hand() -> None:
    result = found(factorial(AXES, planted))
    assert (result.seeds, result.of, result.base, result.look) == ((0, 1, 2, 3, 4), "factorial", "0", None)
    mains = {name: one.difference for name, one in by_name(result.mains.contrasts).items()}
    # of dot: 0.3, and in one of three memories 0.12 more; of mlp: 0.1, and in one of two biases
    assert mains == pytest.approx(
        {"bias = dot": 0.34, "memory = mlp": 0.16, "memory = vector": -0.2, "conv = 0": -0.05}
    )
    pairs = {name: one.difference for name, one in by_name(result.interactions.contrasts).items()}
    assert pairs.pop("bias = dot x memory = mlp") == pytest.approx(0.12)
    assert len(pairs) == 4 and list(pairs.values()) == pytest.approx([0.0] * 4)


def test_they_are_the_coefficients_of_a_fit_that_knows_nothing_of_them() -> None:
    """Of each seed's numbers, by least squares on treatment contrasts centred over the other axes."""
    random = np.random.default_rng(1)
    luck = {(names, seed): random.normal() for names in itertools.product(*AXES.values()) for seed in range(6)}
    result = found(factorial(AXES, lambda levels, seed: luck[tuple(levels.values()), seed], seeds=6))
    combinations = list(itertools.product(*AXES.values()))

    def coded(axis: int, level: str) -> np.ndarray:
        on = np.array([names[axis] == level for names in combinations], dtype=float)
        return on - 1 / len(list(AXES.values())[axis])

    singles = {f"{axis} = {level}": coded(place, level) for place, (axis, levels) in enumerate(AXES.items())
               for level in levels[1:]}  # fmt: skip
    pairs = {f"{a} x {b}": singles[a] * singles[b] for a, b in itertools.combinations(singles, 2)
             if a.split(" = ")[0] != b.split(" = ")[0]}  # fmt: skip
    triple = {
        "three": [singles["bias = dot"] * singles["conv = 0"] * singles[f"memory = {m}"] for m in ("mlp", "vector")]
    }
    design = np.column_stack([np.ones(len(combinations)), *singles.values(), *pairs.values(), *triple["three"]])
    assert np.linalg.matrix_rank(design) == design.shape[1] == len(combinations)
    y = np.array([[luck[names, seed] for seed in range(6)] for names in combinations])
    fitted = dict(zip(["mean", *singles, *pairs], np.linalg.solve(design, y), strict=False))
    for name, one in (by_name(result.mains.contrasts) | by_name(result.interactions.contrasts)).items():
        assert one.differences == pytest.approx(fitted[name]), name
    columns = np.array([one.differences for one in result.mains.contrasts]).T
    if not result.mains.is_guarded:
        assert [one.p for one in result.mains.contrasts] == pytest.approx(sign_flip_stepdown(columns).tolist())


FRACTION = """\
name: t
task: mqar
base: delta_net
vary: {bias: [l2, dot], retention: [none, l2], model.conv: [4, 0], model.output_gate: [true, false]}
design: fractional
"""


@pytest.mark.parametrize(
    ("text", "of"),
    [
        (FRACTION + "resolution: 4\n", "fraction"),
        (FRACTION.replace(", model.output_gate: [true, false]", ""), "mixed fraction"),
    ],
)
def test_a_fraction_has_main_effects_alone_and_says_whether_they_are_mixed(text: str, of: str) -> None:
    cells = loads(text, "t.yaml").cells
    axes = list(dict.fromkeys(axis for one in cells for axis in one.changes))
    worth = {"bias": 0.3, "retention": -0.1, "model.conv": 0.05, "model.output_gate": 0.0}
    worth = {axis: worth[axis] for axis in axes}
    rows = {}
    for number, one in enumerate(cells):
        levels = {axis: one.changes.get(axis, AS_BASE) for axis in axes}
        total = sum(worth[axis] for axis in axes if levels[axis] != AS_BASE)
        rows[cell(number, levels, {seed: total + seed for seed in range(4)})] = levels
    result = found(rows)
    assert (result.of, result.interactions.contrasts) == (of, ())
    assert {next(iter(one.levels)): one.difference for one in result.mains.contrasts} == pytest.approx(worth)


def test_who_has_none_and_why() -> None:
    def why(cells: Mapping[Cell, Levels]) -> str:
        with pytest.raises(NoContrasts) as none:
            found(cells)
        return str(none.value)

    cells = factorial(AXES, planted)
    whole = list(cells.items())
    few = "fewer than two axes vary around the base"
    assert why({}) == why(dict(whole[:1])) == few
    assert why(factorial({"bias": AXES["bias"]}, lambda levels, seed: float(seed))) == few  # the table says it all
    unequal = "levels do not meet equally often"
    assert why(dict(whole[:-1])).startswith(unequal)  # a hole
    without_base = {one: levels for one, levels in cells.items() if levels["bias"] != AS_BASE or one.role == "base"}
    assert why(without_base).startswith(unequal) and "has the base among its combinations" in why(without_base)
    one_at_a_time = {one: levels for one, levels in cells.items() if list(levels.values()).count(AS_BASE) >= 2}
    assert why(one_at_a_time).startswith(unequal)
    assert why(factorial(AXES, planted, seeds=1)) == "they take two seeds that all cells completed"
    last, levels = whole[-1]
    lost = cell(last.number, levels, {seed: 0.1 for seed in range(4)}, frozenset({4}))
    assert why({**dict(whole[:-1]), lost: levels}).startswith("11 diverged in some seeds")


LOOKS = Looks(seeds=tuple(range(12)), counts=(8, 12), levels=(0.03, 0.02))


def test_looks_are_paid_for_and_waited_for() -> None:
    """What is read is the last look that all cells have come to, its seeds and no more."""
    random = np.random.default_rng(3)
    luck = {(names, seed): random.normal() for names in itertools.product(*AXES.values()) for seed in range(12)}

    def value(levels: Levels, seed: int) -> float:
        return planted(levels, seed) + 0.1 * luck[tuple(levels.values()), seed]

    def plain(seeds: int) -> Contrasts:
        return found(factorial(AXES, value, seeds))

    ended = found(factorial(AXES, value, 12), LOOKS)
    assert (ended.look, len(ended.seeds)) == (12, 12)
    partly = found(factorial(AXES, value, 10), LOOKS)
    assert (partly.look, len(partly.seeds)) == (8, 8)
    for given, alone, factor in ((ended, plain(12), 0.05 / 0.02), (partly, plain(8), 0.05 / 0.03)):
        for family in ("mains", "interactions"):
            paid, free = getattr(given, family), getattr(alone, family)
            assert paid.smallest == pytest.approx(free.smallest * factor)
            for one, other in zip(paid.contrasts, free.contrasts, strict=True):
                assert (one.difference, one.ci_low, one.ci_high) == (other.difference, other.ci_low, other.ci_high)
                assert one.p == pytest.approx(min(1.0, other.p * factor))
                assert one.p_holm == pytest.approx(min(1.0, other.p_holm * factor))
    with pytest.raises(NoContrasts, match="the look at 8 seeds, the first, waits for its trainings"):
        found(factorial(AXES, value, 7), LOOKS)


def test_a_training_that_failed_is_waited_for_or_left_out_as_declared() -> None:
    whole = list(factorial(AXES, planted, 8).items())
    last, levels = whole[-1]
    kept = {seed: planted(levels, seed) for seed in range(8) if seed != 3}
    lost = Named(last.name, "cell", last.number, last.changes, kept, 8, 1, frozenset(), ended=frozenset(kept),
                 lost=frozenset({3}))  # fmt: skip
    rows = {**dict(whole[:-1]), lost: levels}
    with pytest.raises(NoContrasts, match="waits for its trainings"):
        found(rows, LOOKS)
    assert found(rows, replace(LOOKS, leaves_out=True)).seeds == (0, 1, 2, 4, 5, 6, 7)


def test_what_is_zero_but_for_rounding_is_zero() -> None:
    """A test sees signs alone, so 3e-17 would be an effect."""
    random = np.random.default_rng(0)
    for _ in range(20):
        start = random.uniform(size=8)
        worth = {"bias": random.uniform(), "conv": random.uniform()}

        def value(levels: Levels, seed: int, worth=worth, start=start) -> float:
            return float(start[seed]) + sum(worth[axis] for axis, level in levels.items() if level != AS_BASE)

        (crossed,) = found(factorial({axis: AXES[axis] for axis in worth}, value, 8)).interactions.contrasts
        assert (crossed.differences, crossed.p, crossed.p_holm) == ((0.0,) * 8, 1.0, 1.0)

        def inert(levels: Levels, seed: int, start=start) -> float:
            return round(float(start[seed]) / (1 if levels["conv"] == AS_BASE else 3), 3)

        given = found(factorial({axis: AXES[axis] for axis in worth}, inert, 8))
        of_bias = by_name(given.mains.contrasts)["bias = dot"]
        assert of_bias.differences == given.interactions.contrasts[0].differences == (0.0,) * 8


def test_seeds_are_those_that_all_completed() -> None:
    whole = list(factorial(AXES, planted).items())
    last, levels = whole[-1]
    waiting = cell(last.number, levels, {seed: planted(levels, seed) for seed in (0, 2, 3)})
    result = found({**dict(whole[:-1]), waiting: levels})
    assert result.seeds == (0, 2, 3)
    assert len(result.mains.contrasts[0].differences) == 3


@pytest.mark.parametrize("noise", ["normal", "exponential"])
def test_studies_without_any_effect_decide_something_in_about_one_of_twenty(noise: str) -> None:
    random = np.random.default_rng(5)
    axes = {"bias": AXES["bias"], "conv": AXES["conv"]}
    wrong = {"mains": 0, "interactions": 0}
    studies = 300
    for _ in range(studies):
        luck = random.normal(size=(4, 8)) if noise == "normal" else random.exponential(size=(4, 8))
        rows = iter(luck)
        drawn = {names: next(rows) for names in itertools.product(*axes.values())}
        result = found(factorial(axes, lambda levels, s, drawn=drawn: float(drawn[tuple(levels.values())][s]), seeds=8))
        for kind in wrong:
            family = getattr(result, kind)
            wrong[kind] += any(one.p < 0.05 for one in family.contrasts)
    assert all(count <= 0.08 * studies for count in wrong.values()), wrong
