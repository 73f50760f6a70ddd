"""A study in one file that can be mailed: question, findings, tables, figures, trials, provenance, the study.

It asks nothing of any other host, then or later: styles, script and figures are in the file, and its policy forbids the
browser to load anything. Hosts and paths of the machines that trained are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from miras_search import __version__
from miras_search.analysis.commits import commit_of
from miras_search.analysis.curves import KINDS, bands, ends
from miras_search.analysis.findings import Findings as Statistics
from miras_search.analysis.numbers import NOTHING, decimals_for, fixed
from miras_search.analysis.ranks import RankTable
from miras_search.analysis.reported import Reported
from miras_search.analysis.snapshot import Snapshot, load
from miras_search.analysis.standing import compared, headline, left_out
from miras_search.analysis.stored import confirmed, levels_of, stored_tables
from miras_search.analysis.stored_findings import stored_findings
from miras_search.analysis.table import AblationTable
from miras_search.errors import cause
from miras_search.export import effects, figures, html
from miras_search.export.findings import to_text
from miras_search.metrics import METRICS
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import FINAL_STATES, RunRow

SCRIPT = Path(__file__).with_name("report.js")
STYLE = Path(__file__).with_name("report.css")
MOST_LINES = 8  # in one figure of curves: as many as a reader can tell apart
MOST_FAILURES = 50
STATISTICS_WIDTH = 110  # characters of a line in the page's width


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves that are drawn of one task, and what they are of."""

    figure: Figure
    words: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All that an export shows of one study."""

    shown: Snapshot
    tables: Sequence[AblationTable]
    curves: Mapping[str, Curves]
    """By task; none where nothing was recorded."""
    statistics: Sequence[Statistics]
    """One a table."""
    ranks: RankTable | None


def findings(
    db: Database, name: str, *, metric: str | None = None, split: str | None = None, against: str | None = None
) -> Findings:
    """Read the study called `name`; of a search that has confirmed nothing yet there are no tables.

    Raises StudyNotFound, and MirasError as `stored_tables` does.
    """
    shown = load(db, name)
    tables = stored_tables(db, name, metric=metric, split=split, against=against) if confirmed(db, name) else []
    recorded = queries.curve_names(db, shown.study.id)
    wanted = metric or shown.study.metric
    named = next((pair for pair in [(wanted, "validation"), (wanted, "train"), *recorded] if pair in recorded), None)
    curves = {table.task: found for table in tables if named and (found := _curves(db, shown, table, *named))}
    return Findings(shown, tables, curves, *stored_findings(db, name, tables))


def to_report(found: Findings) -> str:
    """The whole page."""
    study = found.shown.study
    parts = [
        f'<header>\n<p class="kicker">{escape(study.kind)} study · {escape(study.name)}</p>\n'
        f"<h1>{escape(study.question or study.name)}</h1>\n{_strip(found.shown)}</header>\n"
    ]
    if not found.tables:
        parts.append("<p>Nothing is confirmed on fresh seeds yet, so there is nothing to compare.</p>\n")
    if len(found.tables) > 1:
        parts.append(f"<section>\n<h2>All tasks</h2>\n{html.table_html(found.tables)}\n</section>\n")
    parts += [
        _task(table, more, found.curves.get(table.task), len(found.tables) > 1)
        for table, more in zip(found.tables, found.statistics, strict=True)
    ]
    parts += [_statistics(found)] if found.tables else []
    parts += [_trials(found.shown), _failures(found.shown), _provenance(found.shown)]
    parts.append(
        f"<section>\n<details>\n<summary>The study file</summary>\n<pre>{escape(study.config_yaml)}</pre>\n</details>\n"
        f"</section>\n<footer>Written by miras-search {__version__}. This page loads nothing.</footer>\n"
    )
    script = SCRIPT.read_text(encoding="utf-8")
    return html.page(f"{study.name}: {study.question or study.kind}", "".join(parts), styles=[STYLE], script=script)


def _curves(db: Database, shown: Snapshot, table: AblationTable, metric: str, split: str) -> Curves | None:
    best = [row.cell for row in compared(table, controls=False)] + [row.cell for row in compared(table, controls=True)]
    cells = [table.base, *best][:MOST_LINES]
    reported = Reported.of(db, shown.study)
    rows = reported.curves(db, metric, split, task=table.task, cells=cells)
    lines = bands(rows, "median")
    if not lines:
        return None
    stops = [end for end in ends(rows, reported.results) if end.cell in lines]
    base = table.base if table.base in lines else None
    count = f"{len(lines)} of {len(table.rows)} cells. " if len(lines) < len(table.rows) else ""
    seeds = [point.n for points in lines.values() for point in points]
    n = f"n = {seeds[0]}" if min(seeds) == max(seeds) else f"n from {min(seeds)} to {max(seeds)}"
    words = (
        f"{count}Line: {KINDS['median']}; {n}. A seed that diverged leaves the line where its curve ends; a cross "
        "marks its last value."
    )
    levels = levels_of(shown.study, table.task, metric, split)
    figure = figures.curves(
        lines, base=base, metric=metric, split=split, stops=stops, cells=len(table.rows), levels=levels
    )
    return Curves(figure, words)


def _strip(shown: Snapshot) -> str:
    jobs = shown.study.jobs
    parts = [f"{shown.finished} of {shown.total} jobs ended"]
    parts += [f"{jobs[state]} {state}" for state in FINAL_STATES if state != "complete" and jobs[state]]
    parts += [f"{shown.study.trials} cells", f"commit {shown.commit or 'unknown'}"]
    parts.append(f"newest change {shown.study.updated_at.date().isoformat()}")
    return f'<p class="strip">{escape("  ·  ".join(parts))}</p>\n'


def _task(table: AblationTable, more: Statistics, curves: Curves | None, several: bool) -> str:
    title = f"<h2>Task {escape(table.task)}</h2>\n" if several else "<h2>Findings</h2>\n"
    parts = [f'<section>\n{title}<p class="headline">{escape(headline(table))}</p>\n']
    parts.append(html.verdict_list(table))
    forest = figures.forest(table)
    if forest is not None:
        drawn = figures.inline(forest, f"Forest plot. {headline(table)}")
        note = f"<figcaption>{escape(left_out(table))}</figcaption>" if left_out(table) else ""
        parts.append(f'<figure class="forest">{drawn}{note}</figure>\n')
    parts.append(f"<h3>Table</h3>\n{html.table_html([table])}\n{html.words([table])}")
    if more.contrasts is not None:
        parts.append(f"<h3>What levels change</h3>\n{effects.to_html(more)}")
    if curves is not None:
        drawn = figures.inline(curves.figure, f"Learning curves of {table.task}")
        parts.append(
            f'<h3>Learning curves</h3>\n<figure class="curves">{drawn}<figcaption>{escape(curves.words)}</figcaption>'
            "</figure>\n"
        )
    return "".join([*parts, "</section>\n"])


def _statistics(found: Findings) -> str:
    text = escape(to_text(found.statistics, found.ranks, width=STATISTICS_WIDTH))
    return (
        f"<section>\n<details>\n<summary>Statistics beyond the table</summary>\n<pre>{text}</pre>\n</details>\n"
        "</section>\n"
    )


def _trials(shown: Snapshot) -> str:
    """Every trial with the state of its jobs and, a task each, the mean of the study's metric with its n."""
    metric = shown.study.metric
    key = (metric, METRICS[metric].split)
    found: dict[tuple[int, str], list[float]] = {}
    params: dict[int, float] = {}
    for row in shown.tried:
        if row.state == "complete" and math.isfinite(row.values.get(key, math.nan)):
            found.setdefault((row.number, row.task), []).append(row.values[key])
        if ("params", "") in row.values:
            params[row.number] = row.values["params", ""]
    places = decimals_for([], [sum(values) / len(values) for values in found.values()])
    heads = ["trial", "cell", "role", "changes", "state", "jobs", "diverged", "failed"]
    heads += [f"{task}: {metric} (n)" if len(shown.tasks) > 1 else f"{metric} (n)" for task in shown.tasks] + ["params"]
    where = "<p>On the seeds that the search looked at; the table has what fresh ones left of it.</p>\n"
    lines = []
    for trial in shown.trials:
        changes = ", ".join(f"{path}: {level}" for path, level in trial.changes.items())
        ended = sum(trial.jobs.get(state, 0) for state in FINAL_STATES)
        cells = [str(trial.number), trial.cell, trial.role, changes, trial.state, f"{ended}/{sum(trial.jobs.values())}"]
        cells += [str(trial.jobs["diverged"]), str(trial.jobs["failed"])]
        for task in shown.tasks:
            values = found.get((trial.number, task), [])
            cells.append(f"{fixed(sum(values) / len(values), places)} ({len(values)})" if values else NOTHING)
        cells.append(f"{params[trial.number]:.0f}" if trial.number in params else NOTHING)
        lines.append(cells)
    said = where if shown.study.kind == "search" else ""
    return f"<section>\n<h2>Trials</h2>\n{said}{_grid(heads, lines, words=5)}\n</section>\n"


