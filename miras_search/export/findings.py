"""The statistics beside a table for a terminal, and as plain data for JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from miras_search.analysis.contrasts import Contrasts, Family, Meeting
from miras_search.analysis.effects import Equivalence
from miras_search.analysis.factorial import Anova
from miras_search.analysis.findings import RULES, CellEffect, Findings
from miras_search.analysis.modes import Solved, Speed
from miras_search.analysis.numbers import NOTHING, end_text, fixed, interval_decimals, measured, p_text, plain
from miras_search.analysis.pareto import Front
from miras_search.analysis.ranks import RankTable
from miras_search.analysis.shapley import Shares
from miras_search.jsonable import Json, jsonable

OVER: dict[Meeting, str] = {
    "factorial": "all cells of the other axes",
    "fraction": "a fraction of the factorial",
    "mixed fraction": "a fraction of the factorial in which they are mixed with interactions of two other axes",
}
"""Over what a level's change is a mean."""


def to_text(found: Sequence[Findings], ranks: RankTable | None = None, width: int = 120) -> str:
    """Every task's findings, the ranks over tasks, and the rules, in lines of about `width` characters."""
    blocks = [_one(one) for one in found]
    if ranks is not None:
        blocks.append(_ranks(ranks))
    blocks.append(["What becomes of trainings without a number", *(f"  {rule}" for rule in RULES)])
    lines = []
    for line in (line for block in blocks for line in (*block, "")):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        wrapped = textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)
        lines += [line] if "   " in line.strip() or not wrapped else wrapped  # columns are not broken
    return "\n".join(lines).rstrip("\n") + "\n"


def to_plain(found: Sequence[Findings], ranks: RankTable | None = None) -> dict[str, Json]:
    """The same as plain data: `{"statistics": [a task each], "ranks": ..., "rules": [...]}`; never NaN or infinity."""
    return {"statistics": [jsonable(one) for one in found], "ranks": jsonable(ranks), "rules": list(RULES)}


def _one(found: Findings) -> list[str]:
    parts = [_effects(found)]
    if found.limit is not None:
        parts.append(_modes(found, found.limit))
    if found.contrasts is not None:
        parts += _contrasts(found.contrasts)
    if found.axes is not None:
        parts.append(_axes(found.axes))
    if found.shares is not None and found.best is not None:
        parts.append(_shares(found.shares, found.base, found.best))
    for one in found.importances:
        shares = ", ".join(f"{axis} {_percent(share)}" for axis, share in one.shares.items())
        parts.append([f"{one.method} ({one.label}): {shares}"])
    parts.append(_front(found.front, found.metric, found.costs))
    if found.notes:
        parts.append(list(found.notes))
    title = f"Study {found.study}, task {found.task}: {found.metric} ({found.split}), against {found.base}"
    return [title, *(line for part in parts for line in ("", *part))]


def _effects(found: Findings) -> list[str]:
    rows = [["cell", "effect size", "won", "tied", "lost", f"within \N{PLUS-MINUS SIGN}{plain(found.margin)}"]]
    for one in found.cells:
        won = one.wins
        counts = [NOTHING] * 3 if won is None else [str(won.wins), str(won.ties), str(won.losses)]
        rows.append([one.cell, _effect_size(one), *counts, _within(one.equivalence)])
    title = (
        "Effects: mean over sd of the paired differences, corrected for few seeds; seeds won; equivalence by two "
        "one-sided t tests, each cell alone"
    )
    return [title, *_grid(rows)]


def _effect_size(one: CellEffect) -> str:
    size = one.effect_size
    if size is None:
        return NOTHING
    return fixed(size, 2, signed=True) if math.isfinite(size) else "no spread"


def _within(found: Equivalence | None) -> str:
    if found is None:
        return NOTHING
    digits = interval_decimals(found.low, found.high)
    ends = f"[{end_text(found.low, digits)}, {end_text(found.high, digits)}]"
    return f"{'shown' if found.holds else 'not shown'}, p {p_text(found.p)}, 90 % {ends}"


def _modes(found: Findings, limit: float) -> list[str]:
    rows = [["cell", "solved", "rate, 95 %", "McNemar p", "Fisher p", "steps (median)", "exact p", "log-rank p"]]
    for one in found.cells:
        if one.solved is not None:
            rows.append([one.cell, *_solved(one.solved), *_speed(one.speed)])
    first = next((one.solved for one in found.cells if one.solved is not None), None)
    base = "" if first is None else f"; {found.base} in {first.reference} of {first.reference_of}"
    return [f"Seeds that solve it ({found.metric} beyond {limit:.3g}{base})", *_grid(rows)]


