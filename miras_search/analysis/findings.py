"""What a study says beyond its table: how large effects are, whether they are nothing, modes, axes, fronts.

One object a task, plain data, for the terminal and for JSON. The table decides; nothing here puts a dagger anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from miras_search.analysis.cells import Cell, cell_named, gather, metric_named
from miras_search.analysis.comparison import Comparison, compare
from miras_search.analysis.contrasts import Contrasts, NoContrasts, contrasts
from miras_search.analysis.effects import Equivalence, Wins, equivalence, paired_d, wins
from miras_search.analysis.factorial import AS_BASE, Anova, Levels, Observation, anova
from miras_search.analysis.importance import Importance, all_importances
from miras_search.analysis.looks import Looks
from miras_search.analysis.modes import Solved, Speed, Time, solve_rates, solve_speed, time_to, two_modes
from miras_search.analysis.pareto import Front, pareto
from miras_search.analysis.ranks import RankTable, rank_table
from miras_search.analysis.shapley import Shares, shapley
from miras_search.analysis.table import AblationTable
from miras_search.analysis.verdict import default_margin
from miras_search.metrics import METRICS, Metric
from miras_search.store.types import CurveRow, ResultRow

CONTROL = "control"
COST = "tokens_per_second"

RULES = (
    "Diverged: never a value. The cell has no effect size and no equivalence; the seed counts as not solved, and as "
    "never solving; the cell ranks last on that task; effects of axes, shares and importances leave the training out; "
    "nothing is said of levels and their interactions.",
    "Failed: missing, whatever the reason; counted in the table, left out of everything here.",
    "Censored (cell and reference all at floor or ceiling): the task hardly tells them apart, so no effect size and no "
    "equivalence is given; ranks, effects of axes and fronts keep the values.",
)
"""What becomes of trainings that gave no number, or one that says little."""


@dataclass(frozen=True, slots=True)
class CellEffect:
    """One cell beside the reference. None where its rule says so, or seeds are too few."""

    cell: str
    role: str
    effect_size: float | None
    wins: Wins | None
    equivalence: Equivalence | None
    solved: Solved | None = None
    speed: Speed | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """The statistics of one study on one task."""

    study: str
    task: str
    metric: str
    split: str
    base: str
    margin: float
    limit: float | None
    """What parts solved from not solved: given, or found where seeds fall into two modes."""
    cells: tuple[CellEffect, ...]
    axes: Anova | None
    contrasts: Contrasts | None
    """What levels do over a whole factorial."""
    best: str | None
    """The cell whose gain over the base is shared out."""
    shares: Shares | None
    importances: tuple[Importance, ...]
    """By every evaluator that is installed."""
    front: Front
    costs: str
    """The cost of the front's second objective."""
    notes: tuple[str, ...]


def findings(
    results: Iterable[ResultRow],
    table: AblationTable,
    *,
    margin: float | None = None,
    limit: float | None = None,
    curves: Sequence[CurveRow] = (),
    tried: Iterable[ResultRow] | None = None,
    looks: Looks | None = None,
    crossed: bool = False,
) -> Findings:
    """The statistics that go with a table, from the same results.

    `margin` is the difference that is too small to matter (else the table's default), `limit` the value that parts
    solved from not solved (else found, where seeds fall into two modes), `curves` the metric over the steps of a
    training, for steps to the solution. `tried` has the trainings by which a search chose, which tell what importances
    ask; elsewhere they are those of the table. `looks` are those that the study declared for this metric.
    `crossed` says that its cells were to be a factorial or a fraction of one, so that a reader wants to know where
    nothing is said of levels.
    """
    metric = metric_named(table.metric)
    higher = metric.direction == "maximize"
    cells = gather(results, task=table.task, metric=table.metric, split=table.split)
    reference = cell_named(cells, table.base)
    margin = margin or usual_margin(table)
    limit = two_modes(cell.values.values() for cell in cells if cell.role != CONTROL) if limit is None else limit
    censored = {row.cell for row in table.rows if row.censored}
    times = {} if limit is None else _times(curves, cells, limit, higher, table.task)
    found = []
    for cell in cells:
        if cell is reference:
            continue
        one = _effect(compare(cell, reference, worst=None), margin, higher, censored)
        if limit is not None:
            solved = solve_rates(
                _with_worst(cell, higher), _with_worst(reference, higher), limit, higher_is_better=higher
            )
            speed = solve_speed(times.get(cell.name, {}), times.get(reference.name, {}))
            one = replace(one, solved=solved, speed=speed)
        found.append(one)
    levels, observed = _levels(cells), _observed(cells)
    drawn = observed
    if tried is not None:
        drawn = _observed(gather(tried, task=table.task, metric=table.metric, split=table.split))
    best = _best(cells, higher)
    of_levels, notes = None, _notes(cells)
    try:
        of_levels = contrasts(_designs(cells), levels, looks)
    except NoContrasts as why:
        notes += [f"Nothing is said of levels and their interactions: {why}."] if crossed else []
    if of_levels is not None and looks is None and table.context.looked:
        notes.append(f"Levels and their interactions: {table.context.looked}.")
    shares = shapley(observed, levels[reference.name], levels[best]) if best and reference.name in levels else None
    return Findings(
        study=table.study,
        task=table.task,
        metric=table.metric,
        split=table.split,
        base=reference.name,
        margin=margin,
        limit=limit,
        cells=tuple(found),
        axes=anova(observed),
        contrasts=of_levels,
        best=best if shares else None,
        shares=shares,
        importances=all_importances(drawn, direction=metric.direction),
        front=_front(cells, metric),
        costs=COST,
        notes=tuple(notes),
    )


