"""The dashboard's main script: the pages, and the study that all of them show. Started by `miras-search dashboard`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from miras_search.dashboard import page
from miras_search.dashboard.links import linked_select
from miras_search.dashboard.markup import STYLE
from miras_search.export.html import STYLE as TABLE_STYLE

# a local picture: Streamlit's own icons would be fetched from another host
st.set_page_config(
    page_title="miras-search", page_icon=str(Path(__file__).with_name("assets") / "icon.png"), layout="wide"
)

st.html(TABLE_STYLE)
st.html(STYLE)
navigation = st.navigation(
    [
        st.Page("views/overview.py", title="Overview", icon=":material/monitoring:", default=True),
        st.Page("views/ablation.py", title="Ablation table", icon=":material/table_chart:", url_path="ablation"),
        st.Page("views/found.py", title="Search", icon=":material/travel_explore:", url_path="found"),
        st.Page("views/curves.py", title="Learning curves", icon=":material/show_chart:", url_path="curves"),
        st.Page("views/trials.py", title="Trials", icon=":material/list:", url_path="trials"),
        st.Page("views/trial.py", title="One trial", icon=":material/search:", url_path="trial"),
    ]
)
names = [study.name for study in page.studies()]
if names:
    with st.sidebar:
        linked_select("Study", names, page.STUDY)
navigation.run()
