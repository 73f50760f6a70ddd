"""A search in words: what `run`, `table` and `status` print of a study of kind search beside its ablation tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from miras_search.commands.common import grid, many, number

if TYPE_CHECKING:
    from miras_search.analysis.duel import Duel
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
    if report.front:
        points = [[str(it.number), _short_name(it.cell), *map(number, it.values)] for it in report.front]
        numbers = (0, *range(2, 2 + len(names)))
        lines += [
            "",
            grid([["trial", "cell", *names], *points], indent="  ", numbers=numbers),
            "",
            "confirmed, with the base:" if report.confirmed else "best by the first objective, none confirmed yet:",
        ]
    head = ["rank", "trial", "cell", *names, "jobs", "confirmed", "sd", "n", "shrinkage"]
    rows = [head, *(_row(row, report.competitors) for row in report.rows)]
    lines += ["", grid(rows, indent="  ", numbers=(0, 1, *range(3, len(head)))), "", headline(report)]
    return "\n".join(lines)


def duel_text(found: Duel) -> str:
    """A search against its rival, as lines."""
    mine, theirs = found.sides
    head = ["search", "by", "competitors", "steps", "its first", "seen", found.metric, "sd", "n"]
    rows = [
        [
            side.study,
            side.means,
            str(side.competitors),
            f"{side.steps:,}",
            _short_name(side.cell),
            number(side.seen),
            number(side.mean),
            number(side.sd),
            f"{side.n}/{side.of}",
        ]
        for side in found.sides
    ]
    lines = [
        f"{mine.study} against {theirs.study}: what each put first, on the same fresh seeds "
        f"({found.split} {found.metric})",
        "",
        grid([head, *rows], indent="  ", numbers=(2, 3, 5, 6, 7)),
        "",
    ]
    if found.difference is None or found.ci_low is None or found.ci_high is None or found.p is None:
        why = [f"{side.study} diverged in {many(side.diverged, 'training')}" for side in found.sides if side.diverged]
        told = f"no test: {'; '.join(why)}" if why else f"{many(found.pairs, 'shared seed')}: too few for an interval"
        return "\n".join([*lines, told])
    told = f"difference {found.difference:+.3f} [{found.ci_low:+.3f}, {found.ci_high:+.3f}] over "
    told += f"{many(found.pairs, 'paired seed')}, p = {found.p:.2g}"
    return "\n".join([*lines, f"{told}; of one run of each search: another run of either may find another first"])


def _short_name(cell: str) -> str:
    return cell if len(cell) <= NAME_WIDTH else cell[: NAME_WIDTH - 3] + "..."


def _row(row: Found, competitors: int) -> list[str]:
    return [
        "base" if row.number == 0 else f"{row.rank}/{competitors}",
        str(row.number),
        _short_name(row.cell),
        *(number(value) for value in row.values),
        str(row.jobs),
        number(row.confirmed),
        number(row.sd),
        f"{row.n}/{row.of}" if row.of else "-",
        number(row.shrinkage),
    ]
