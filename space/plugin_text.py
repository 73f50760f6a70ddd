"""What a plugin says of its options, read from its text: a reader of stored results runs nobody's code."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast


class Told(NamedTuple):
    """An option's own words."""

    equation: str
    summary: str
    """The first line of its docstring."""


def told(provenances: Iterable[Mapping[str, object]]) -> dict[str, Told]:
    """By name the options of the plugins whose text stands in the provenance of runs, the newest text last."""
    found: dict[str, Told] = {}
    for provenance in provenances:
        kept = provenance.get("plugins")
        for plugin in kept.values() if isinstance(kept, Mapping) else ():
            found.update(_options(str(cast(Mapping[str, object], plugin).get("source", ""))))
    return found


def _options(source: str) -> Iterator[tuple[str, Told]]:
    """The classes with a name and an equation that are written out."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):  # another version's Python
        return
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            facts = dict(_facts(node))
            if "name" in facts and "equation" in facts:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                yield facts["name"], Told(facts["equation"], summary)


def _facts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Class variables that are text, by name."""
    for line in node.body:
        targets = (
            line.targets if isinstance(line, ast.Assign) else [line.target] if isinstance(line, ast.AnnAssign) else []
        )
        value = getattr(line, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield target.id, value.value
