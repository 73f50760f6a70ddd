"""A search in words: what `run`, `table` and `status` print of a study of kind search beside its ablation tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from miras_search.commands.common import grid, many, number

if TYPE_CHECKING:
    from miras_search.analysis.search import Found, SearchReport

NAME_WIDTH = 70


def text(report: SearchReport) -> str:
    """The report as lines: the best with their competitors, what the confirmation left of them."""
    from miras_search.analysis.search import headline, objective_name

    counts = ", ".join(f"{count} {state}" for state, count in report.trials.items())
    lines = [f"{report.study}: {many(sum(report.trials.values()), 'trial')}: {counts}"]
    if not any(row.rank for row in report.rows):
        return "\n".join([*lines, headline(report)])
    if report.on_front:
        count, of = len(report.on_front), report.competitors
        lines.append(f"on the front: {count} of {of} competitors, that no other one beats in every objective")
    names = [objective_name(report, index) for index in range(len(report.objectives))]
    head = ["rank", "trial", "cell", *names, "jobs", "confirmed", "sd", "n", "shrinkage"]
    rows = [head, *(_row(row, report.competitors) for row in report.rows)]
    lines += ["", grid(rows, indent="  ", numbers=(0, 1, *range(3, len(head)))), "", headline(report)]
    return "\n".join(lines)


def _row(row: Found, competitors: int) -> list[str]:
    name = row.cell if len(row.cell) <= NAME_WIDTH else row.cell[: NAME_WIDTH - 3] + "..."
    return [
        "base" if row.number == 0 else f"{row.rank}/{competitors}",
        str(row.number),
        name,
        *(number(value) for value in row.values),
        str(row.jobs),
        number(row.confirmed),
        number(row.sd),
        f"{row.n}/{row.of}" if row.of else "-",
        number(row.shrinkage),
    ]
