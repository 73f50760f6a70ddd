"""All trials of a study; a click on one opens its page."""

from __future__ import annotations

import streamlit as st

from miras_search.dashboard import frames, page
from miras_search.dashboard.links import linked_select, preset
from miras_search.metrics import METRICS
from miras_search.store.types import JOB_STATES, ROLES

shown = page.snapshot()
study = shown.study
st.title("Trials")
st.caption("One line a cell of the study. Click the box in front of a line to open the trial's page.")
if study.kind == "search":
    st.caption("Means are on the seeds that the search looked at; the table has what fresh ones left of them.")

place = st.columns([3, 2, 2, 2])
text = place[0].text_input("Filter", placeholder="words of the cell, its changes or its hash", key="filter")
states = place[1].multiselect("State", list(JOB_STATES), key="states")
roles = place[2].multiselect("Role", list(ROLES), key="roles")
with place[3]:
    task = linked_select("Task", shown.tasks, "task") if shown.tasks else None

every = frames.trials_frame(shown, task)
frame = frames.filtered(every, text=text, states=states, roles=roles)
unit = METRICS[study.metric]
label = f"{unit.split} {unit.name} {unit.symbol}".strip()
# the selection would still be there on the way back and open the trial again, so each visit has a table of its own
visit = st.session_state.setdefault("visit", 0)
event = st.dataframe(
    frame,
    hide_index=True,
    placeholder="–",
    key=f"trials {visit}",
    on_select="rerun",
    selection_mode="single-row",
    height="content" if len(frame) <= 20 else 740,
    column_config={
        "trial": st.column_config.NumberColumn(width=50, pinned=True),
        "mean": st.column_config.NumberColumn(label, help="mean over the completed seeds", format="%.4f"),
        "sd": st.column_config.NumberColumn(format="%.4f", help="over the completed seeds, n - 1 in the denominator"),
        "n": st.column_config.NumberColumn(help="completed seeds in the mean"),
        "ended": st.column_config.TextColumn(help="jobs that completed, diverged or failed, of all"),
        "params": st.column_config.NumberColumn(format="localized"),
    },
)
st.caption(f"{len(frame)} of {len(every)} trials.")
rows = event.selection.rows
if rows:
    st.session_state["visit"] = visit + 1
    preset("trial", str(frame["trial"].iloc[rows[0]]))
    st.switch_page("views/trial.py")
page.provenance(shown)
