"""One small table for all formats: eight seeds, a divergence, a control, awkward names."""

from __future__ import annotations

from typing import Literal

import pytest

from miras_search.analysis.table import AblationTable, TableContext, ablation_table
from miras_search.store.types import ResultRow

LUCK = (0.00, 0.02, -0.02, 0.01, 0.04, -0.01, 0.00, 0.03)
COSTS = {
    ("params", ""): 12_345.0,
    ("state_bytes", ""): 4_096.0,
    ("tokens_per_second", ""): 15_321.5,
    ("peak_memory_bytes", ""): 320_000_000.0,
}
# name, role, mean, slope of the luck, seeds that diverged
CELLS: tuple[tuple[str, Literal["base", "cell", "control"], float, float, int], ...] = (
    ("dot", "base", 0.60, 1.0, 0),
    ("l2 & δ_1", "cell", 0.80, 1.5, 0),
    ("lp|1.5", "cell", 0.70, 0.5, 1),
    ("no_write", "control", 0.05, 0.2, 0),
)
CONTEXT = TableContext(
    commit="abc1234", date="2026-01-02", execution="chunk 16", command="miras-search table bias --format latex"
)


def make_table(task: str = "recall", metric: str = "accuracy") -> AblationTable:
    rows = []
    for number, (name, role, mean, slope, broken) in enumerate(CELLS):
        changes = {} if role == "base" else {"bias": name}
        for seed, luck in enumerate(LUCK):
            state: Literal["diverged", "complete"] = "diverged" if seed < broken else "complete"
            values = dict(COSTS)
            if state == "complete":
                values[(metric, "test")] = mean + slope * luck
            rows.append(ResultRow(name, role, number, changes, task, seed, state, 300, values))
    return ablation_table(rows, study="bias", metric=metric, task=task, provenance=CONTEXT)


@pytest.fixture
def table() -> AblationTable:
    return make_table()


@pytest.fixture
def two_tasks() -> list[AblationTable]:
    return [make_table("recall"), make_table("text", "loss")]


@pytest.fixture
def empty_table() -> AblationTable:
    """Nothing has finished yet."""
    rows = [
        ResultRow(name, role, number, {}, "recall", seed, "waiting", None, {})
        for number, (name, role, _, _, _) in enumerate(CELLS)
        for seed in range(2)
    ]
    return ablation_table(rows, study="bias", metric="accuracy", task="recall")
