"""docs/statistics.md: its program gives the table's own numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miras_search.analysis.cells import Cell
from miras_search.analysis.comparison import by_test, compare, joint_test
from miras_search.store.types import Role

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "statistics.md").read_text()


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(program, "statistics.md", "exec"), names)
    return names


def cell(number: int, values: np.ndarray) -> Cell:
    seeds = dict(enumerate(values.tolist()))
    role: Role = "cell" if number else "base"
    return Cell(f"c{number}", role, number, {}, seeds, len(values), 0, frozenset())


@pytest.mark.parametrize("kind", ["normal", "skewed", "noisy base", "one cell"])
def test_the_page_recomputes_p_and_intervals(page: dict[str, Any], kind: str) -> None:
    guarded, leaning = [], []
    for seed in range(6):
        random = np.random.default_rng([seed, len(kind)])
        seeds, cells = (8, 1) if kind == "one cell" else (7, 4)
        noise = random.exponential(size=(seeds, cells)) ** 2 if kind == "skewed" else random.normal(size=(seeds, cells))
        base = random.normal(size=seeds) * (6 if kind == "noisy base" else 1)
        values = noise + np.linspace(0, 2, cells)
        reference, family = cell(0, base), [cell(i + 1, column) for i, column in enumerate(values.T)]
        test = joint_test(reference, family, check=True)
        found = [by_test(compare(one, reference, worst=None), test) for one in family]
        p, low, high = page["recompute"](values - base[:, None])
        assert p == pytest.approx([test.p[one.number] for one in family], abs=2e-5)
        assert low == pytest.approx([one.ci_low for one in found], rel=1e-9)
        assert high == pytest.approx([one.ci_high for one in found], rel=1e-9)
        guarded.append(test.is_guarded)
        leaning.append(0 < test.lean < 1)
    assert any(guarded) or kind in ("normal", "one cell")
    assert any(leaning) or kind in ("skewed", "noisy base")
