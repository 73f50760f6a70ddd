"""miras-search: search and ablate the design space of associative-memory sequence models.

The four choices of the Miras framework (arXiv 2504.13173) are memory architecture, attentional bias,
retention gate and memory learning algorithm. This package trains points of that space as small models,
schedules the trainings, stores what they found and tabulates the differences with their uncertainty.

From Python: `open` a database and read its studies as data frames, `run` a study (docs/api.md). Both are
loaded when they are first asked for, so that the import itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miras_search.api import Results as Results
    from miras_search.api import StoredStudy as StoredStudy
    from miras_search.api import open as open
    from miras_search.api import run as run

__version__ = "0.1.0"

_API = ("Results", "StoredStudy", "open", "run")


def __getattr__(name: str) -> object:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("miras_search.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *_API]
