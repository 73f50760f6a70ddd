"""The formats by name, for `--format` and for download buttons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from miras_search.export.csv_ import to_csv
from miras_search.export.html import to_html
from miras_search.export.json_ import to_json
from miras_search.export.latex import to_latex
from miras_search.export.layout import Tables
from miras_search.export.markdown import to_markdown
from miras_search.export.text import to_text

RENDERERS: Mapping[str, Callable[[Tables], str]] = MappingProxyType(
    {"text": to_text, "markdown": to_markdown, "latex": to_latex, "html": to_html, "csv": to_csv, "json": to_json}
)
SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"text": ".txt", "markdown": ".md", "latex": ".tex", "html": ".html", "csv": ".csv", "json": ".json"}
)
