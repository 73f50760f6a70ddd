"""How the chosen study is doing, and the studies of this database."""

from __future__ import annotations

import shlex

import streamlit as st

from miras_search.analysis.standing import headline
from miras_search.dashboard import frames, page
from miras_search.dashboard.links import preset
from miras_search.dashboard.markup import progress_bar
from miras_search.dashboard.progress import (
    command,
    current,
    duration,
    live_run,
    newest,
    silent_run,
    stamp,
    time_left,
    troubles,
)
from miras_search.errors import MirasError
from miras_search.metrics import METRICS

REFRESH_SECONDS = 2.0


@st.fragment(run_every=REFRESH_SECONDS)
def live(name: str) -> None:
    """Everything that changes while the study runs."""
    shown, moment = page.current(name), page.now()
    study = shown.study
    st.html(progress_bar(study.jobs, page.colours()))
    left, run, silent = time_left(shown, moment), live_run(shown.runs, moment), silent_run(shown.runs, moment)
    tiles = st.columns(4)
    tiles[0].metric("Jobs ended", f"{shown.finished} of {shown.total}", border=True)
    is_done = shown.total > 0 and shown.finished == shown.total
    ended = "held" if shown.is_held else "ended"
    tiles[1].metric("State", ended if is_done else "running" if run else "not running", border=True)
    tiles[2].metric("Time left", _left(left.seconds), border=True, help=left.basis)
    tiles[3].metric("Cells", study.trials, border=True)
    if shown.finished < shown.total:
        st.caption(f"Time left: {left.basis}.")
    if shown.is_held and run is None:
        st.warning(
            "Trainings of the tuning failed, so no setting is chosen and no reported seed is trained "
            "(`tune.failed: wait`). `--retry failed` tries them again.",
            icon=":material/warning:",
        )
    if silent is not None:
        st.warning(
            f"The run on {silent.host} has been silent since {stamp(silent.heartbeat_at)}. The same command "
            f"goes on where it stopped{f': `{shlex.join(again)}`' if (again := command(shown.runs)) else '.'}",
            icon=":material/warning:",
        )
    running = frames.running_frame(current(shown, moment))
    if not running.empty and run is not None:
        st.subheader("Running now")
        st.dataframe(
            running,
            hide_index=True,
            column_config={
                "progress": st.column_config.ProgressColumn(format="%.0f %%", min_value=0, max_value=100, color="blue")
            },
        )
    bad = troubles(shown)
    if bad:
        failed = any(one.attempt.state != "lost" for one in bad)
        st.subheader("Failures" if failed else "Interrupted")
        rest = "; `--retry failed` tries the rest" if failed else ""
        st.caption(f"Every attempt that came to nothing. A lost one is made again when the study goes on{rest}.")
        st.dataframe(frames.troubles_frame(bad[:50], moment), hide_index=True)
    key = (study.metric, METRICS[study.metric].split)
    done = newest(shown, key)
    if done:
        st.subheader("Newest finished")
        st.dataframe(
            frames.newest_frame(done, study.metric, moment),
            hide_index=True,
            placeholder="–",
            column_config={study.metric: st.column_config.NumberColumn(format="%.4f")},
        )


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "not known yet"
    if seconds == 0:
        return "none"
    return f"≈ {duration(seconds if seconds < 120 else 60 * round(seconds / 60))}"


def _findings(name: str, tasks: list[str]) -> None:
    """What has been decided so far, a line a task."""
    try:
        found = page.tables(name, metric=None, split=None, against=None, task=None)
    except MirasError as error:
        st.info(str(error))
        return
    for table in found:
        prefix = f"**{page.plain(table.task)}** ({table.metric}): " if len(tasks) > 1 else ""
        st.markdown(prefix + page.plain(headline(table)))
    st.page_link("views/ablation.py", label="See the ablation table", icon=":material/table_chart:")


def choose() -> None:
    """A click on a line of the table of studies shows that study."""
    rows = st.session_state["studies"].selection.rows
    if rows:
        preset(page.STUDY, st.session_state["listed"][rows[0]])


shown = page.snapshot()
st.title(shown.study.name)
if shown.study.question:
    st.markdown(f"#### {page.plain(shown.study.question)}")
_findings(shown.study.name, shown.tasks)
live(shown.study.name)
page.provenance(shown)

st.subheader("Studies in this database")
listed = page.studies()
st.session_state["listed"] = [study.name for study in listed]
st.dataframe(
    frames.studies_frame(listed, page.now()),
    hide_index=True,
    key="studies",
    on_select=choose,
    selection_mode="single-row",
    column_config={"question": st.column_config.TextColumn(width=330)},
)
