"""A search: the best so far with their competitors, and what was left of them on fresh seeds."""

from __future__ import annotations

import streamlit as st

from miras_search.analysis.search import headline
from miras_search.dashboard import page
from miras_search.dashboard.found import best_so_far, found_frame, shrinkage
from miras_search.dashboard.trade_off import front_frame, trade_off

shown = page.snapshot()
study = shown.study
st.title("Search")
found = page.search(study.name)
if found is None:
    st.info(f"{page.plain(study.name)} is an {study.kind}: its cells are given, none is searched for.")
    page.provenance(shown)
    st.stop()
if study.question:
    st.markdown(f"#### {page.plain(study.question)}")
report, seen = found
st.markdown(f"**{page.plain(headline(report))}**")
st.caption(", ".join(f"{count} {state}" for state, count in report.trials.items()) + " trials")

figure = best_so_far(seen, report, page.colours())
if figure is not None:
    st.subheader("Best so far")
    st.plotly_chart(figure, key="best", config={"displayModeBar": False}, alt=f"Best so far. {headline(report)}")
figure = shrinkage(report, page.colours())
if figure is not None:
    st.subheader("Confirmed against found")
    st.plotly_chart(figure, key="shrinkage", config={"displayModeBar": False}, alt=headline(report))
if report.rows:
    st.dataframe(
        found_frame(report),
        hide_index=True,
        placeholder="–",
        column_config={
            "confirmed": st.column_config.NumberColumn(help="mean over the fresh jobs", format="%.4f"),
            "sd": st.column_config.NumberColumn(format="%.4f"),
            "shrinkage": st.column_config.NumberColumn(
                help="what the search saw less what fresh seeds gave; positive where it promised too much",
                format="%.4f",
            ),
        },
    )
if report.on_front:
    st.subheader("On the front")
    st.caption("No other trial is better in one objective and as good in the others.")
    figure = trade_off(seen, report, page.colours())
    if figure is not None:
        told = f"{len(report.front)} of {report.competitors} competitors are on the front."
        st.plotly_chart(figure, key="front", config={"displayModeBar": False}, alt=told)
    st.dataframe(front_frame(report), hide_index=True, placeholder="–")
if report.confirmed:
    st.page_link("views/ablation.py", label="The confirmed ones against the base", icon=":material/table_chart:")
page.provenance(shown)
