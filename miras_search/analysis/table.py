"""The ablation table: one row a cell, everything a reviewer asks for, nothing dropped.

Renderers, the command line and the dashboard all read this one object.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from miras_search.analysis.caption import TableContext, caption, legend
from miras_search.analysis.cells import Cell, cell_named, gather, metric_named, task_names
from miras_search.analysis.comparison import Comparison, JointTest, by_test, compare, joint_test
from miras_search.analysis.looks import Looks, looks_text, test_in_looks, waits_text, within
from miras_search.analysis.notes import notes
from miras_search.analysis.numbers import decimals_for
from miras_search.analysis.survival import Controlled, Survival, Survivals, sentence, survivals
from miras_search.analysis.verdict import Limits, censored_side, default_margin, is_decided, verdict
from miras_search.errors import MirasError
from miras_search.metrics import Direction, Metric, has_levels
from miras_search.store.types import PACKED, ResultRow
from miras_search.tasks import Guess

__all__ = ["AblationTable", "Row", "TableContext", "ablation_table", "ablation_tables"]

CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Row:
    """One cell on one task. Numbers are None where they have no meaning or are not there yet."""

    cell: str
    changes: Mapping[str, str]
    role: str  # base | cell | control
    mean: float | None
    sd: float | None  # over seeds, n - 1 in the denominator
    n: int  # seeds in the mean
    of: int  # seeds planned
    difference: float | None  # cell minus reference, over the paired seeds
    ci_low: float | None
    ci_high: float | None
    p: float | None  # that decides: joint sign flips, step-down over the family; more where the caption says so
    p_holm: float | None
    params: int | None
    state_bytes: int | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    failed: int
    diverged: int
    verdict: str | None  # None for the reference
    censored: bool = False
    best: bool = False
    second: bool = False
    mark: str = ""  # "", "†" or "‡"
    pairs: int = 0  # seeds that both the cell and the reference completed
    imputed_difference: float | None = None  # with the worst attained value for the diverged seeds
    survives: Mapping[str, str] | None = None  # control -> yes | no | not decided; None where nothing is decided
    under: Mapping[str, Mapping[str, float | None]] | None = None  # control -> the effect left there, and gone there
    tuned: Mapping[str, str] | None = None  # path -> the value chosen for the cell; None in a study without `tune`
    at_edge: Mapping[str, str] | None = None  # path -> first | last, where the chosen value is an end of those tried
    sensitivity: Mapping[str, float | None] | None = None  # path -> spread of the metric on validation over its values
    tried: Mapping[str, float | None] | None = None  # setting -> mean on validation; None where a training was bad
    ratio: float | None = None  # the matched cost as a multiple of the base's; None where nothing is matched
    flops_per_token: float | None = None  # of a forward pass, by the way that runs
    sign_depends: bool | None = None  # whether the tuning's seeds put the cell above and below, by the setting


@dataclass(frozen=True, slots=True)
class AblationTable:
    """The rows of one study on one task, with the words around them."""

    study: str
    metric: str
    direction: Direction
    base: str  # the cell that the differences refer to
    task: str
    split: str
    caption: str
    legend: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    decimals: int  # that the spread of the metric supports
    context: TableContext
    matched: str | None = None  # the cost that cells were resized to: params, state or flops
    chance: float | None = None  # accuracy of a guess that has read nothing; None for other metrics
    unbound: Guess | None = None  # what can be had without binding; None for other metrics, and where it is not known

    @property
    def has_censored(self) -> bool:
        """Whether any row carries the mark of a saturated comparison."""
        return any(row.censored for row in self.rows)

    @property
    def has_tuned(self) -> bool:
        """Whether settings were chosen for each cell."""
        return any(row.tuned for row in self.rows)

    @property
    def has_controlled(self) -> bool:
        """Whether cells were trained under controls too, so that effects have something to survive."""
        return any(row.under for row in self.rows)


def ablation_tables(
    results: Iterable[ResultRow],
    *,
    study: str,
    metric: str,
    split: str | None = None,
    against: str | None = None,
    task: str | None = None,
    chances: Mapping[str, float | None] | None = None,
    guesses: Mapping[str, Guess | None] | None = None,
    controlled: Controlled | None = None,
    looks: Looks | None = None,
    provenance: TableContext | None = None,
) -> list[AblationTable]:
    """One table a task, in the order in which the results name the tasks, or the one of `task`.

    `chances` is task -> chance level, `guesses` task -> what can be had without binding. Raises MirasError as
    `ablation_table` does; no results at all give no tables.
    """
    rows = list(results)
    return [
        ablation_table(
            rows,
            study=study,
            metric=metric,
            split=split,
            against=against,
            task=name,
            chance=(chances or {}).get(name),
            unbound=(guesses or {}).get(name),
            controlled=controlled,
            looks=looks,
            provenance=provenance,
        )
        for name in (task_names(rows) if task is None else [task])
    ]


def ablation_table(
    results: Iterable[ResultRow],
    *,
    study: str,
    metric: str,
    split: str | None = None,
    against: str | None = None,
    task: str,
    chance: float | None = None,
    unbound: Guess | None = None,
    controlled: Controlled | None = None,
    looks: Looks | None = None,
    provenance: TableContext | None = None,
) -> AblationTable:
    """Tabulate one task of a study.

    `split` is the metric's own by default, `against` the base; `chance` is the accuracy of guessing, up to which a
    cell counts as at the floor, `unbound` what can be had without binding; `controlled` says which trial is which one
    under a control; `looks` are those that the study declared for this comparison. Raises MirasError for an unknown
    metric, task or cell, for a metric that no completed job recorded, and for a study without a base when `against` is
    not given. With nothing finished the numbers are None.
    """
    context = provenance or TableContext()
    measured = metric_named(metric)
    split = measured.split if split is None else split
    if not has_levels(metric, split):
        chance = unbound = None
    results = list(results)
    cells = gather(results, task=task, metric=metric, split=split)
    reference = _base(cells) if against is None else cell_named(cells, against)
    others = [cell for cell in cells if cell is not reference]
    worst = _worst(cells, measured)
    family, controls = ([cell for cell in others if (cell.role == CONTROL) == wanted] for wanted in (False, True))
    looked = None if looks is None else test_in_looks(reference, family, looks, check=True)
    of_cells = _by_cell(joint_test(reference, family, check=True)) if looked is None else looked.tests
    of_controls = joint_test(reference, controls)
    tests = {**of_cells, **_by_cell(of_controls)}
    found = [_comparison(cell, reference, worst, tests.get(cell.number), looks) for cell in others]
    limits = _limits(measured, chance, context)
    margin = context.margin or default_margin(measured, reference.mean)
    decimals = decimals_for(map(_sd, cells), [cell.mean for cell in cells])
    p = {number: test.p[number] for number, test in tests.items()}
    fates = survivals([item for item in found if item.cell.role != CONTROL], cells, controlled or {}, p, limits)
    lines = [_row(reference)]
    for item in found:
        row = _compared(item, tests.get(item.cell.number), measured, limits, margin=margin, decimals=decimals)
        row = _controlled(row, fates.of.get(item.cell.number, ()))
        lines.append(_against_control(row, item, row.p, fates, measured))
    lines = _ranked(lines, measured, limits, cells)
    lines.sort(key=lambda row: (row.cell != reference.name, row.role == CONTROL))  # stable: numbers stay in order
    censored = [row.cell for row in lines if row.censored]
    return AblationTable(
        study=study,
        metric=metric,
        direction=measured.direction,
        base=reference.name,
        task=task,
        split=split,
        caption=caption(
            study=study,
            task=task,
            metric=measured,
            split=split,
            reference=reference,
            found=found,
            cells=of_cells,
            context=context,
            looks="" if looks is None or looked is None else looks_text(looks, looked),
        ),
        legend=legend(censored=bool(censored)),
        rows=tuple(lines),
        notes=tuple(
            notes(
                reference=reference,
                found=found,
                cells=of_cells,
                controls=of_controls,
                fates=(fates.left, fates.gone),
                devices=Counter(_device(row) for row in results if row.task == task and row.values and row.device),
                censored=censored,
                worst=worst,
                decimals=decimals,
                chance=chance,
                unbound=unbound,
                margin=context.floor_margin,
                waits="" if looks is None or looked is None else waits_text(looks, looked),
            )
        ),
        decimals=decimals,
        context=context,
        chance=chance,
        unbound=unbound,
    )


def _by_cell(test: JointTest) -> dict[int, JointTest]:
    """The test for each cell that took part."""
    return dict.fromkeys(test.p, test)


def _comparison(
    cell: Cell, reference: Cell, worst: float | None, test: JointTest | None, looks: Looks | None
) -> Comparison:
    """The cell against the reference by its test: of a cell tested in looks, over the seeds of its look."""
    if test is None:
        return compare(cell, reference, worst=worst)
    seen = cell if looks is None or cell.role == CONTROL else within(cell, looks.until(test.look))
    return replace(by_test(compare(seen, reference, worst=worst), test), cell=cell)


def _row(cell: Cell) -> Row:
    """The cell's own numbers, without any comparison."""
    values = list(cell.values.values())
    return Row(
        cell=cell.name,
        changes=cell.changes,
        role=cell.role,
        mean=cell.mean,
        sd=_sd(cell),
        n=len(values),
        of=cell.of,
        difference=None,
        ci_low=None,
        ci_high=None,
        p=None,
        p_holm=None,
        params=_whole(cell.costs.get("params")),
        state_bytes=_whole(cell.costs.get("state_bytes")),
        tokens_per_second=cell.costs.get("tokens_per_second"),
        peak_memory_bytes=_whole(cell.costs.get("peak_memory_bytes")),
        failed=cell.failed,
        diverged=len(cell.diverged),
        verdict=None,
        flops_per_token=cell.costs.get("flops_per_token"),
    )


