"""A YAML text as plain data that knows the line of every value, with overrides from the command line applied.

YAML 1.2 by ruamel: `1e-2` is a number, `no` is a word, a key written twice is an error. What a study cannot use (tags,
dates, keys that are not words, numbers that are not finite) is refused here, so that the rest sees plain data only.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from miras_search.space.fields import Path, Plain, Problem
from miras_search.study.problems import Located, Place, StudyError

MAX_VALUES = 100_000  # aliases can make a short text huge
MAX_DEPTH = 40  # an alias to its own parent never ends


@dataclass(frozen=True, slots=True)
class Document:
    """A study as plain data, the place of each of its values, and its text."""

    data: dict[str, Plain]
    places: dict[Path, Place]
    text: str

    def locate(self, problem: Problem) -> Located:
        """The problem at the deepest part of its path that is written down; the rest of the path is told in words."""
        depth = len(problem.where)
        while depth and problem.where[:depth] not in self.places:
            depth -= 1
        place = self.places[problem.where[:depth]]
        rest = dotted(problem.where[depth:])
        what = f"{rest}: {problem.what}" if rest else problem.what
        where = dotted(problem.where[:depth]) if place.line else ""  # an override names its own path
        return Located(place.path, place.line, place.col, where, what)

    def error(self, problems: Sequence[Problem]) -> StudyError:
        """All problems, located."""
        return StudyError(map(self.locate, problems))


def dotted(path: Path) -> str:
    """A path as overrides write it: `vary.bias.2.lp.p`."""
    return ".".join(map(str, path))


def read(text: str, path: str, overrides: Sequence[str] = (), name: str | None = None) -> Document:
    """The document in `text`, which came from the file `path`.

    Overrides are `PATH=VALUE` with a YAML value; `name` replaces the study's name. Raises `StudyError`.
    """
    tree = _parse(text, Place(path, 1, 1))
    if tree is None:
        raise StudyError.at(Place(path, 1, 1), "the file is empty: a study needs at least name, task and base")
    if not isinstance(tree, CommentedMap):
        kind = "a list" if isinstance(tree, CommentedSeq) else "a single value"
        raise StudyError.at(Place(path, 1, 1), f"expected keys such as name, task and base, got {kind}")
    replaced: dict[Path, Place] = {}
    for override in overrides:
        _apply(tree, override, Place(f"--set {override}"), replaced)
    if name is not None:
        tree["name"] = name
        replaced[("name",)] = Place(f"--as {name}")
    plain = _Plain(path, replaced)
    data = cast(dict[str, Plain], plain.of(tree, (), Place(path, 1, 1)))
    return Document(data, plain.places, _dump(tree) if replaced else text)


def to_yaml(study: Mapping[str, object]) -> str:
    """The keys of a study as the text of a file. Raises `StudyError` for a value that no file can hold."""
    try:
        return _dump(dict(study))
    except YAMLError as error:
        raise StudyError.at(Place("study"), f"{' '.join(str(error).split())}: give plain values") from error


def assignment(text: str) -> tuple[str, Plain]:
    """Path and value of a `PATH=VALUE` on the command line, whose value is YAML. Raises `StudyError`."""
    place = Place(text)
    target, equals, value = text.partition("=")
    if not equals or not target:
        raise StudyError.at(place, "expected PATH=VALUE, as in bias=dot")
    return target, _Plain(text, {}).of(_parse(value, place) if value.strip() else None, (), place)


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 120
    return yaml


def _parse(text: str, start: Place) -> object:
    """The text as ruamel's tree; `start` is the place of its first character."""
    try:
        return cast(object, _yaml().load(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(start.path, mark.line + 1, mark.column + 1) if mark and start.line else start
        raise StudyError.at(place, _syntax(error)) from error
    except (YAMLError, ValueError, RecursionError) as error:  # bad characters, `!!int x`, thousands of brackets
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error).strip().splitlines()[0]
        raise StudyError.at(start, f"not readable as YAML: {what}") from error


def _syntax(error: MarkedYAMLError) -> str:
    problem = str(error.problem)
    if duplicate := re.match(r'found duplicate key "(.*?)" with', problem):
        mapping = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
        return f"the key '{duplicate[1]}' is written twice in the mapping{mapping}: remove one"
    if "'\\t'" in problem:
        return "a tab cannot indent YAML: use spaces"
    if problem == "but found another document":
        return "a second document begins here: one file is one study"
    context = f"{error.context}: " if error.context else ""
    return f"not readable as YAML: {context}{problem}"


def _dump(tree: Mapping[str, object]) -> str:
    stream = io.StringIO()
    _yaml().dump(tree, stream)
    return stream.getvalue()


def _apply(tree: CommentedMap, override: str, place: Place, replaced: dict[Path, Place]) -> None:
    """Put an override's value at its path in the tree, making the mappings on the way there."""
    target, equals, text = override.partition("=")
    if not equals or not target:
        raise StudyError.at(place, "expected PATH=VALUE, as in train.steps=20")
    head, *rest = target.split(".")
    if head in ("vary", "tune") and rest:
        rest = [".".join(rest)]  # their keys are dotted paths themselves
    parts: list[str | int] = [head, *rest]
    value = _parse(text, place) if text.strip() else None
    node: CommentedMap | CommentedSeq = tree
    for depth, part in enumerate(parts):
        key = _key(node, part, place, parts[:depth])
        parts[depth] = key
        here = tuple(parts[: depth + 1])
        if depth == len(parts) - 1:
            node[key] = value
        else:
            child = node[key] if isinstance(node, CommentedSeq) or key in node else None
            if isinstance(child, str) and here in (("base",), ("task",)):  # a name alone: refine it
                child = CommentedMap({"preset" if key == "base" else "name": child})
            elif child is None:
                child, replaced[here] = CommentedMap(), place
            elif not isinstance(child, CommentedMap | CommentedSeq):
                raise StudyError.at(place, f"{dotted(here)} is {child!r}, which has no settings of its own")
            node[key] = child
            node = child
    for path in [path for path in replaced if path[: len(parts)] == tuple(parts)]:
        del replaced[path]
    replaced[tuple(parts)] = place


def _key(node: CommentedMap | CommentedSeq, part: str | int, place: Place, above: Sequence[str | int]) -> str | int:
    """The part as a key of a mapping or an index of a list."""
    if isinstance(node, CommentedMap):
        return part
    if str(part).isdecimal() and int(part) < len(node):
        return int(part)
    what = f"{dotted(tuple(above))} is a list of {len(node)}: '{part}' is not a position in it (the first is 0)"
    raise StudyError.at(place, what)


class _Plain:
    """Turns ruamel's tree into plain data and keeps the place of each value."""

    def __init__(self, path: str, replaced: dict[Path, Place]) -> None:
        self.path = path
        self.replaced = replaced
        self.places: dict[Path, Place] = {}

    def of(self, node: object, where: Path, place: Place) -> Plain:
        """The node as plain data; `place` is where it was written."""
        place = self.replaced.get(where, place)
        self.places[where] = place
        if len(self.places) > MAX_VALUES or len(where) > MAX_DEPTH:
            raise self._error(place, where[:3], "too many values or levels: does an alias (*) contain itself?")
        tag = getattr(getattr(node, "tag", None), "value", None)
        if tag is not None:
            raise self._error(place, where, f"the tag {tag} has no meaning in a study: remove it")
        if isinstance(node, CommentedMap):
            return self._mapping(node, where, place)
        if isinstance(node, CommentedSeq):
            places = (self._inner(node.lc.data, i, place) for i in range(len(node)))
            return [self.of(item, (*where, i), p) for i, (item, p) in enumerate(zip(node, places, strict=True))]
        if node is None or isinstance(node, bool):
            return node
        if isinstance(node, ScalarBoolean):  # a bool with an anchor
            return bool(node)
        if isinstance(node, int):
            return int(node)
        if isinstance(node, float):
            if not math.isfinite(node):
                raise self._error(place, where, "the number is not finite")
            return float(node)
        if isinstance(node, str):
            return str(node)
        raise self._error(place, where, f"{node!s} is read as a {type(node).__name__}: write it in quotes")

    def _mapping(self, node: CommentedMap, where: Path, place: Place) -> dict[str, Plain]:
        found: dict[str, Plain] = {}
        for key, value in node.items():
            here = self._inner(node.lc.data, key, place)
            if not isinstance(key, str):
                raise self._error(here, where, f"keys are words, got {key!r}: write it in quotes")
            found[str(key)] = self.of(value, (*where, str(key)), here)
        return found

    def _inner(self, lines: dict[object, list[int]] | None, key: object, outer: Place) -> Place:
        """The place of a key or item; its container's where there is none (overridden, or merged by <<)."""
        if not outer.line or not lines or key not in lines:
            return outer
        line, col = lines[key][:2]
        return Place(self.path, line + 1, col + 1)

    def _error(self, place: Place, where: Path, what: str) -> StudyError:
        return StudyError.at(place, what, dotted(where) if place.line else "")
