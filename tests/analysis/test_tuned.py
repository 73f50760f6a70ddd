"""What a table says of its tuning where the tuning's seeds disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from miras_search.analysis.table import ablation_table
from miras_search.analysis.tuned import Tuning
from miras_search.store.tuned import Scheme, Tried, Tuned

RATES = ("0.01", "0.02", "0.04", "0.08")
SEEDS = (2_000_000, 2_000_001)
CLEAR = [(0.5, 0.4), (0.7, 0.8), (0.5, 0.6), (0.3, 0.2)]  # 0.02 is best in both seeds
TORN = [(0.9, 0.3), (0.7, 0.6), (0.6, 0.4), (0.8, 0.2)]  # it is in the mean
EQUAL = [(0.7, 0.4), (0.7, 0.8), (0.5, 0.6), (0.3, 0.2)]


def tuned(cell: int, found: Sequence[Sequence[float]], seeds: Sequence[int]) -> Tuned:
    tried = [
        Tried(4 * cell + i, dict(zip(seeds, values[: len(seeds)], strict=True)), bad=0, loss=1.0)
        for i, values in enumerate(found)
    ]
    return Tuned(tried, chosen=4 * cell + 1)


def notes(results, found: Mapping[str, Sequence[Sequence[float]]], seeds: Sequence[int] = SEEDS) -> list[str]:
    table = ablation_table(
        results({name: [0.5, 0.6, 0.7] for name in found}), study="s", metric="accuracy", task="recall"
    )
    cells = [{"name": name, "number": number} for number, name in enumerate(found)]
    of = {(number, "recall"): tuned(number, one, seeds) for number, one in enumerate(found.values())}
    shown = Tuning(Scheme({"train.lr": RATES}, frozenset(seeds), "accuracy"), cells, of).shown(table)
    return [note for note in shown.notes if "seeds of the tuning" in note]


def test_a_choice_that_not_all_seeds_make_is_told_with_its_rivals(results) -> None:
    assert notes(results, {"l2": CLEAR, "dot": TORN, "kl": EQUAL, "lp": CLEAR}) == [
        "Not all 2 seeds of the tuning prefer what was chosen for dot (0.01, 0.08), kl (0.01) to the train.lr in "
        "brackets: rounding may turn such a choice; raise tune.seeds."
    ]


@pytest.mark.parametrize(("found", "seeds"), [(CLEAR, SEEDS), (EQUAL, SEEDS[:1])])
def test_a_choice_that_all_seeds_make_needs_no_word(results, found: list[tuple[float, float]], seeds: tuple) -> None:
    assert notes(results, {"l2": found, "dot": found}, seeds) == []