def _compared(
    found: Comparison, test: JointTest | None, metric: Metric, limits: Limits, *, margin: float, decimals: int
) -> Row:
    number = found.cell.number
    p = None if test is None else test.p[number]
    tested = found.pairs if test is None else len(test.seeds)
    censored = censored_side(found, limits) is not None
    return replace(
        _row(found.cell),
        difference=found.difference,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        p=p,
        p_holm=None if test is None else test.holm[number],
        verdict=verdict(found, metric=metric, limits=limits, p=p, tested=tested, margin=margin, decimals=decimals),
        censored=censored,
        mark="" if censored else _mark(p),
        pairs=found.pairs,
        imputed_difference=found.imputed,
    )


def _controlled(row: Row, fates: Sequence[Survival]) -> Row:
    """The row with what becomes of its effect under the controls."""
    if not fates:
        return row
    text = sentence(fates, row.difference or 0.0)
    answers = {one.control: one.answer for one in fates if one.answer is not None}
    return replace(
        row,
        survives=answers or None,
        under={one.control: one.numbers for one in fates},
        verdict=f"{row.verdict}; {text}" if text else row.verdict,
    )


def _against_control(row: Row, found: Comparison, p: float | None, fates: Survivals, metric: Metric) -> Row:
    """A control's row with what it says: of the base's, whether the base beats it; of a cell's, what is left there."""
    if row.role != CONTROL or found.reference.role != "base":
        return row
    for one in (one for of_cell in fates.of.values() for one in of_cell):
        if one.cell is found.cell and not one.is_shared and one.left is not None:
            return replace(row, verdict=f"{row.verdict}; to {one.reference.name}: {one.left}")
    if set(row.changes) != {CONTROL} or not is_decided(found, p):
        return row
    beats = ((found.difference or 0.0) < 0) == (metric.direction == "maximize")
    said = "beats it" if beats else "does not beat it"
    return replace(row, verdict=f"{row.verdict}; {found.reference.name} {said}")


