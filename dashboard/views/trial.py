"""One trial: its design, what it measured seed by seed, what went wrong, and the command that runs it again."""

from __future__ import annotations

import shlex

import streamlit as st

from miras_search.analysis.commits import commit_of
from miras_search.analysis.duel import trial_flags
from miras_search.dashboard import frames, page
from miras_search.dashboard.designs import cards
from miras_search.dashboard.links import linked_select
from miras_search.dashboard.markup import design_cards, progress_bar
from miras_search.dashboard.progress import command, stamp
from miras_search.space.plugin_text import told
from miras_search.store import queries

shown = page.snapshot()
study = shown.study
if not shown.trials:
    st.title("No trial yet")
    st.info(f"The study {study.name} has no trials yet; they are stored when it is run.")
    page.provenance(shown)
    st.stop()

by_number = {str(trial.number): trial for trial in shown.trials}
with st.sidebar:
    number = linked_select(
        "Trial",
        list(by_number),
        "trial",
        show=lambda text: f"{text}  {by_number[text].cell}" if text in by_number else text,
    )
trial = by_number[number]
st.title(page.plain(trial.cell))
words = [f"trial {trial.number} of study {study.name}", trial.role, trial.state]
if trial.changes:
    words.append(frames.changes_text(trial.changes))
words.append(f"design {trial.design_hash}")
st.caption("  ·  ".join(page.plain(word) for word in words))
st.html(progress_bar(trial.jobs, page.colours()))

st.subheader("Design")
st.html(design_cards(cards(trial.design, told(run.provenance for run in shown.runs))))

st.subheader("Jobs")
results = [row for row in shown.results if row.number == trial.number]
table = frames.jobs_frame(results)
formats = {name: "%.4f" for name in table.columns[4:]}
formats |= {
    "params": "localized",
    "state_bytes": "localized",
    "flops_per_token": "localized",
    "peak_memory_bytes": "bytes",
}
formats |= {"tokens_per_second": "%.0f", "wall_seconds": "%.1f"}
numbers = {name: st.column_config.NumberColumn(format=formats[name]) for name in table.columns[4:]}
st.dataframe(table, hide_index=True, column_config=numbers, placeholder="–")

attempts = [
    row for row in shown.attempts if row.job_id in {job.id for job in shown.jobs if job.trial_number == trial.number}
]
st.subheader("Attempts")
if attempts:
    st.dataframe(frames.attempts_frame(attempts), hide_index=True)
else:
    st.caption("None yet.")
for row in attempts:
    if row.error_text:
        label = f"{row.task}, seed {row.seed}, try {row.attempt}: {row.state}, {row.error_type or 'no error type'}"
        with st.expander(page.plain(label)):
            st.code(row.error_text, language=None, wrap_lines=True)
files = [row for row in queries.artifacts(page.database(), study.id) if row.cell == trial.cell]
if files:
    with st.expander(f"Files ({len(files)})"):
        st.dataframe(frames.artifacts_frame(files), hide_index=True)

left, right = st.columns(2)
with left:
    st.subheader("Settings")
    st.dataframe(frames.settings_frame(trial.settings), hide_index=True)
with right:
    st.subheader("Run it again")
    name = shlex.quote(study.name)
    again = command(shown.runs)
    if again is not None and "evaluated" not in study.config:  # the command of an evaluation is told by show
        st.code(shlex.join([*again, *trial_flags(study.name, trial.number)]), language="bash")
    st.code(f"miras-search show {name} {trial.number}", language="bash")
    st.subheader("Provenance")
    used = {row.run_id for row in attempts}
    for run in shown.runs:
        if run.id in used:
            with st.expander(
                f"Run {run.id}: {stamp(run.started_at)}, {run.status}, commit {commit_of(run.provenance) or 'unknown'}"
            ):
                st.dataframe(
                    frames.settings_frame({"host": run.host, "pid": run.pid, **run.provenance}), hide_index=True
                )
    if not used:
        st.caption("No run has trained this cell yet.")
page.provenance(shown)
