"""How many structural combinations there are, how many are valid, and which rules an option can run into.

A structural combination takes one option on each axis, with every setting that is a choice of words or true or false,
and where in a chunk gradients are taken; numbers, gates and controls stay at their defaults. There are too many to try
them all in the time that printing them may take, but rules look at few traits: variants of an axis that agree in all
traits which a rule reads are one case for it. What a rule reads is found by watching it read, until nothing new is
read; then every case was decided by traits on which all of its variants agree, so the counts are exact.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
import types
import typing
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from miras_search.space.design import AXES, CHOICES, DesignPoint, idle_link, simplest_execution, startless
from miras_search.space.execution import Execution, Gradient
from miras_search.space.fields import FieldError, field_types
from miras_search.space.gates import STEP, Gate
from miras_search.space.rules import RULES, Rule

DIMS = (8, 8)  # equal key and value dimensions, as a model has them unless told otherwise
OTHER_DIMS = ((8, 4), (8, 1))
FEW = 5  # wordings of one rule that an option lists before the rule's own stands for them
GRADIENTS = (Gradient(), Gradient(0), Gradient(2))  # exact, frozen, refined

Space = Mapping[str, Sequence[Any]]  # the variants of each part of a point, in the order of PARTS
Key = tuple[int, ...]  # a case of each part
PARTS = (*CHOICES, "execution", "step")


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """Numbers of structural combinations."""

    written: int
    """All that can be written down."""
    valid: int
    """Those that no rule refuses."""
    different: int
    """The valid ones, those that are the same function counted once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A function of a point, case by case: the case of each variant of each part, and the outcome of each key."""

    cases: Sequence[Sequence[int]]
    outcomes: Mapping[Key, Hashable]


def count() -> Count:
    """The structural combinations of the options that are registered now."""
    return _counted(_registered())


def _registered() -> tuple[type, ...]:
    """The options of the four axes that there are now; tells results for them apart from those for others."""
    return tuple(cls for axis in CHOICES for cls in AXES[axis].options.values())


@functools.lru_cache(maxsize=4)
def _counted(registered: tuple[type, ...]) -> Count:
    """`count`, once for the same options."""
    written = _structural()
    simplest = {part: list(dict.fromkeys(map(_canonical, found))) for part, found in written.items()}
    solved: dict[str, list[Any]] = {**simplest, "memory": list(dict.fromkeys(map(startless, simplest["memory"])))}
    spaces = (written, simplest, solved)  # as one, so that each table is made once
    whole = {part: [variant for space in spaces for variant in space[part]] for part in PARTS}
    tables = [tabulated(_kind, whole), *(tabulated(_problem(rule, DIMS), whole) for rule in RULES)]

    def kinds(number: int) -> Iterator[tuple[int, list[_Kind]]]:
        before, own = spaces[:number], spaces[number]
        first = {part: sum(len(space[part]) for space in before) for part in PARTS}
        return _passing(tables, [range(first[part], first[part] + len(own[part])) for part in PARTS])

    return Count(
        written=math.prod(map(len, written.values())),
        valid=sum(times * len(found) for times, found in kinds(0)),
        different=sum(
            times * len({kind for kind in found if kind.descends and kind.is_simplest}) for times, found in kinds(1)
        )
        + sum(times * len({kind for kind in found if not kind.descends}) for times, found in kinds(2)),
    )


class _Kind(NamedTuple):
    """What of a point's canonical form depends on several of its parts."""

    descends: bool
    is_simplest: bool  # else its gate's link is spelled more simply in another combination
    execution: Execution


def _structural() -> dict[str, list[Any]]:
    """Every variant of each part of a structural combination."""
    options = {axis: [v for cls in AXES[axis].options.values() for v in variants(cls)] for axis in CHOICES}
    return {**options, "execution": executions(), "step": [STEP]}


def _canonical(variant: Any) -> Any:
    return variant if isinstance(variant, Execution | Gate) else variant.canonical()


def variants(cls: type[Any]) -> list[Any]:
    """The option with every combination of its settings that have few values, but for those that it refuses."""
    levels = {name: found for name, hint in field_types(cls).items() if (found := choices(hint))}
    return [option for settings in _products(levels) if (option := _built(cls, settings))]


def executions() -> list[Execution]:
    """Where gradients are taken: every gradient mode with every choice of words."""
    levels = {name: found for name, hint in field_types(Execution).items() if (found := choices(hint))}
    return [Execution(gradient=gradient, **settings) for gradient in GRADIENTS for settings in _products(levels)]


