"""Results as the store hands them over, built from plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import pytest

from miras_search.store.types import ResultRow

Value: TypeAlias = float | Literal["waiting", "running", "diverged", "failed"] | None
Results: TypeAlias = Callable[..., list[ResultRow]]


def _results(
    cells: Mapping[str, Sequence[Value]],
    *,
    task: str = "recall",
    metric: str = "accuracy",
    split: str = "test",
    controls: Sequence[str] = (),
    first_seed: int = 0,
) -> list[ResultRow]:
    """One job a value, the first cell is the base: a number completed, a word is a state, None recorded nothing."""
    rows = []
    for number, (name, values) in enumerate(cells.items()):
        role: Literal["base", "cell", "control"] = "base" if number == 0 else "cell"
        if name in controls:
            role = "control"
        for seed, value in enumerate(values, start=first_seed):
            found: dict[tuple[str, str], float] = {("params", ""): 1000.0 + number}
            state: Literal["waiting", "running", "complete", "diverged", "failed"] = "complete"
            if isinstance(value, str):
                state = value
            elif value is not None:
                found[(metric, split)] = value
            changes = {} if number == 0 else {"bias": name}
            rows.append(ResultRow(name, role, number, changes, task, seed, state, 300, found))
    return rows


@pytest.fixture(scope="session")
def results() -> Results:
    return _results
