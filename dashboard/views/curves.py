"""Learning curves: one line and one band a cell."""

from __future__ import annotations

import streamlit as st

from miras_search.analysis.curves import KINDS, Kind, bands, ends
from miras_search.analysis.reported import Reported
from miras_search.analysis.stored import levels_of
from miras_search.dashboard import learning, page
from miras_search.dashboard.links import linked_select

FEW = 6  # lines with bands that a reader can tell apart

shown = page.snapshot()
study = shown.study
st.title("Learning curves")

names = page.curve_names(shown)
if not names:
    st.info("No curve has been recorded yet: the first points come with the first look at the validation split.")
    page.provenance(shown)
    st.stop()

place = st.columns(4)
with place[0]:
    task = linked_select("Task", shown.tasks, "task")
metrics = list(dict.fromkeys(name for name, _ in names))
with place[1]:
    metric = linked_select("Metric", metrics, "metric", default=study.metric if study.metric in metrics else None)
splits = [split for split in ("validation", "train", "test") if (metric, split) in names]
splits += [split for name, split in names if name == metric and split not in splits]
with place[2]:
    split = linked_select("Split", splits, "split")
kinds: dict[str, Kind] = {"median": "median", "mean": "mean"}
with place[3]:
    kind = kinds[linked_select("Line", list(kinds), "line")]

reported = Reported.among(study, shown.results)
left, right = st.columns([5, 1], vertical_alignment="bottom")
wants_raw = right.toggle("every seed", help="Draw the curve of each seed too, thinly.")
is_tuned = reported.tuning is not None and len(reported.results) > 0
if is_tuned and right.toggle("tuning", help="The tuning's trainings, a line a setting, in place of the table's rows."):
    is_tuned = False
results = reported.results if is_tuned else shown.results
roles = {row.cell: row.role for row in results} if is_tuned else {trial.cell: trial.role for trial in shown.trials}
cells = list(roles)
base = next((cell for cell, role in roles.items() if role == "base"), None)
first = learning.shown_first(results, roles, study.metric, FEW)
picked = left.multiselect("Cells", cells, default=first, key=f"cells of {study.name} {is_tuned}")
rows = page.curves(shown, metric, split, task, tuple(picked), reported=is_tuned)
lines = bands(rows, kind)
if len(cells) > len(lines):
    which = ": at first the base and the best on validation" if picked == first else ""
    st.caption(f"{len(lines)} of {len(cells)} cells are drawn{which}.")
if not lines:
    st.info("None of these cells has such a curve yet." if picked else "Choose at least one cell.")
    page.provenance(shown)
    st.stop()

raw = list(rows) if wants_raw else []
drawn = len({(row.cell, row.seed) for row in raw})
if drawn > learning.MANY_CURVES:
    st.warning(
        f"{drawn} curves are more than {learning.MANY_CURVES}, which would stall the browser: choose fewer cells."
    )
    raw = []
levels = levels_of(study, task, metric, split)
figure = learning.curve_figure(
    lines,
    base=base,
    metric=metric,
    split=split,
    colours=page.colours(),
    stops=ends(rows, results),
    raw=raw,
    levels=levels,
)
st.plotly_chart(figure, key="curves", config={"displayModeBar": False}, alt=f"Learning curves of {split} {metric}")
counts = [point.n for points in lines.values() for point in points]
n = f"n = {counts[0]}" if min(counts) == max(counts) else f"n from {min(counts)} to {max(counts)}, as the hover says"
st.caption(
    f"Line: {KINDS[kind]}; {n}. A seed that diverged or has not got that far leaves the line where its curve "
    "ends, so the last points may rest on fewer seeds."
    + (" What can be had without binding needs no memory of keys." if "without binding" in levels else "")
)
page.provenance(shown)