def couplings() -> dict[tuple[str, str], tuple[str, ...]]:
    """For (axis, option) the reasons of the rules that can refuse it because of what it is combined with.

    A rule counts where it refuses some combination with the option and lets another option stand in its place. Gates
    are tried with every scope and tie, one gate at a time, the step's as well as those of the options.
    """
    return _couplings(_registered())


@functools.lru_cache(maxsize=4)
def _couplings(registered: tuple[type, ...]) -> dict[tuple[str, str], tuple[str, ...]]:
    """`couplings`, once for the same options."""
    plain = _structural()
    spaces = [(plain, dims) for dims in (DIMS, *OTHER_DIMS)]
    changed = {axis: found for axis in CHOICES if (found := _with_gates(axis))}
    spaces += [({**plain, axis: [*plain[axis], *found]}, DIMS) for axis, found in changed.items()]
    spaces.append(({**plain, "step": _gates(STEP)}, DIMS))
    reasons: dict[tuple[str, str], list[str]] = {}
    for rule in RULES:
        words: dict[tuple[str, str], set[str]] = {}
        for space, dims in spaces:
            for option, what in _refused(tabulated(_problem(rule, dims), space), space):
                words.setdefault(option, set()).add(what)
        for option, said in words.items():  # an option's own words say more than the rule, if they are few
            reasons.setdefault(option, []).extend(sorted(said) if len(said) <= FEW else [rule.reason])
    return {option: tuple(own) for option, own in reasons.items()}


def choices(hint: object) -> tuple[bool | int | str | None, ...] | None:
    """The values of a type that has few: a Literal's words, true and false, and none where it may be; else None."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return args
    if hint is bool:
        return (False, True)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [(None,) if arg is types.NoneType else choices(arg) for arg in args]
        known = [found for found in inner if found is not None]
        return tuple(value for found in known for value in found) if len(known) == len(inner) else None
    return None


def _refused(table: Table, space: Space) -> Iterator[tuple[tuple[str, str], str]]:
    """(axis, option) and the words in which it is refused where another option of the axis would do."""
    for number, axis in enumerate(CHOICES):
        members: dict[int, set[str]] = {}
        for option, case in zip(space[axis], table.cases[number], strict=True):
            members.setdefault(case, set()).add(option.name)
        for key, what in table.outcomes.items():
            there = (table.outcomes[*key[:number], case, *key[number + 1 :]] for case in members)
            if what is not None and None in there:
                yield from (((axis, name), str(what)) for name in members[key[number]])


def _passing(tables: Sequence[Table], indices: Sequence[range]) -> Iterator[tuple[int, list[_Kind]]]:
    """Groups of combinations of the four axes: how many they are, and their kinds in the executions that are valid.

    The first table gives the kind, the others what is wrong; `indices` are those of the variants to combine.
    """
    alike = [  # variants that are one case in every table
        Counter(tuple(table.cases[number][index] for table in tables) for index in own).items()
        for number, own in enumerate(indices)
    ]
    *axes, runs, steps = alike
    for group in itertools.product(*axes, steps):
        *chosen, step = (cases for cases, _ in group)
        valid: list[_Kind] = []
        for run, times in runs:
            keys = zip(*chosen, run, step, strict=True)
            kind, *problems = (table.outcomes[key] for table, key in zip(tables, keys, strict=True))
            if not any(problems):
                valid += [cast(_Kind, kind)] * times
        yield math.prod(number for _, number in group), valid


def _problem(rule: Rule, dims: tuple[int, int]) -> Callable[[DesignPoint], Hashable]:
    return lambda point: rule.problem(point, *dims)


def _kind(point: DesignPoint) -> _Kind:
    settled = simplest_execution(dataclasses.replace(point, execution=_bare(point.execution)))
    return _Kind(bool(point.descends), not idle_link(point), settled)


def tabulated(function: Callable[[DesignPoint], Hashable], space: Space) -> Table:
    """The function on every combination, evaluated once a case."""
    read: list[set[str]] = [set() for _ in PARTS]
    watched = [[_Watched(it, paths) for it in space[part]] for part, paths in zip(PARTS, read, strict=True)]
    known: dict[Key, Hashable] = {}  # by the variants themselves
    while True:
        before = sum(map(len, read))
        cases = [_cases(space[part], paths) for part, paths in zip(PARTS, read, strict=True)]
        firsts = [[own.index(case) for case in range(max(own) + 1)] for own in cases]
        for chosen in itertools.product(*firsts):
            if chosen not in known:
                options: Any = {part: watched[n][i] for n, (part, i) in enumerate(zip(PARTS, chosen, strict=True))}
                known[chosen] = function(DesignPoint(**options))
        if sum(map(len, read)) == before:
            numbers = itertools.product(*(range(len(own)) for own in firsts))
            chosen_ones = itertools.product(*firsts)
            return _merged(cases, {key: known[chosen] for key, chosen in zip(numbers, chosen_ones, strict=True)})


def _cases(found: Sequence[object], read: set[str]) -> list[int]:
    """For each variant the number of its case: variants are one case where they agree in all that was read."""
    seen: dict[Hashable, int] = {}
    paths = sorted(read)
    return [seen.setdefault(tuple(_trait(option, path) for path in paths), len(seen)) for option in found]


def _merged(cases: Sequence[list[int]], outcomes: Mapping[Key, Hashable]) -> Table:
    """The table with cases of equal outcomes made one."""
    merged: list[list[int]] = []
    for number, own in enumerate(cases):
        rows: dict[int, list[Hashable]] = {}
        for key, outcome in outcomes.items():
            rows.setdefault(key[number], []).append(outcome)
        alike: dict[Hashable, int] = {}
        new = {case: alike.setdefault(tuple(row), len(alike)) for case, row in rows.items()}
        merged.append([new[case] for case in own])
        outcomes = {(*key[:number], new[key[number]], *key[number + 1 :]): value for key, value in outcomes.items()}
    return Table(merged, outcomes)


def _products(levels: Mapping[str, Sequence[object]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*levels.values()):
        yield dict(zip(levels, values, strict=True))


def _built(cls: type[Any], settings: Mapping[str, object]) -> Any | None:
    try:
        return cls(**settings)
    except FieldError:  # settings that contradict each other
        return None


def _with_gates(axis: str) -> list[Any]:
    """The options of an axis with one gate changed."""
    found = []
    for cls in AXES[axis].options.values():
        gates = {field.name: field.default for field in dataclasses.fields(cls) if isinstance(field.default, Gate)}
        found += [_built(cls, {name: gate}) for name, default in gates.items() for gate in _gates(default)]
    return [option for option in found if option]


def _gates(base: Gate) -> list[Gate]:
    """The gate with every scope and tie; mamba's decay is the one that can be tied to the step."""
    hints = field_types(Gate)
    levels = {
        "scope": choices(hints["scope"]) or (),
        "tie": choices(hints["tie"]) or (),
        "squash": (base.squash, "mamba"),
    }
    plain = {name: getattr(base, name) for name in hints}
    return [gate for settings in _products(levels) if (gate := _built(Gate, {**plain, **settings}))]


