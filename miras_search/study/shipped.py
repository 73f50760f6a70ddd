"""The studies that ship with the package, found by name."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def names() -> list[str]:
    """The names of the shipped studies, sorted."""
    return sorted(_all())


def find(name: str) -> Traversable | None:
    """The file of a shipped study: `bias` or `bias.yaml`; None where none has that name."""
    return _all().get(name.removesuffix(".yaml"))


def _all() -> dict[str, Traversable]:
    found = files("miras_search.studies").iterdir()
    return {file.name.removesuffix(".yaml"): file for file in found if file.name.endswith(".yaml")}
