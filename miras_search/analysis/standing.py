"""Where a row of the ablation table stands against its reference, in one word that a colour and a marker can carry.

The words follow the verdicts of `miras_search.analysis.verdict`: decided means that the corrected test and the interval
agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from miras_search.analysis.table import AblationTable, Row
from miras_search.analysis.verdict import ALPHA

Standing = Literal["better", "worse", "open", "censored", "diverged", "missing"]

MOST_ROWS = 60  # in a panel: beyond, nobody reads a plot that is metres long
WORDS: dict[Standing, str] = {
    "better": "better, decided",
    "worse": "worse, decided",
    "open": "not decided",
    "censored": "censored",
    "diverged": "diverged, no test",
    "missing": "no result",
}


def standing(row: Row, table: AblationTable) -> Standing:
    """Where the row stands; the reference itself is `open`."""
    if row.diverged:
        return "diverged"
    if row.censored:
        return "censored"
    if row.cell != table.base and row.difference is None:
        return "missing"
    decided = row.p is not None and row.p < ALPHA
    if row.difference is None or row.ci_low is None or row.ci_high is None or not decided:
        return "open"
    if row.ci_low <= 0.0 <= row.ci_high:
        return "open"
    return "better" if (row.difference > 0) == (table.direction == "maximize") else "worse"


def compared(table: AblationTable, *, controls: bool) -> list[Row]:
    """The rows other than the reference, the best difference first; those without one at the end, in their order."""
    rows = [row for row in table.rows if row.cell != table.base and (row.role == "control") == controls]
    sign = -1.0 if table.direction == "maximize" else 1.0
    return sorted(rows, key=lambda row: (row.difference is None, sign * (row.difference or 0.0)))


def drawn(table: AblationTable) -> list[list[Row]]:
    """The rows of a forest plot: the cells with the reference at its place among them, then the controls.

    Those above the reference are better, those below it worse. Of more than `MOST_ROWS` the best; nothing while nothing
    has been compared.
    """
    panels = [rows[:MOST_ROWS] for controls in (False, True) if (rows := compared(table, controls=controls))]
    if not any(row.difference is not None for rows in panels for row in rows):
        return []
    reference = next(row for row in table.rows if row.cell == table.base)
    sign = 1.0 if table.direction == "maximize" else -1.0
    ahead = sum(row.difference is not None and sign * row.difference > 0 for row in panels[0])
    panels[0].insert(ahead, reference)
    return panels


def left_out(table: AblationTable) -> str:
    """A sentence on the rows that a forest plot leaves out; empty when it has all."""
    counts = [len(compared(table, controls=controls)) for controls in (False, True)]
    shown = sum(min(count, MOST_ROWS) for count in counts)
    return "" if shown == sum(counts) else f"{shown} of {sum(counts)} rows are drawn, the best; the table has all."


def headline(table: AblationTable) -> str:
    """What the study has decided so far, in one sentence."""
    rows = compared(table, controls=False)
    if not rows:
        return "This study compares nothing with its base yet."
    counts = Counter(standing(row, table) for row in rows)
    parts = [f"{counts[key]} {_WORD[key]}" for key in _WORD if counts[key]]
    cells = "1 cell" if len(rows) == 1 else f"{len(rows)} cells"
    return f"Of {cells} compared with {table.base}: {', '.join(parts)}.{_surviving(rows)}"


def _surviving(rows: Sequence[Row]) -> str:
    """How many decided effects survive every control that they were held against; empty where none was."""
    answers = [row.survives.values() for row in rows if row.survives]
    whole = sum(set(found) == {"yes"} for found in answers)
    effects = "effect survives" if len(answers) == 1 else "effects survive"
    return f" {whole} of {len(answers)} decided {effects} every control." if answers else ""


_WORD: dict[Standing, str] = {
    "better": "decidedly better",
    "worse": "decidedly worse",
    "open": "not decided",
    "censored": "censored",
    "diverged": "diverged",
    "missing": "without a result",
}