class _Watched:
    """An option, or a gate of one, that takes down which of its attributes are read, by its own methods too."""

    __slots__ = ("_at", "_found", "_it", "_read")

    def __init__(self, it: object, read: set[str], at: str = "") -> None:
        self._it, self._read, self._at = it, read, at
        self._found: dict[str, object] = {}

    def __getattr__(self, name: str) -> object:
        if name not in self._found:
            self._found[name] = self._look(name)
        return self._found[name]

    def _look(self, name: str) -> object:
        path = f"{self._at}.{name}" if self._at else name
        static = inspect.getattr_static(self._it, name, None)
        if isinstance(static, types.FunctionType):
            self._read.add(path)
            # the canonical form is a value like others; a method that looks at traits is watched while it does
            return getattr(self._it, name) if name == "canonical" else types.MethodType(static, self)
        try:
            value: object = getattr(self._it, name)
        except AttributeError:  # that it has none is a trait as well
            self._read.add(path)
            raise
        if isinstance(value, Gate):
            return _Watched(value, self._read, path)
        self._read.add(path)
        return value

    def __eq__(self, other: object) -> bool:
        return bool(_bare(self) == (_bare(other) if type(other) is _Watched else other))

    def __hash__(self) -> int:
        return hash(_bare(self))

    @property  # type: ignore[misc]  # of `object` it is none
    def __class__(self) -> type:  # what isinstance() asks
        return type(_bare(self))


def _bare(watched: Any) -> Any:
    """What is watched, unwatched: from here on everything about it counts as read."""
    watched._read.add(watched._at)
    return watched._it


def _trait(option: object, path: str) -> Hashable:
    """What distinguishes the option at this path: the value, or the function for a method; itself at the empty one."""
    if path == "canonical":
        return cast(Hashable, _canonical(option))
    value = option
    for name in path.split(".") if path else ():
        method = _method(cast(Hashable, type(value)), name)
        value = getattr(value, name, None) if method is None else method
    return value if isinstance(value, Hashable) else id(value)


@functools.cache
def _method(kind: Hashable, name: str) -> types.FunctionType | None:
    """The function of a class by that name; None where it is something else."""
    found = inspect.getattr_static(kind, name, None)
    return found if isinstance(found, types.FunctionType) else None
