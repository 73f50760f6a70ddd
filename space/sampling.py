"""Drawing valid designs from a space of them, and finding a design's place in it.

`suggest` asks an Optuna trial, or anything with its three methods, one decision after the other; after each only what
leads to a valid design is offered, so no draw is wasted and every recorded parameter is in force. Optuna wants one list
of choices a name: where fewer than usual fit, the name says which (`bias{l2,lp}`), and where only one fits nothing is
asked. `memory`, `memory.mlp.expansion` are decisions, `bias.huber.delta.value`, `train.lr` numbers.

Parameters and designs correspond one to one, as they are written. Two designs may still be one function where only the
combination shows it (a chunk that no option looks at): compare `DesignPoint.hash`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, final

from miras_search.space.combinations import DIMS
from miras_search.space.design import AXES, CHOICES, DesignPoint
from miras_search.space.fields import Path, Plain, Problem, SpecError, field_types, nearest
from miras_search.space.option import short
from miras_search.space.rules import check, violations
from miras_search.space.sampling_grammar import (
    ANY,
    Label,
    Node,
    Range,
    alternatives,
    axis_node,
    execution_node,
    gate_node,
    value_node,
)
from miras_search.space.sampling_place import ORDER, Built, Places, built, built_setting
from miras_search.space.sampling_rules import Fitting, State

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NOT_WHOLE = "the design is not in this space, where a combination counts if all of its ranges are valid"
Choose = Callable[[str, tuple[Label, ...]], Label]  # a path and what fits there
Draw = Callable[[Range], float]


class Trial(Protocol):
    """What is asked of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Label]) -> Label:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A point of a space."""

    design: DesignPoint
    settings: Mapping[str, Plain]
    """Of the model and the training, by dotted path: `train.lr`."""
    levels: Mapping[str, Label]
    """What was decided and drawn, by path: `bias`, however many of its options fitted."""


@final
class Space:
    """A set of valid designs, with settings around them. `parse` makes one."""

    def __init__(
        self,
        base: DesignPoint,
        parts: Sequence[Sequence[Built]],
        settings: Mapping[str, Sequence[Built]],
        dims: Sequence[tuple[int, int]],
    ) -> None:
        self._base, self._parts, self._settings, self._dims = base, parts, settings, dims
        self._fitting = Fitting(parts, dims)
        self._able = [
            [[own[i] for i in able] for able in found]
            for own, found in zip(parts, self._fitting.contexts(), strict=True)
        ]  # by part, the sets of variants that something earlier leaves
        self._rank: dict[str, dict[Label, int]] = {}  # by path, every label's place
        for own in (*parts, *settings.values()):
            for path, label in (decision for it in own for decision in it.variant.decisions):
                self._rank.setdefault(path, {}).setdefault(label, len(self._rank.get(path, ())))
        self._met: dict[str, dict[tuple[Label, ...], None]] = {}  # by path, the choices that there may be
        for own in self._reached():
            self._meet(own, 0)
        self._ranged = {it.name for own in parts for one in own for it in one.variant.ranges}
        self._places = [Places(name, own, base) for name, own in zip(ORDER, parts, strict=True)]

    @classmethod
    def parse(
        cls,
        spec: object,
        where: Path = (),
        *,
        base: DesignPoint | None = None,
        configs: Mapping[str, object] | None = None,
        dims: Sequence[tuple[int, int]] = (DIMS,),
    ) -> Space:
        """A space from plain data: see `sampling_grammar`. `any` alone is every axis.

        What it does not name stays as in `base`. `configs` are the dataclasses that dotted paths lead into, by their
        first word (`model`, `train`); values are tried beside what is set there, one path at a time. `dims` are the key
        and value dimensions with which all points have to be valid.
        Raises `SpecError` with every problem, among them a listed value that no valid point has.
        """
        base, configs = base or DesignPoint(), configs or {}
        if base.mixer is not None:
            raise SpecError.at(where, f"{base.mixer.name} has no options to choose among: take another base")
        if base.control != DesignPoint().control:
            raise SpecError.at(where, f"{base.control.name} refutes a claim and is no candidate: take it off the base")
        spec = dict.fromkeys(CHOICES, ANY) if spec == ANY else spec
        if not isinstance(spec, Mapping):
            raise SpecError.at(where, f"expected {ANY}, or a mapping of axes to what they may be, got {spec!r}")
        nodes: dict[str, Node] = {}
        parts: dict[str, list[Built]] = {}
        problems: list[Problem] = []
        for key in dict.fromkeys((*ORDER, *map(str, spec))):
            try:
                if key in spec:
                    nodes[key] = _node(key, spec[key], (*where, key), base, configs)
                if key in ORDER:
                    parts[key] = built(key, nodes.get(key), base, (*where, key))
                else:
                    parts[key] = built_setting(key, nodes[key], configs, (*where, key))
            except SpecError as error:
                problems += error.problems
        if problems:
            raise SpecError(problems)
        settings = {key: own for key, own in parts.items() if key not in ORDER}
        space = cls(base, [parts[name] for name in ORDER], settings, dims)
        space._require(where, nodes)
        return space

    def suggest(self, trial: Trial) -> Sample:
        """A point, as a trial answers. Raises `SpecError` where a range reaches out of what is valid."""

        def draw(found: Range) -> float:
            if found.whole:
                return trial.suggest_int(found.name, int(found.low), int(found.high), log=found.log)
            return trial.suggest_float(found.name, found.low, found.high, log=found.log)

        return self._sample(lambda path, labels: trial.suggest_categorical(self._name(path, labels), labels), draw)

    def from_params(self, params: Mapping[str, Label]) -> Sample:
        """The point of a trial with these parameters. Raises `SpecError` where they lead to none."""

        def known(name: str) -> Label:
            if name not in params:
                raise SpecError.at((name,), f"the parameter is missing{nearest(name, params)}")
            return params[name]

        def choose(path: str, labels: tuple[Label, ...]) -> Label:
            found = known(self._name(path, labels))
            if found not in labels:
                raise SpecError.at((path,), f"{found!r} is not one of {', '.join(map(str, labels))}")
            return found

        def draw(found: Range) -> float:
            value = known(found.name)
            if not found.holds(value):
                raise SpecError.at((found.name,), f"{value!r} is no number between {found.low:g} and {found.high:g}")
            return cast(float, value)

        return self._sample(choose, draw)

    def to_params(self, design: DesignPoint, settings: Mapping[str, Plain] | None = None) -> dict[str, Label]:
        """The parameters of a design, to enqueue it; settings that are not given are left to the sampler.

        Raises `SpecError` where the design, or another spelling of its function, or a setting is not in the space.
        """
        aims, numbers = self._aims(design)
        params: dict[str, Label] = {}
        given = {} if settings is None else {key: own for key, own in self._settings.items() if key in settings}
        for key, own in given.items():
            found = next((it for it in own if _holds(it, cast(Mapping[str, Plain], settings)[key])), None)
            if found is None:
                raise SpecError.at((key,), f"{cast(Mapping[str, Plain], settings)[key]!r} is not in this space")
            aims |= dict(found.variant.decisions)
            numbers |= {it.name: cast(float, cast(Mapping[str, Plain], settings)[key]) for it in found.variant.ranges}

        def choose(path: str, labels: tuple[Label, ...]) -> Label:
            if path not in aims or aims[path] not in labels:
                raise SpecError.at((path,), NOT_WHOLE)
            params[self._name(path, labels)] = aims[path]
            return aims[path]

        chosen = self._chosen(choose)
        drawn = [
            it for one in (*chosen, *(self._walked(own, choose) for own in given.values())) for it in one.variant.ranges
        ]
        params |= {it.name: numbers[it.name] for it in drawn if it.name in numbers}
        known = all(it.name in numbers for it in drawn)
        if not known or self._with(dict(zip(ORDER, chosen, strict=True)), numbers).hash != design.hash:
            raise SpecError.at((), NOT_WHOLE)
        return params

    def contains(self, design: DesignPoint) -> bool:
        """Whether the design, or another spelling of its function, is in the space."""
        try:
            self.to_params(design)
        except SpecError:
            return False
        return True

    def size(self) -> float:
        """How many points there are, settings included; infinite with a range that is not of whole numbers."""
        sizes = (sum(it.size for it in own) for own in self._settings.values())
        return self._fitting.left(0, self._fitting.start) * math.prod(sizes)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter that `suggest` may ask for, as Optuna has it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {}
        for path, choices in self._met.items():
            found |= {self._name(path, labels): CategoricalDistribution(labels) for labels in choices}
        for it in dict.fromkeys(it for own in self._reached() for one in own for it in one.variant.ranges):
            if it.whole:
                found[it.name] = IntDistribution(int(it.low), int(it.high), log=it.log)
            else:
                found[it.name] = FloatDistribution(it.low, it.high, log=it.log)
        return found

    def _reached(self) -> list[Sequence[Built]]:
        """The sets of variants that decisions may be among."""
        return [own for own in (*(able for found in self._able for able in found), *self._settings.values()) if own]

    def _meet(self, left: Sequence[Built], depth: int) -> None:
        """Take down the choices at all decisions from here on."""
        groups = _by_label(left, depth)
        if len(groups) > 1:
            path = left[0].variant.decisions[depth][0]
            self._met.setdefault(path, {}).setdefault(self._sorted(path, groups))
        for group in groups.values():
            self._meet(group, depth + 1)

    def _sorted(self, path: str, labels: Iterable[Label]) -> tuple[Label, ...]:
        return tuple(sorted(labels, key=self._rank[path].__getitem__))

    def _name(self, path: str, labels: tuple[Label, ...]) -> str:
        """What Optuna knows a decision by: its path where there are most choices, else with those that there are."""
        usual = max(self._met[path], key=len)
        return path if labels == usual else f"{path}{{{','.join(map(str, labels))}}}"

    def _walked(self, own: Sequence[Built], choose: Choose) -> Built:
        """One of the variants, decision by decision; what only one label is left for is not asked."""
        left, depth = own, 0
        while groups := _by_label(left, depth):
            path = left[0].variant.decisions[depth][0]
            labels = self._sorted(path, groups)
            left = groups[choose(path, labels) if len(labels) > 1 else labels[0]]
            depth += 1
        return left[0]

    def _chosen(self, choose: Choose) -> list[Built]:
        """A variant of every part, such that all go together."""
        chosen: list[Built] = []
        state = self._fitting.start
        for part, own in enumerate(self._parts):
            chosen.append(self._walked([own[i] for i in self._fitting.able(part, state)], choose))
            state = cast(State, self._fitting.after(part, state, chosen[-1].number))
        return chosen

    def _sample(self, choose: Choose, draw: Draw) -> Sample:
        levels: dict[str, Label] = {}

        def drawn(it: Built) -> dict[str, float]:
            numbers = {found.name: draw(found) for found in it.variant.ranges}
            levels.update({**dict(it.variant.decisions), **numbers})
            return numbers

        parts: dict[str, Any] = {}
        for name, it in zip(ORDER, self._chosen(choose), strict=True):
            parts[name] = it.made(name, self._base, drawn(it))
        design = dataclasses.replace(self._base, **parts)
        for dims in self._dims if any(it in levels for it in self._ranged) else ():
            check(design, *dims)
        settings: dict[str, Plain] = {}
        for key, own in self._settings.items():
            it = self._walked(own, choose)
            settings[key] = cast(Plain, it.variant.filled(drawn(it)))
        return Sample(design, settings, levels)

    def _aims(self, design: DesignPoint) -> tuple[dict[str, Label], dict[str, float]]:
        """The decisions and numbers that make a design. Raises `SpecError` where none do."""
        missing = ""
        for spelled in (design, design.canonical()):
            found = [place.find(spelled) for place in self._places]
            missing = missing or next((name for name, it in zip(ORDER, found, strict=True) if it is None), "")
            chosen = {name: it for name, it in zip(ORDER, found, strict=True) if it is not None}
            numbers = {name: number for _, own in chosen.values() for name, number in own.items()}
            own = {name: it for name, (it, _) in chosen.items()}
            if len(own) == len(ORDER) and self._with(own, numbers).hash == design.hash:
                return {path: label for it in own.values() for path, label in it.variant.decisions}, numbers
        part = missing or "control"
        option = getattr(design, part)
        raise SpecError.at((part,), f"{short(option) if part in AXES else option} is not in this space")

    def _with(self, parts: Mapping[str, Built], numbers: Mapping[str, float]) -> DesignPoint:
        """The base with these variants in place of its parts."""
        made: dict[str, Any] = {name: it.made(name, self._base, numbers) for name, it in parts.items()}
        return dataclasses.replace(self._base, **made)

    def _require(self, where: Path, nodes: Mapping[str, Node]) -> None:
        """Raise where there is no valid point, or none with a value that was listed."""
        if not self._fitting.left(0, self._fitting.start):
            what = _reason(self._base, [own[0] for own in self._parts], self._dims)
            raise SpecError.at(where, f"no combination of these options is valid{what}")
        problems = []
        for part, (name, own) in enumerate(zip(ORDER, self._parts, strict=True)):
            reached = {decision for able in self._able[part] for it in able for decision in it.variant.decisions}
            built_ = {decision: it for it in reversed(own) for decision in it.variant.decisions}
            for path, one in alternatives(nodes[name], name) if name in nodes else ():
                decision = path, one.label
                if one.listed and decision in built_ and decision not in reached:
                    others = [other[0] for other in self._parts]
                    others[part] = built_[decision]
                    what = _reason(self._base, others, self._dims)
                    problems.append(Problem(one.where, f"{one.label} is in no valid combination of this space{what}"))
        if problems:
            raise SpecError(problems)


def _by_label(left: Sequence[Built], depth: int) -> dict[Label, list[Built]]:
    """The variants by their label at the decision of that number; none where all is decided."""
    groups: dict[Label, list[Built]] = {}
    for it in left:
        if depth < len(it.variant.decisions):
            groups.setdefault(it.variant.decisions[depth][1], []).append(it)
    return groups


def _reason(base: DesignPoint, parts: Sequence[Built], dims: Sequence[tuple[int, int]]) -> str:
    """What is wrong with one combination, as the end of a sentence."""
    options: dict[str, Any] = {name: it.low for name, it in zip(ORDER, parts, strict=True)}
    point = dataclasses.replace(base, **options)
    found = [problem for widths in dims for problem in violations(point, *widths)]
    return f", for example: {found[0]}" if found else ""


def _holds(it: Built, value: Plain) -> bool:
    """Whether a setting's variant stands for a value."""
    return it.variant.ranges[0].holds(value) if it.variant.ranges else bool(it.variant.plain == value)


def _node(key: str, spec: object, where: Path, base: DesignPoint, configs: Mapping[str, object]) -> Node:
    """The tree of one key of a space."""
    head, _, rest = key.partition(".")
    if key in CHOICES:
        return axis_node(AXES[key], spec, key, where)
    if key == "step":
        return gate_node(spec, key, where, base.step)
    if key == "execution":
        return execution_node(spec, key, where)
    if head in configs:
        hints = field_types(type(configs[head]))
        if rest not in hints:
            raise SpecError.at(where, f"{head} has no setting '{rest}'{nearest(rest, hints)}")
        return value_node(hints[rest], spec, key, where)
    if head in ORDER:
        raise SpecError.at(where, f"write the settings inside: {head}: {{{rest or '...'}: ...}}")
    if key == "control":
        raise SpecError.at(where, "a control refutes a claim and is no candidate: leave it out")
    raise SpecError.at(where, f"unknown axis '{key}'{nearest(key, [*ORDER, *configs])}")
