"""Tests in several looks: who is tested when, on which seeds, and what p is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from miras_search.analysis.cells import Cell, gather
from miras_search.analysis.comparison import joint_test
from miras_search.analysis.looks import Looked, Looks, test_in_looks
from miras_search.analysis.noise import noise_of
from miras_search.analysis.paired import leaning_interval, t_interval
from miras_search.analysis.table import ablation_table

test_in_looks.__test__ = False  # it is no test of pytest's
LOOKS = Looks(seeds=tuple(range(12)), counts=(8, 12), levels=(0.03, 0.02))
RANDOM = np.random.default_rng(5)
BASE = (0.5 + 0.02 * RANDOM.normal(size=12)).tolist()
CLEAR = [value + 0.2 + 0.01 * noise for value, noise in zip(BASE, RANDOM.normal(size=12), strict=True)]
SAME = [value + 0.02 * noise for value, noise in zip(BASE, RANDOM.normal(size=12), strict=True)]
SLIGHT = [value + 0.013 + 0.01 * noise for value, noise in zip(BASE, RANDOM.normal(size=12), strict=True)]


def cells(results, **columns) -> list[Cell]:
    rows = results({"l2": BASE, **columns})
    return gather(rows, task="recall", metric="accuracy", split="test")


def look(found: list[Cell], looks: Looks = LOOKS) -> Looked:
    return test_in_looks(found[0], found[1:], looks)


def p(found: Looked) -> dict[int, float]:
    return {number: test.p[number] for number, test in found.tests.items()}


def test_the_first_look_decides_the_clear_and_wants_seeds_for_the_rest(results) -> None:
    found = cells(results, dot=CLEAR[:8], kl=SAME[:8])
    said = look(found)
    assert (said.taken, said.decided, said.wanting) == (1, {1: 0}, (2,))
    at_once = joint_test(found[0], found[1:]).p
    short = cells(results, dot=CLEAR[:8], kl=SAME[:8])
    assert p(said)[1] == pytest.approx(joint_test(short[0], short[1:]).p[1] * 0.05 / 0.03)
    assert p(said)[2] == pytest.approx(min(1.0, at_once[2] * 0.05 / 0.03))


def test_a_look_waits_for_all_of_its_trainings(results) -> None:
    found = cells(results, dot=CLEAR[:8], kl=[*SLIGHT[:10], "running", "waiting"])
    said = look(found)
    assert (said.taken, said.wanting, said.tests[2].seeds) == (1, (2,), tuple(range(8)))
    found = cells(results, dot=CLEAR[:7], kl=SAME[:8])
    assert (look(found).taken, look(found).decided, p(look(found))) == (0, {}, {})


def test_a_failed_training_is_no_result_so_its_look_waits_or_leaves_it_out_as_declared(results) -> None:
    rows = results({"l2": BASE, "dot": CLEAR[:8], "kl": [*SAME[:3], "failed", *SAME[4:8]]})
    found = gather(rows, task="recall", metric="accuracy", split="test")
    held = look(found)
    assert (held.taken, held.decided, held.wanting, p(held)) == (0, {}, (), {})
    assert held.failed == {"kl": [3]}
    table = ablation_table(rows, study="s", metric="accuracy", task="recall", looks=LOOKS)
    assert "The look at 8 seeds waits for trainings that failed and so have no result (kl: seed 3)." in table.notes
    assert all(row.p is None and not row.mark for row in table.rows) and "0 of 2 are taken" in table.caption
    assert not any(row.verdict is not None and row.verdict.endswith(" decided") for row in table.rows)

    left_out = look(found, replace(LOOKS, leaves_out=True))
    assert (left_out.taken, left_out.decided, left_out.wanting, left_out.failed) == (1, {1: 0}, (2,), {})
    assert left_out.tests[1].seeds == (0, 1, 2, 4, 5, 6, 7)
    later = cells(results, dot=CLEAR[:8], kl=[*SAME[:9], "failed", *SAME[10:]])
    assert (look(later).taken, look(later).wanting, look(later).failed) == (1, (2,), {"kl": [9]})


def test_the_second_look_tests_what_is_left_on_all_seeds(results) -> None:
    found = cells(results, dot=CLEAR[:8], kl=SLIGHT, lp=SAME)
    first = look(cells(results, dot=CLEAR[:8], kl=SLIGHT[:8], lp=SAME[:8]))
    said = look(found)
    assert first.wanting[-1] == 3
    assert (said.taken, said.wanting) == (2, ())
    left = [found[0], *(cell for cell in found[1:] if cell.number in first.wanting)]
    alone = joint_test(left[0], left[1:])
    assert p(said)[3] == pytest.approx(min(1.0, alone.p[3] * 0.05 / 0.02))
    assert said.tests[1] == first.tests[1]  # decided is decided
    assert said.tests[3].seeds == tuple(range(12))
    assert said.tests[3].factor == pytest.approx(2.5)


def test_what_is_all_decided_or_diverged_wants_nothing(results) -> None:
    assert look(cells(results, dot=CLEAR[:8], kl=CLEAR[:8])).wanting == ()
    bad = [*SAME[:7], "diverged"]
    assert look(cells(results, dot=CLEAR[:8], kl=bad)).wanting == ()
    rows = results({"l2": [*BASE[:7], "diverged"], "dot": SAME[:8]})
    found = gather(rows, task="recall", metric="accuracy", split="test")
    assert (look(found).wanting, p(look(found))) == ((), {})


def test_a_cell_that_diverges_later_has_no_p_any_more(results) -> None:
    said = look(cells(results, dot=SAME, kl=[*SAME[:11], "diverged"]))
    assert set(p(said)) == {1}
    assert said.taken == 2


def test_a_table_tells_the_looks(results) -> None:
    rows = results({"l2": BASE, "dot": CLEAR[:8], "kl": SAME[:8]})
    table = ablation_table(rows, study="s", metric="accuracy", task="recall", looks=LOOKS)
    assert (
        "Looks at 8 and 12 seeds, declared before any result, spend 3 and 2 % of the 5 % error; 1 of 2" in table.caption
    )
    assert f"smallest p {2 / 2**8 * 5 / 3:.2g}" in table.caption
    dot = next(row for row in table.rows if row.cell == "dot")
    assert dot.verdict is not None and dot.verdict.endswith("decided")
    again = ablation_table(
        results({"l2": BASE, "dot": CLEAR[:8], "kl": SAME}), study="s", metric="accuracy", task="recall", looks=LOOKS
    )
    assert "2 of 2 are taken" in again.caption
    assert next(row.p for row in again.rows if row.cell == "dot") == dot.p


ZIGZAG = np.array([1.0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1])
LATE = np.array([1.0, -1, 1, -1, 1, -1, 1, -1, 1, 1, -11, 1])  # skewed once it has eleven seeds
EARLY = np.array([1.0, 1, 1, 1, 1, -7, 1, 1, -1, 7, -1, -1])  # skewed in the first eight alone


@pytest.mark.parametrize(("noise", "guarded"), [(EARLY, (True, False)), (LATE, (False, True))])
def test_a_cell_is_told_by_the_look_that_decided_it(results, noise: np.ndarray, guarded: tuple[bool, bool]) -> None:
    """A look that asks for more than sign flips speaks of what it tested, and of nothing that was decided before."""
    base = np.full(12, 0.5) + 0.001 * np.arange(12)
    wiggle = EARLY[:8] if guarded[0] else ZIGZAG[:8]
    values = {"l2": base, "dot": base[:8] + 0.2 + 0.004 * wiggle, "kl": base + 0.004 * noise}
    rows = results({name: one.tolist() for name, one in values.items()})
    found = gather(rows, task="recall", metric="accuracy", split="test")
    said = test_in_looks(found[0], found[1:], LOOKS, check=True)
    assert said.decided == {1: 0}
    assert (said.tests[1].is_guarded, said.tests[2].is_guarded) == guarded

    table = ablation_table(rows, study="s", metric="accuracy", task="recall", looks=LOOKS)
    shown = {row.cell: row for row in table.rows}
    for name, number, careful in zip(("dot", "kl"), (1, 2), guarded, strict=True):
        d, noise_found = values[name] - base[: len(values[name])], said.tests[number].noise
        assert noise_found is not None
        assert noise_found.lean == (1 if careful else 0)
        ends = leaning_interval(d) if careful else t_interval(d)
        assert (shown[name].ci_low, shown[name].ci_high) == pytest.approx(ends)
    assert shown["dot"].verdict is not None and shown["dot"].verdict.endswith("decided")
    name = "dot" if guarded[0] else "kl"
    skewness = "the cells' mean" if guarded[0] else "each cell's own"
    assert f"each cell alone, of {name} by t that leans with {skewness} skewness, else by t." in table.caption
    assert f"p of {name}: because the differences look skewed" in table.caption
    other = "kl" if guarded[0] else "dot"
    assert f"p of {other}: joint per-seed sign flips (n = {len(values[other])}, exact, smallest p" in table.caption


def test_each_cell_is_named_with_the_interval_of_its_look(results) -> None:
    noise = np.random.default_rng(17).normal(size=(2, 12))  # in both looks somewhat skewed, not alike
    base = np.full(12, 0.5)
    values = {"l2": base, "dot": 0.7 + 0.01 * noise[0, :8], "kl": 0.5 + 0.01 * noise[1]}
    rows = results({name: one.tolist() for name, one in values.items()})
    table = ablation_table(rows, study="s", metric="accuracy", task="recall", looks=LOOKS)
    ways = [f"of {name} by t that leans {share} % of the way with " for name, share in (("dot", 27), ("kl", 47))]
    own = "each cell's own skewness"
    assert f"intervals for each cell alone, {ways[0]}{own}, {ways[1]}{own}. p" in table.caption
    shown = {row.cell: row for row in table.rows}
    for name, columns in (("dot", noise[:, :8]), ("kl", noise[1:])):
        found = noise_of(columns.T)
        assert found is not None
        d = values[name] - base[: len(values[name])]
        assert (shown[name].ci_low, shown[name].ci_high) == pytest.approx(leaning_interval(d, lean=found.lean))


def test_what_a_look_decided_stays_decided_whatever_further_seeds_would_say(results) -> None:
    spoilt = [*CLEAR[:8], 0.1, 0.1, 0.1, 0.1]
    rows = results({"l2": BASE, "dot": spoilt, "kl": SAME})
    table = ablation_table(rows, study="s", metric="accuracy", task="recall", looks=LOOKS)
    dot = next(row for row in table.rows if row.cell == "dot")
    assert (dot.n, dot.pairs) == (12, 8)
    assert dot.verdict is not None and dot.verdict.endswith("decided")
    first = results({"l2": BASE[:8], "dot": CLEAR[:8], "kl": SAME[:8]})
    then = next(r for r in ablation_table(first, study="s", metric="accuracy", task="recall").rows if r.cell == "dot")
    assert (dot.ci_low, dot.ci_high) == (then.ci_low, then.ci_high)


def test_the_looks_together_keep_their_level() -> None:
    """Normal cells without any effect: the share of studies that decide anything, by either look."""
    random, errors, studies = np.random.default_rng(1), 0, 300
    looks = Looks(seeds=tuple(range(12)), counts=(8, 12), levels=(0.025, 0.025))
    for _ in range(studies):
        values = random.normal(size=(4, 12))
        found = [
            Cell(
                str(j),
                "cell",
                j,
                {},
                dict(enumerate(values[j].tolist())),
                12,
                0,
                frozenset(),
                ended=frozenset(range(12)),
            )
            for j in range(4)
        ]
        errors += bool(test_in_looks(found[0], found[1:], looks).decided)
    assert errors <= 0.08 * studies