def _failures(shown: Snapshot) -> str:
    bad = [row for row in shown.attempts if row.state not in ("complete", "pruned", "diverged", "running")]
    if not bad:
        return ""
    cells = {job.id: job.cell for job in shown.jobs}
    lines = [
        [cells[row.job_id], row.task, str(row.seed), str(row.attempt), row.state, cause(row.error_text, row.error_type)]
        for row in bad[:MOST_FAILURES]
    ]
    count = f" ({MOST_FAILURES} of {len(bad)})" if len(bad) > MOST_FAILURES else ""
    grid = _grid(["cell", "task", "seed", "try", "how", "error"], lines, words=6)
    return f"<section>\n<h2>Attempts that came to nothing{count}</h2>\n{grid}\n</section>\n"


def _provenance(shown: Snapshot) -> str:
    lines = [
        [
            str(run.id),
            run.started_at.date().isoformat(),
            run.status,
            commit_of(run.provenance) or "unknown",
            _versions(run),
        ]
        for run in shown.runs
    ]
    devices = ", ".join(sorted({row.device for row in shown.attempts})) or "none yet"
    grid = _grid(["run", "started", "status", "commit", "versions"], lines, words=5)
    return (
        f'<section>\n<h2>Provenance</h2>\n{grid}\n<p class="caption">Study {escape(shown.study.name)}, configuration '
        f"{escape(shown.study.config_hash)}; trained on {escape(devices)}. The table again: "
        f"<code>miras-search table {escape(shown.study.name)}</code></p>\n</section>\n"
    )


def _versions(run: RunRow) -> str:
    versions = run.provenance.get("versions")
    return ", ".join(f"{name} {text}" for name, text in versions.items()) if isinstance(versions, dict) else "unknown"


def _grid(heads: Sequence[str], lines: Sequence[Sequence[str]], *, words: int) -> str:
    """A table whose first `words` columns are text; a click on a heading sorts by it."""

    def row(tag: str, texts: Sequence[str]) -> str:
        kinds = ["word"] * words + ["number"] * (len(texts) - words)
        return "".join(f'<{tag} class="{kind}">{escape(text)}</{tag}>' for kind, text in zip(kinds, texts, strict=True))

    top = row("th", heads)
    body = "".join(f'<tr class="row">{row("td", line)}</tr>' for line in lines)
    return html.wrapped(
        f'<div class="scroll"><table class="sortable"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )
