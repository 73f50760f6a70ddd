"""The grammar of a space of designs: what a study writes under `space:`, as the variants of each part of a design.

    any                               every option of an axis, with every setting that is words or true or false; gates
                                      and numbers stay at their defaults, as no option states a range for them
    matrix, [matrix, mlp, ...]        an option as it is by default, or a list of alternatives
    {mlp: {expansion: [2, 4]}}        an option with settings; a list is a choice, for gates and options too
    {huber: any}                      one option with all its words
    {uniform: [a, b]}, {log_uniform: [a, b]}, {int: [a, b]}, {log_int: [a, b]}      a number in a range
    {source: [fixed, data], scope: any, value: {uniform: [0.5, 0.9]}}               a gate; a range alone is a fixed one

A variant is one way to decide all words of a part; ranges stay open in it. Combinations of words that an option refuses
are no variants, and of several spellings of one function the first stays.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast, get_args, get_origin

from miras_search.space.combinations import GRADIENTS, choices
from miras_search.space.execution import Execution, Gradient
from miras_search.space.fields import Path, Plain, Problem, SpecError, field_types, nearest
from miras_search.space.gates import Gate
from miras_search.space.option import Axis, Facts, split

ANY = "any"
KINDS: dict[str, tuple[bool, bool]] = {  # whole numbers, evenly in the logarithm
    "uniform": (False, False), "log_uniform": (False, True), "int": (True, False), "log_int": (True, True),
}  # fmt: skip
MOST = 50_000  # variants of one part: they are all built

Label = None | bool | int | float | str


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """A number that is drawn. In a variant's plain form it stands where the number will."""

    name: str
    low: float
    high: float
    whole: bool
    log: bool
    where: Path = dataclasses.field(compare=False)

    def holds(self, value: object) -> bool:
        """Whether it is a number of the range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.whole or value == int(value))

    @property
    def size(self) -> float:
        """How many numbers there are."""
        return self.high - self.low + 1 if self.whole else math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A value as it is."""

    value: Plain


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Settings by name."""

    fields: Mapping[str, Node]


@dataclasses.dataclass(frozen=True, slots=True)
class Alternative:
    """One entry of a list."""

    label: Label
    """What Optuna records for it."""
    node: Node
    where: Path
    listed: bool = True
    """By the user, who is told when it cannot be had; `any` leaves out what cannot."""
    key: str | None = None
    """The one key above its settings: an option's name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pick:
    """One of several."""

    alternatives: tuple[Alternative, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """A tree of which only some variants make anything: a gate's settings contradict each other easily."""

    node: Node
    variants: tuple[Variant, ...]


Node = Leaf | Range | Group | Pick | Tried
Decision = tuple[str, Label]


@dataclasses.dataclass(frozen=True, slots=True)
class Variant:
    """One way to decide a part: its decisions in order, and its plain form with ranges where numbers are drawn."""

    decisions: tuple[Decision, ...]
    plain: object
    ranges: tuple[Range, ...]

    def filled(self, numbers: Mapping[str, float]) -> object:
        """The plain form with numbers, by the names of their ranges."""
        return _filled(self.plain, numbers)


def _filled(plain: object, numbers: Mapping[str, float]) -> object:
    if isinstance(plain, Range):
        return numbers[plain.name]
    return {key: _filled(inner, numbers) for key, inner in plain.items()} if isinstance(plain, dict) else plain


def count(node: Node) -> int:
    """How many variants there are, those that an option refuses included."""
    if isinstance(node, Group):
        return math.prod(map(count, node.fields.values()))
    if isinstance(node, Tried):
        return len(node.variants)
    return sum(count(it.node) for it in node.alternatives) if isinstance(node, Pick) else 1


def variants(node: Node, path: str) -> Iterator[Variant]:
    """Every way to decide a tree whose decisions begin with `path`."""
    if isinstance(node, Leaf):
        yield Variant((), node.value, ())
    elif isinstance(node, Range):
        yield Variant((), node, (node,))
    elif isinstance(node, Tried):
        yield from node.variants
    elif isinstance(node, Group):
        for parts in itertools.product(*(list(variants(it, f"{path}.{key}")) for key, it in node.fields.items())):
            plain = dict(zip(node.fields, (part.plain for part in parts), strict=True))
            decisions = tuple(decision for part in parts for decision in part.decisions)
            yield Variant(decisions, plain, tuple(found for part in parts for found in part.ranges))
    else:
        for one in node.alternatives:
            own: tuple[Decision, ...] = ((path, one.label),) if len(node.alternatives) > 1 else ()
            for inner in variants(one.node, path if one.key is None else f"{path}.{one.key}"):
                keyed = inner.plain if one.key is None else {one.key: inner.plain}
                yield Variant((*own, *inner.decisions), keyed, inner.ranges)


def alternatives(node: Node, path: str) -> Iterator[tuple[str, Alternative]]:
    """Every entry of every list of a tree that is a decision, with the decision's path."""
    if isinstance(node, Tried):
        yield from alternatives(node.node, path)
    elif isinstance(node, Group):
        for key, inner in node.fields.items():
            yield from alternatives(inner, f"{path}.{key}")
    elif isinstance(node, Pick):
        for one in node.alternatives:
            if len(node.alternatives) > 1:
                yield path, one
            yield from alternatives(one.node, path if one.key is None else f"{path}.{one.key}")


def axis_node(axis: Axis[Facts], spec: object, path: str, where: Path) -> Node:
    """The tree of an axis: `any`, an option, or a list of options. Raises `SpecError`."""
    if spec == ANY:
        # by name: the order of registration is that of imports, and the same seed should draw the same points
        found = [(name, Group(_words(cls))) for name, cls in sorted(axis.options.items())]
        return Pick(tuple(Alternative(name, node, where, listed=False, key=name) for name, node in found))
    return _listed(spec, where, lambda item, at: _option(axis, item, path, at))


def gate_node(spec: object, path: str, where: Path, default: Gate) -> Node:
    """The tree of a gate whose settings refine a default. Raises `SpecError`."""
    node: Node
    if spec == ANY:
        node = Group(_words(Gate))
    elif isinstance(spec, list):
        node = _listed(spec, where, lambda item, at: _gate(item, path, at))
    else:
        node = _gate(spec, path, where).node
    found: dict[str, Variant] = {}
    for variant, *ends in tried(node, path, where, lambda plain: Gate.from_plain(plain, where, default)):
        same = [cast(Gate, end).to_plain() for end in ends]
        found.setdefault(json.dumps([same, [it.name for it in variant.ranges]]), variant)
    return Tried(node, tuple(found.values()))


def tried(node: Node, path: str, where: Path, make: Callable[[object], object]) -> list[tuple[Variant, object, object]]:
    """The variants that make something, with what they make: numbers lowest, and highest.

    Raises `SpecError` for a listed value that makes nothing.
    """
    if (number := count(node)) > MOST:
        what = f"{number} combinations of what is listed, more than {MOST}: list fewer, or use ranges for numbers"
        raise SpecError.at(where, what)
    found, refused = [], []
    for variant in variants(node, path):
        try:
            low = make(variant.filled({it.name: it.low for it in variant.ranges}))
            high = make(variant.filled({it.name: it.high for it in variant.ranges})) if variant.ranges else low
            found.append((variant, low, high))
        except SpecError as problem:
            refused.append((variant, problem))
    if not found:
        raise refused[0][1]
    ranges: dict[str, Range] = {}
    for it in (it for variant, _, _ in found for it in variant.ranges):
        if ranges.setdefault(it.name, it) != it:
            raise SpecError.at(it.where, f"a second range for {it.name}: give both the same ends, in one entry")
    made = {decision for variant, _, _ in found for decision in variant.decisions}
    lost = {(at, one.label): one.where for at, one in alternatives(node, path) if one.listed}
    lost = {decision: at for decision, at in lost.items() if decision not in made}
    for variant, error in refused:
        told = error.problems[0]
        what = f"{told.where[-1]}: {told.what}" if told.where else told.what
        for decision in variant.decisions:
            if decision in lost:
                raise SpecError.at(lost[decision], what)
        for it in variant.ranges:
            if it.name not in ranges:
                raise SpecError.at(it.where, what)
    return found


def execution_node(spec: object, path: str, where: Path) -> Node:
    """The tree of an execution. Raises `SpecError`."""
    if spec == ANY:
        return Group({"gradient": _gradient(ANY, f"{path}.gradient", where), **_words(Execution)})
    if not isinstance(spec, Mapping):
        raise SpecError.at(where, f"expected any or settings of execution, got {spec!r}")
    return Group(_settings(Execution, spec, path, where))


def value_node(hint: object, spec: object, path: str, where: Path, default: object = None) -> Node:
    """The tree of a setting of a type: a value, a list of values, a range, or `any` of a few words.

    Raises `SpecError`.
    """
    if hint is Gate:
        return gate_node(spec, path, where, cast(Gate, default))
    if hint is Gradient:
        return _gradient(spec, path, where)
    if spec == ANY:
        words = choices(hint)
        if words is None:
            raise SpecError.at(where, "any says nothing of a number: write a list, or a range as {uniform: [0, 1]}")
        return Pick(tuple(Alternative(word, Leaf(word), where, listed=False) for word in words))
    if isinstance(spec, Mapping):
        return _range(spec, path, where, hint)
    if isinstance(spec, list) and not (_is_tuple(hint) and not any(isinstance(item, list) for item in spec)):
        return _listed(spec, where, lambda item, at: _word(item, at))
    return Leaf(cast(Plain, spec))


def _is_tuple(hint: object) -> bool:
    """Whether a value of this type is itself written as a list."""
    return get_origin(hint) is tuple or any(get_origin(arg) is tuple for arg in get_args(hint))


def _listed(spec: object, where: Path, one: Callable[[object, Path], Alternative]) -> Pick:
    """The entries of a list, or of what is no list as the only one."""
    if not isinstance(spec, list):
        return Pick((one(spec, where),))
    if not spec:
        raise SpecError.at(where, "the list is empty: write at least one value, or any")
    found = [one(item, (*where, number)) for number, item in enumerate(spec)]
    names = [it.label for it in found]
    # a name alone tells an entry as long as it is the only one; else its settings do
    told = [_text(item) if names.count(it.label) > 1 else it.label for item, it in zip(spec, found, strict=True)]
    for number, label in enumerate(told):
        if label in told[:number]:
            raise SpecError.at((*where, number), f"{label} is listed twice: drop one")
    return Pick(tuple(dataclasses.replace(it, label=label) for it, label in zip(found, told, strict=True)))


def _text(item: object) -> str:
    return item if isinstance(item, str) else json.dumps(item, sort_keys=True)


def _word(item: object, where: Path) -> Alternative:
    if item is None or isinstance(item, bool | int | float | str):
        return Alternative(item, Leaf(item), where)
    if isinstance(item, list):
        return Alternative(json.dumps(item), Leaf(item), where)
    raise SpecError.at(where, f"expected a value, got {item!r}: a range stands alone, not in a list")


def _option(axis: Axis[Facts], item: object, path: str, where: Path) -> Alternative:
    name, settings = split(item, where)
    if name not in axis.options:
        cure = f" (`{ANY}` stands alone)" if name == ANY else nearest(name, axis.options)
        raise SpecError.at(where, f"unknown {axis.name} '{name}'{cure}")
    cls, inner = axis.options[name], (*where, name) if isinstance(item, Mapping) else where
    fields = _words(cls) if cast(object, settings) == ANY else _settings(cls, settings, f"{path}.{name}", inner)
    return Alternative(name, Group(fields), where, key=name)


def _words(cls: type) -> dict[str, Node]:
    """Every setting that is words or true or false, free."""
    return {
        name: Pick(tuple(Alternative(word, Leaf(word), (), listed=False) for word in words))
        for name, hint in field_types(cls).items()
        if (words := choices(hint))
    }


def _settings(cls: type, spec: object, path: str, where: Path) -> dict[str, Node]:
    if not isinstance(spec, Mapping):
        raise SpecError.at(where, f"expected any or a mapping of settings, got {spec!r}")
    hints, defaults = field_types(cls), {field.name: field.default for field in dataclasses.fields(cls)}
    problems: list[Problem] = []
    found: dict[str, Node] = {}
    for key, value in spec.items():
        try:
            if key not in hints:
                raise SpecError.at((*where, key), f"unknown setting{nearest(str(key), hints)}")
            found[key] = value_node(hints[key], value, f"{path}.{key}", (*where, key), defaults[key])
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return found


def _gate(item: object, path: str, where: Path) -> Alternative:
    if not isinstance(item, Mapping):
        return _word(item, where)
    if KINDS.keys() & item.keys():
        found = _range(item, path, where, float)
        return Alternative("fixed", found, where)
    node = Group(_settings(Gate, item, path, where))
    source = item.get("source")
    return Alternative(source if isinstance(source, str) and source != ANY else _text(item), node, where)


def _gradient(spec: object, path: str, where: Path) -> Node:
    if spec == ANY:
        return _listed([it.to_plain() for it in GRADIENTS], where, lambda item, at: _mode(item, path, (), listed=False))
    return _listed(spec, where, lambda item, at: _mode(item, path, at))


def _mode(item: object, path: str, where: Path, *, listed: bool = True) -> Alternative:
    if isinstance(item, Mapping) and list(item) == ["refined"]:
        sweeps = value_node(int, item["refined"], f"{path}.refined", (*where, "refined"))
        return Alternative("refined", sweeps, where, listed, key="refined")
    word = Gradient.from_plain(item, where).to_plain()
    return Alternative(cast(str, word), Leaf(word), where, listed)


def _range(spec: Mapping[object, object], path: str, where: Path, hint: object) -> Range:
    """A range from `{kind: [low, high]}`. Raises `SpecError`."""
    kind, ends = next(iter(spec.items()), ("", None))
    if len(spec) != 1 or kind not in KINDS:
        what = f"expected a value, a list, or a range as {{uniform: [0, 1]}}, got {dict(spec)}"
        raise SpecError.at(where, f"{what}{nearest(str(kind), KINDS)}")
    inner, (whole, log) = (*where, str(kind)), KINDS[str(kind)]
    numbers = [end for end in _pair(ends) if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise SpecError.at(inner, f"expected two finite numbers, the lower one first, got {ends!r}")
    low, high = numbers
    if low >= high:
        raise SpecError.at(inner, f"{low} is not below {high}: write the lower number first, a single value alone")
    if log and low <= 0:
        raise SpecError.at(inner, f"{low} has no logarithm: start above 0, or use {'int' if whole else 'uniform'}")
    if whole and not all(isinstance(end, int) for end in numbers):
        raise SpecError.at(inner, f"{ends!r} are not whole numbers: use {'log_uniform' if log else 'uniform'}")
    kinds = {hint, *get_args(hint)}
    if not kinds & {int, float, object}:
        raise SpecError.at(where, "this setting is no number that a range could hold: write a list, or any")
    if float not in kinds and object not in kinds and not whole:
        raise SpecError.at(inner, f"this setting is a whole number: use {'log_int' if log else 'int'}")
    return Range(path, low if whole else float(low), high if whole else float(high), whole, log, where)


def _pair(ends: object) -> Sequence[object]:
    return ends if isinstance(ends, list | tuple) else ()