def _mark(p: float | None) -> str:
    """The dagger of a p value. Few seeds need no rule of their own: p < .05 takes six."""
    if p is None or p >= 0.05:
        return ""
    return "‡" if p < 0.01 else "†"


def _device(row: ResultRow) -> str:
    """What a job ran on, alone or in a pack."""
    return row.device.partition(PACKED)[0]


def _ranked(rows: Sequence[Row], metric: Metric, limits: Limits, cells: Sequence[Cell]) -> list[Row]:
    """Best and second among the complete rows, controls apart; ties share a place.

    A saturated row keeps its place but gets no emphasis: 0.998 is not better than 0.997 where both are at the ceiling.
    """
    values = {cell.name: cell.values.values() for cell in cells}
    ranked = {row.cell: row.mean for row in rows if row.role != CONTROL and row.n == row.of and row.mean is not None}
    if len(ranked) < 2:
        return list(rows)
    places = sorted(set(ranked.values()), reverse=metric.direction == "maximize")
    tied = sum(mean == places[0] for mean in ranked.values()) > 1
    marked = []
    for row in rows:
        mean = ranked.get(row.cell)
        if mean is not None and limits.side(values[row.cell]) is None:
            second = not tied and len(places) > 1 and mean == places[1]
            row = replace(row, best=mean == places[0], second=second)
        marked.append(row)
    return marked


def _base(cells: Sequence[Cell]) -> Cell:
    for cell in cells:
        if cell.role == "base":
            return cell
    names = ", ".join(cell.name for cell in cells)
    raise MirasError(f"base: the study has no base cell; name the cell to compare with (--against): {names}")


def _limits(metric: Metric, chance: float | None, context: TableContext) -> Limits:
    """Only accuracy has ends at which cells cannot be told apart."""
    if metric.name != "accuracy":
        return Limits()
    return Limits(floor=None if chance is None else chance + context.floor_margin, ceiling=context.ceiling)


def _worst(cells: Iterable[Cell], metric: Metric) -> float | None:
    values = [value for cell in cells for value in cell.values.values()]
    if not values:
        return None
    return min(values) if metric.direction == "maximize" else max(values)


def _sd(cell: Cell) -> float | None:
    return statistics.stdev(cell.values.values()) if len(cell.values) > 1 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
