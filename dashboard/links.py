"""Choices that live in the page's address, so that a link brings a colleague to the same view.

Streamlit's own `bind="query-params"` cannot be combined with `st.switch_page`, which refuses to leave while a widget is
bound; so the address is read before a widget is drawn and written after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st


def linked_select(
    label: str, options: Sequence[str], key: str, *, default: str | None = None, show: Callable[[str], str] = str
) -> str:
    """A selectbox whose choice is the query parameter `key`; an address that names no option is
    told so, and falls to the default.
    """
    asked = st.query_params.get(key)
    adopt(key, options, default if default is not None else options[0])
    chosen = str(st.selectbox(label, options, key=key, format_func=show))
    if asked is not None and asked not in options:
        st.warning(f"The {label.lower()} that the address asks for is not here; this is another.")
    publish(key, chosen)
    return chosen


def adopt(key: str, options: Sequence[str], default: str) -> None:
    """Bring the widget's state in line with the address, which counts when it is not what this session wrote."""
    written = st.session_state.get(_memory(key))
    asked = st.query_params.get(key)
    if asked is not None and asked != written and asked in options:
        st.session_state[key] = asked
    elif st.session_state.get(key) not in options:
        st.session_state[key] = written if written in options else default


def publish(key: str, value: str) -> None:
    """Write the choice into the address, and remember it: Streamlit forgets a widget that is not on the page."""
    if st.query_params.get(key) != value:
        st.query_params[key] = value
    st.session_state[_memory(key)] = value


def preset(key: str, value: str) -> None:
    """Choose for a widget that is drawn later, from a callback or before a change of page."""
    st.session_state[key] = value
    st.session_state[_memory(key)] = value
    st.query_params.pop(key, None)


def _memory(key: str) -> str:
    return f"linked {key}"
