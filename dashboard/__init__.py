"""The Streamlit dashboard over a miras-search database."""

if __name__ != "miras_search.dashboard":
    raise ImportError("import this package as miras_search.dashboard, not as dashboard")