def usual_margin(table: AblationTable) -> float:
    """The margin of a table where none is given: 0.01 of accuracy, else about 1 % of the reference."""
    return default_margin(METRICS[table.metric], next(row.mean for row in table.rows if row.cell == table.base))


def ranks(tables: Sequence[AblationTable]) -> RankTable | None:
    """The cells' ranks over the tasks of a study, controls apart; None for a single task."""
    if len(tables) < 2:
        return None
    higher = tables[0].direction == "maximize"
    worst = -math.inf if higher else math.inf
    scores: dict[str, dict[str, float | None]] = {
        table.task: {row.cell: worst if row.diverged else row.mean for row in table.rows if row.role != CONTROL}
        for table in tables
    }
    return rank_table(scores, higher_is_better=higher)


def _observed(cells: Sequence[Cell]) -> list[Observation]:
    levels = _levels(cells)
    return [Observation(levels[cell.name], seed, x) for cell in _designs(cells) for seed, x in cell.values.items()]


def _designs(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.role != CONTROL]


def _levels(cells: Sequence[Cell]) -> dict[str, Levels]:
    """Of each cell but controls, a level for every axis that some cell changes."""
    kept = _designs(cells)
    axes = list(dict.fromkeys(axis for cell in kept for axis in cell.changes))
    return {cell.name: {axis: cell.changes.get(axis, AS_BASE) for axis in axes} for cell in kept}


def _effect(found: Comparison, margin: float, higher: bool, censored: set[str]) -> CellEffect:
    name, role, d = found.cell.name, found.cell.role, found.differences
    if found.cell.diverged or found.reference.diverged or name in censored:
        return CellEffect(name, role, None, wins(d, higher_is_better=higher), None)
    return CellEffect(name, role, paired_d(d), wins(d, higher_is_better=higher), equivalence(d, margin))


def _with_worst(cell: Cell, higher: bool) -> Mapping[int, float]:
    return {**cell.values, **dict.fromkeys(cell.diverged, -math.inf if higher else math.inf)}


def _times(
    curves: Sequence[CurveRow], cells: Sequence[Cell], limit: float, higher: bool, task: str
) -> dict[str, dict[int, Time]]:
    """Cell -> seed -> when its curve passed the limit: never, and as long as anybody was trained, where it diverged.

    A training that has come to no result has no time.
    """
    points: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in curves:
        if row.task == task:
            points.setdefault((row.cell, row.seed), []).append((float(row.step), row.value))
    last = max((step for curve in points.values() for step, _ in curve), default=0.0)
    found: dict[str, dict[int, Time]] = {}
    for cell in cells:
        times = {
            seed: time
            for seed in cell.values
            if (time := time_to(sorted(points.get((cell.name, seed), [])), limit, higher_is_better=higher))
        }
        found[cell.name] = times | dict.fromkeys(cell.diverged, Time(last, False)) if last else {}
    return found


def _best(cells: Sequence[Cell], higher: bool) -> str | None:
    """The complete cell with the best mean, unless it is the base."""
    means = {cell.name: cell.mean for cell in _designs(cells) if cell.is_complete and cell.mean is not None}
    if not means:
        return None
    best = (max if higher else min)(means, key=lambda name: means[name])
    return None if next(cell.role for cell in cells if cell.name == best) == "base" else best


def _front(cells: Sequence[Cell], metric: Metric) -> Front:
    points = {cell.name: (None if cell.diverged else cell.mean, cell.costs.get(COST)) for cell in _designs(cells)}
    return pareto(points, (metric.direction, METRICS[COST].direction))


def _notes(cells: Sequence[Cell]) -> list[str]:
    kept = _designs(cells)
    diverged, failed = sum(len(cell.diverged) for cell in kept), sum(cell.failed for cell in kept)
    return [
        f"{count} of {sum(cell.of for cell in kept)} trainings {what}: see the rules."
        for count, what in ((diverged, "diverged"), (failed, "failed"))
        if count
    ]
