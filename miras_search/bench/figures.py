"""A measured figure beside the bar that it has to clear, and what else the machine was doing at the time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from miras_search.bench.report import Columns, aligned
from miras_search.space.fields import Plain


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. The bar is the least that it may be (`>=`), or what it has to stay below (`<`); None: no bar."""

    name: str
    value: float
    unit: str
    sense: Literal[">=", "<"] = "<"
    bar: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is cleared; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.sense == ">=" else self.value < self.bar

    def to_plain(self) -> dict[str, Plain]:
        """As plain data."""
        bar: Plain = None if self.bar is None else {"sense": self.sense, "value": self.bar}
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "bar": bar,
            "met": self.met,
            "note": self.note,
        }


def machine() -> dict[str, Plain]:
    """The cores and how many processes wanted one in the last minute: with more than there are, wall times mislead."""
    return {"cores": os.cpu_count() or 1, "load": round(os.getloadavg()[0], 2)}


def result(benchmark: str, about: Mapping[str, Plain], figures: Sequence[Figure]) -> dict[str, Plain]:
    """What a benchmark gives: plain data with a row a figure."""
    return {"benchmark": benchmark, **about, "rows": [one.to_plain() for one in figures]}


COLUMNS: Columns = (
    ("name", "", "s"),
    ("value", "measured", "s"),
    ("bar", "bar", "s"),
    ("says", "", "s"),
    ("note", "", "s"),
)


def table(found: Mapping[str, Plain]) -> str:
    """The result as text: a line on the machine, then a line a figure."""
    rows = found["rows"]
    assert isinstance(rows, list)
    shown: list[Plain] = []
    for row in rows:
        assert isinstance(row, dict)
        bar, met = row["bar"], row["met"]
        told = f"{bar['sense']} {_number(bar['value'])}" if isinstance(bar, dict) else ""
        says = "" if met is None else "met" if met else "MISSED"
        value = f"{_number(row['value'])} {row['unit']}".rstrip()
        shown.append({"name": row["name"], "value": value, "bar": told, "says": says, "note": row["note"]})
    lines = [line.rstrip() for line in aligned(shown, COLUMNS, left=1)]
    setting = f"{found['cores']} cores, load {found['load']} when it began"
    return "\n".join([f"{setting}: {found['setting']}", *lines])


def _number(value: Plain) -> str:
    assert isinstance(value, int | float)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
