"""The ablation table: what each choice changes, whether that is decided, and what it costs."""

from __future__ import annotations

import streamlit as st

from miras_search.analysis.findings import usual_margin
from miras_search.analysis.standing import headline, left_out
from miras_search.analysis.table import AblationTable
from miras_search.dashboard import markup, page
from miras_search.dashboard.forest import forest
from miras_search.dashboard.links import linked_select
from miras_search.errors import MirasError
from miras_search.export import html
from miras_search.export.formats import RENDERERS, SUFFIXES
from miras_search.metrics import METRICS

FORMATS = {"Markdown": "markdown", "LaTeX": "latex", "HTML": "html", "CSV": "csv", "JSON": "json"}
TYPES = {
    "markdown": "text/markdown",
    "latex": "application/x-tex",
    "html": "text/html",
    "csv": "text/csv",
    "json": "application/json",
}

shown = page.snapshot()
study = shown.study
st.title("Ablation table")
if study.question:
    st.markdown(f"#### {page.plain(study.question)}")

recorded = {key for row in shown.results for key in row.values}
metrics = [name for name in METRICS if any(key[0] == name for key in recorded)] or [study.metric]
place = st.columns(4)
with place[0]:
    task = linked_select("Task", shown.tasks, "task") if shown.tasks else None
with place[1]:
    metric = linked_select("Metric", metrics, "metric", default=study.metric if study.metric in metrics else None)
own_split = METRICS[metric].split
splits = [own_split, *sorted({split for name, split in recorded if name == metric} - {own_split})]
with place[2]:
    split = linked_select("Split", splits, "split", default=own_split, show=lambda text: text or "none (a cost)")
cells = list(shown.cells)
base = cells[0] if shown.trials and shown.trials[0].role == "base" else None
with place[3]:
    against = linked_select("Against", cells, "against", default=base) if cells else None

# left at their defaults, the options are left out: the command in the caption then is the one that a reader would type
options = {
    "metric": None if metric == study.metric else metric,
    "split": None if split == own_split else split,
    "against": None if against == base else against,
}


def tables_of(which: str | None) -> list[AblationTable]:
    """The tables of one task, or of all; stops the page with the reason where there is none."""
    try:
        return page.tables(study.name, **options, task=which)
    except MirasError as error:
        st.info(str(error), icon=":material/info:")
        page.provenance(shown)
        st.stop()


several = len(shown.tasks) > 1
table = tables_of(task if several else None)[0]
st.markdown(f"**{page.plain(headline(table))}**")
figure = forest(table, page.colours())
if figure is None:
    st.info("The forest plot appears as soon as a cell and its base have completed a seed in common.")
else:
    st.plotly_chart(figure, key="forest", config={"displayModeBar": False}, alt=f"Forest plot. {headline(table)}")
    if left_out(table):
        st.caption(left_out(table))

st.subheader("Table")
st.html(markup.ablation(table, shown.cells))
st.caption(page.plain(table.caption))
st.caption(page.plain(table.legend))

if several:
    which = st.radio("Download", ["this task", "all tasks"], key="which", horizontal=True)
    exported = tables_of(None) if which == "all tasks" else [table]
else:
    exported = [table]
buttons = st.columns(6)
for button, (label, name) in zip(buttons, FORMATS.items(), strict=False):
    button.download_button(
        label,
        RENDERERS[name](exported),
        file_name=f"{study.name}-{table.metric}{SUFFIXES[name]}",
        mime=TYPES[name],
        on_click="ignore",
        icon=":material/download:",
        key=f"download {name}",
        width="stretch",
    )
if table.context.command:
    st.caption(f"The same from the command line: `{table.context.command} --format markdown|latex|html|csv|json`")

if st.toggle(
    "Report in one file", key="report", help="Tables, figures, statistics, trials and provenance; it can be mailed."
):
    st.download_button(
        "Report",
        page.report(study.name, **options),
        file_name=f"{study.name}-report.html",
        mime=TYPES["html"],
        on_click="ignore",
        icon=":material/download:",
        key="download report",
    )
if st.toggle("Statistics beyond the table", key="statistics"):  # they take a second, so only for who asks
    usual = usual_margin(table)
    margin = st.number_input("A difference too small to matter", min_value=usual / 100, value=usual, format="%g")
    st.code(page.statistics(study.name, **options, task=task, margin=margin), language=None)

st.subheader("Verdicts")
st.html(html.verdict_list(table, page.colours()))
if table.notes:
    st.subheader("Notes")
    st.markdown("\n".join(f"- {page.plain(note)}" for note in table.notes))
page.provenance(shown)
