"""What every renderer shares: one table or several, and the cells of a row as text.

A renderer decides how a column looks; which columns there are and how a number is written is decided here, so that
Markdown, LaTeX and the terminal show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from miras_search.analysis.numbers import NOTHING, bytes_text, count_text, end_text, fixed, p_text
from miras_search.analysis.table import AblationTable, Row
from miras_search.metrics import METRICS

Tables: TypeAlias = AblationTable | Sequence[AblationTable]


def as_tables(tables: Tables) -> tuple[AblationTable, ...]:
    """One table or several as a tuple."""
    return (tables,) if isinstance(tables, AblationTable) else tuple(tables)


@dataclass(frozen=True, slots=True)
class Column:
    """What a column holds, its header, and how a row's cell reads without emphasis."""

    key: str
    header: str
    text: Callable[[Row], str]
    is_cost: bool = False


def columns(table: AblationTable) -> list[Column]:
    """The columns after the cell's name, in the order in which they are read."""
    places = table.decimals
    survives = [Column("survives", "survives", survives_text)] if table.has_controlled else []
    matched = []
    if table.matched is not None:
        matched = [Column("ratio", f"x {table.matched}", lambda row: fixed(row.ratio, 3), is_cost=True)]
    flops = []
    if any(row.flops_per_token is not None for row in table.rows):
        flops = [Column("flops_per_token", "FLOPs/token", lambda row: count_text(row.flops_per_token), is_cost=True)]
    tuned = [Column("tuned", tuned_header(table), tuned_text)] if table.has_tuned else []
    return [
        Column("mean", metric_header(table), lambda row: mean_text(row, places)),
        *tuned,
        Column("n", "n", lambda row: f"{row.n}/{row.of}"),
        Column("difference", "diff", lambda row: fixed(row.difference, places, signed=True)),
        Column("interval", "95 % interval", lambda row: interval_text(row, places)),
        Column("p", "p", lambda row: p_text(row.p)),
        Column("p_holm", "p Holm", lambda row: p_text(row.p_holm)),
        *survives,
        Column("failed", "failed", lambda row: str(row.failed)),
        Column("diverged", "diverged", lambda row: str(row.diverged)),
        *matched,
        Column("params", "params", lambda row: count_text(row.params), is_cost=True),
        Column("state_bytes", "state", lambda row: bytes_text(row.state_bytes), is_cost=True),
        *flops,
        Column("tokens_per_second", "tokens/s", lambda row: count_text(row.tokens_per_second), is_cost=True),
        Column("peak_memory_bytes", "peak memory", lambda row: bytes_text(row.peak_memory_bytes), is_cost=True),
    ]


def metric_header(table: AblationTable) -> str:
    """The metric with its unit and an arrow that points to better: "loss (nats) ↓"."""
    metric = METRICS[table.metric]
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.name}{unit} {metric.symbol}"


def mean_text(row: Row, places: int) -> str:
    """Mean and sd: "0.912 ± 0.004"; the sd is left out below two seeds."""
    mean = fixed(row.mean, places)
    return mean if row.sd is None else f"{mean} ± {fixed(row.sd, places)}"


def interval_text(row: Row, places: int) -> str:
    """The interval of the difference: "[0.170, 0.250]"."""
    if row.ci_low is None or row.ci_high is None:
        return NOTHING
    return f"[{end_text(row.ci_low, places)}, {end_text(row.ci_high, places)}]"


def survives_text(row: Row) -> str:
    """The controls that the effect survives, does not, or perhaps: "no_write, not ascent, q_is_k?"."""
    if not row.survives:
        return NOTHING
    forms = {"yes": "{}", "no": "not {}"}
    return ", ".join(forms.get(answer, "{}?").format(control) for control, answer in row.survives.items())


def tuned_header(table: AblationTable) -> str:
    """What was tuned, by the last part of its path: "lr, conv"."""
    paths = next((row.tuned for row in table.rows if row.tuned), {})
    return ", ".join(path.rpartition(".")[2] for path in paths)


def tuned_text(row: Row) -> str:
    """The chosen values, with the end of the list that one lies at: "0.03 (last), 4"."""
    ends = row.at_edge or {}
    chosen = (row.tuned or {}).items()
    return ", ".join(f"{value} ({ends[path]})" if path in ends else value for path, value in chosen) or NOTHING


def flag(row: Row) -> str:
    """The mark behind the difference: a dagger of the test, or § where the comparison is censored."""
    return "§" if row.censored else row.mark


def verdicts(table: AblationTable) -> list[str]:
    """The sentences of the rows that have one."""
    return [row.verdict for row in table.rows if row.verdict is not None]
