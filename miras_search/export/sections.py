"""How rows and tasks are arranged: cells under the axis that they change, controls apart, tasks beside each other.

LaTeX and HTML share this, so that a paper and a mailed report are read in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from miras_search.analysis.table import AblationTable, Row
from miras_search.export.layout import Column, columns

CONTROLS = "negative controls"
PRESET = "preset"
_SETTINGS = ("model", "train", "execution")  # not axes of the design: each of their settings is varied for itself


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together; the title is empty where one would say nothing."""

    title: str
    rows: tuple[Row, ...]


def sections(table: AblationTable) -> list[Section]:
    """The reference first; the cells by what they change, in the order of the table; the controls last.

    Where all cells change the same thing they follow the reference without a title. A control that is the reference
    stays on top.
    """
    groups: dict[str, list[Row]] = {"": []}
    controls: list[Row] = []
    for row in table.rows:
        if row.cell == table.base:
            groups[""].append(row)
        elif row.role == "control":
            controls.append(row)
        else:
            groups.setdefault(varied(row), []).append(row)
    found = [Section(title, tuple(rows)) for title, rows in groups.items() if rows]
    if len(groups) <= 2:
        found = [Section("", tuple(row for section in found for row in section.rows))]
    return [*found, Section(CONTROLS, tuple(controls))] if controls else found


def varied(row: Row) -> str:
    """What a cell changes, as a heading: `bias`, `bias × retention`, `train.lr`; empty for the base itself."""
    if PRESET in row.changes:  # what a preset brings along is part of it
        return PRESET
    axes = dict.fromkeys(path if path.split(".")[0] in _SETTINGS else path.split(".")[0] for path in row.changes)
    return " × ".join(axes)


@dataclass(frozen=True, slots=True)
class Part:
    """The columns of one task in a table that may have several."""

    table: AblationTable
    columns: tuple[Column, ...]

    def row(self, cell: str) -> Row | None:
        """The cell's row on this task."""
        return next((row for row in self.table.rows if row.cell == cell), None)

    def only(self, *, is_cost: bool) -> Part:
        """The columns that are costs, or those that are not."""
        return Part(self.table, tuple(column for column in self.columns if column.is_cost == is_cost))


def parts(tables: Sequence[AblationTable], keys: Sequence[str]) -> list[Part]:
    """The columns with those keys, in their order, for each task."""
    found = []
    for table in tables:
        known = {column.key: column for column in columns(table)}
        found.append(Part(table, tuple(known[key] for key in keys if key in known)))
    return found


def joint_caption(tables: Sequence[AblationTable]) -> str:
    """One caption for several tasks: what they have in common once, else task by task."""
    first = tables[0]
    if len(tables) == 1:
        return first.caption
    texts = [table.caption.removeprefix(f"Study {table.study}, task {table.task}: ") for table in tables]
    names = ", ".join(table.task for table in tables)
    if len(set(texts)) == 1:
        return f"Study {first.study}, tasks {names}: {texts[0]}"
    return " ".join(
        [f"Study {first.study}, tasks {names}."]
        + [f"{table.task}: {text}" for table, text in zip(tables, texts, strict=True)]
    )


def joint_notes(tables: Sequence[AblationTable]) -> list[str]:
    """The notes of all tasks; one that they share stands there once."""
    return _joint([(table.task, table.notes) for table in tables])


def _joint(groups: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    if len(groups) == 1:
        return list(groups[0][1])
    everywhere = set.intersection(*(set(items) for _, items in groups))
    shared = [item for item in groups[0][1] if item in everywhere]
    return shared + [f"{task}: {item}" for task, items in groups for item in items if item not in everywhere]
