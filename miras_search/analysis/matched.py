"""A study whose cells were resized to the base's cost, as its tables show it: the ratio reached, a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from miras_search.analysis.table import AblationTable
from miras_search.store.types import StudyRow


def with_ratios(table: AblationTable, study: StudyRow) -> AblationTable:
    """The table with the ratio of each matched row; as it is where nothing is matched."""
    match = study.config.get("match")
    if not isinstance(match, Mapping):
        return table
    cells = cast(Sequence[Mapping[str, object]], study.config["cells"])
    ratios = {str(cell["name"]): cast(float, cell["ratio"]) for cell in cells if "ratio" in cell}
    rows = tuple(replace(row, ratio=ratios.get(row.cell)) for row in table.rows)
    what = f"Cells are resized to the base's {match['by']}, within {cast(float, match['within']):.0%}."
    set_to = {str(cell["name"]): cast(Mapping[str, str], cell.get("sizes", {})) for cell in cells}
    told = [f"{name} ({', '.join(map(' = '.join, sizes.items()))})" for name, sizes in set_to.items() if sizes]
    notes = [f"Resized: {', '.join(told)}."] if told else []
    return replace(
        table,
        rows=rows,
        caption=f"{table.caption} {what}",
        notes=(*table.notes, *notes),
        matched=str(match["by"]),
    )