def _solved(found: Solved) -> list[str]:
    rate = f"{found.rate:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return [f"{found.cell}/{found.of}", rate, p_text(found.mcnemar), p_text(found.fisher)]


def _speed(found: Speed | None) -> list[str]:
    if found is None:
        return [NOTHING] * 3
    both = [NOTHING if median is None else f"{median:g}" for median in (found.median, found.reference_median)]
    return [f"{both[0]} vs {both[1]}", p_text(found.exact), p_text(found.logrank)]


def _contrasts(found: Contrasts) -> list[list[str]]:
    """A block for each family that there is."""
    blocks = []
    for title, family in (
        (f"Levels against those of {found.base}, over {OVER[found.of]}", found.mains),
        (
            f"Interactions: how much more a level changes beside another axis' level than beside that of {found.base}",
            found.interactions,
        ),
    ):
        if family.contrasts:
            rows = [["", "difference, 95 %", "p", "p Holm"]]
            for one in family.contrasts:
                difference = measured(one.difference, one.ci_low, one.ci_high)
                rows.append([str(one), difference, p_text(one.p), p_text(one.p_holm)])
            blocks.append([f"{title} ({contrasts_test(family, found)})", *_grid(rows)])
    return blocks


def contrasts_test(family: Family, found: Contrasts) -> str:
    """How the contrasts of a family are tested, in words."""
    flips = f"joint sign flips, step-down over {len(family.contrasts)}"
    guard = ", or Holm's over t tests against skewed noise where larger" if family.is_guarded else ""
    look = "" if found.look is None else f", times the error of all looks over that of this one, at {found.look} seeds"
    return (
        f"paired by seed, n = {len(found.seeds)}; intervals for each alone by {family.intervals}; p: {flips}{guard}"
        f"{look}; smallest p {family.smallest:.2g}; Holm p: Holm over each one's own sign flips"
    )


def _axes(found: Anova) -> list[str]:
    rows = [["effect", "df", "share", "F", "p", "p Holm"]]
    for one in found.effects:
        f = NOTHING if one.f is None else "no noise" if math.isinf(one.f) else f"{one.f:.2f}"
        rows.append([str(one), str(one.freedom), _percent(one.share), f, p_text(one.p), p_text(one.p_holm)])
    kind = (
        "exact, a complete factorial with the seed as a block; shares of the variation between cells"
        if found.method == "exact"
        else "least squares with seed effects; shares beyond effects that do not contain it, of what is not the seeds'"
    )
    sd = "" if found.noise_sd is None else f"; noise sd {found.noise_sd:.3g} on {found.noise_freedom} df"
    lines = [f"Effects of axes ({kind}{sd}); p takes normal noise for granted", *_grid(rows)]
    if found.left_out:
        names = ", ".join(" x ".join(term) for term in found.left_out)
        lines.append(f"  These cells cannot tell apart from other effects: {names}")
    return lines


def _shares(found: Shares, base: str, best: str) -> list[str]:
    rows = [["axis", "from", "to", "share, 95 %"]]
    rows += [[one.axis, one.start, one.end, measured(one.value, one.low, one.high)] for one in found.shares]
    whole = f"{found.whole:+.3g} over {found.seeds} seeds, flattered, as all shares of it, by choosing the best on them"
    return [f"Shapley's shares of the way from {base} to {best} ({whole})", *_grid(rows)]


def _front(found: Front, metric: str, cost: str) -> list[str]:
    lines = [f"Nobody beats in {metric} and {cost} at once: {', '.join(found.front) or NOTHING}"]
    if found.dominated:
        lines.append("  Beaten: " + ", ".join(f"{cell} (by {better})" for cell, better in found.dominated.items()))
    if found.left_out:
        lines.append(f"  Without both numbers: {', '.join(found.left_out)}")
    return lines


def _ranks(found: RankTable) -> list[str]:
    lines = [f"Mean ranks over {len(found.tasks)} tasks (1 is best; a cell that diverged is last)"]
    lines += _grid([["cell", "rank"], *([cell, f"{rank:.2f}"] for cell, rank in found.ranks.items())])
    if found.critical_difference is None:
        lines.append("  No test: it needs three cells on two tasks.")
    else:
        lines.append(
            f"  Friedman p {p_text(found.p)}; ranks closer than {found.critical_difference:.2f} (Nemenyi, 5 %) are not "
            "told apart: " + ("; ".join(", ".join(group) for group in found.groups) or "none are so close")
        )
    if found.left_out:
        lines.append(f"  Without a number on some task: {', '.join(found.left_out)}")
    return lines


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names flush left, the rest flush right, three spaces between."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  "
        + "   ".join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
