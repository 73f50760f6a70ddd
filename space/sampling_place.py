"""The variants of a space's parts as options, and the variant that a given option is of."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from miras_search.space.design import AXES, DesignPoint
from miras_search.space.execution import Execution
from miras_search.space.fields import Path, Plain, build, to_plain
from miras_search.space.gates import Gate
from miras_search.space.option import spell
from miras_search.space.sampling_grammar import Node, Range, Variant, tried

ORDER = ("memory", "algorithm", "bias", "retention", "step", "execution")  # few algorithms fit, so they come early


@dataclasses.dataclass(frozen=True, slots=True)
class Built:
    """A variant, by number, with what it makes: numbers lowest, and highest."""

    number: int
    variant: Variant
    low: Any
    high: Any

    @property
    def size(self) -> float:
        """How many values it stands for; infinite with a range that is not of whole numbers."""
        return math.prod(found.size for found in self.variant.ranges)

    def made(self, part: str, base: DesignPoint, numbers: Mapping[str, float]) -> object:
        """The option with numbers, by the names of their ranges. Raises `SpecError` where it refuses them."""
        return _make(part, self.variant.filled(numbers), base, ()) if self.variant.ranges else self.low


def _make(part: str, plain: object, base: DesignPoint, where: Path) -> object:
    """A part of a design from its plain form. Raises `SpecError`."""
    if part in AXES:
        return AXES[part].parse(plain, where)
    if part == "step":
        return Gate.from_plain(plain, where, base.step)
    return Execution.from_plain({**base.execution.to_plain(), **cast(Mapping[str, object], plain)}, where)


def _spelled(option: Any) -> dict[str, Plain]:
    """The plain form of a part."""
    return option.to_plain() if isinstance(option, Gate | Execution) else spell(option)


def _simplest(option: Any) -> Any:
    return option if isinstance(option, Gate | Execution) else option.canonical()


def _text(plain: object) -> str:
    return json.dumps(plain, sort_keys=True)


def built(part: str, node: Node | None, base: DesignPoint, where: Path) -> list[Built]:
    """The variants of a part, of those that are one function the first. Raises `SpecError`."""
    if node is None:
        own = getattr(base, part)
        return [Built(0, Variant((), None, ()), own, own)]
    found = tried(node, part, where, lambda plain: _make(part, plain, base, where))
    different: dict[str, tuple[Variant, object, object]] = {}
    for variant, low, high in found:
        ends = [_spelled(_simplest(low)), _spelled(_simplest(high))] if variant.ranges else [_spelled(_simplest(low))]
        different.setdefault(_text([*ends, [it.name for it in variant.ranges]]), (variant, low, high))
    return [Built(number, *it) for number, it in enumerate(different.values())]


def built_setting(path: str, node: Node, configs: Mapping[str, object], where: Path) -> list[Built]:
    """The variants of a setting outside the design. Raises `SpecError`."""
    head, _, rest = path.partition(".")
    config = configs[head]
    found = tried(node, path, where, lambda plain: build(type(config), {**to_plain(config), rest: plain}, where[:-1]))
    return [Built(number, variant, None, None) for number, (variant, _, _) in enumerate(found)]


class Places:
    """The variants of a part by what they make."""

    def __init__(self, part: str, own: Sequence[Built], base: DesignPoint) -> None:
        self._part, self._base = part, base
        self._known: dict[str, list[Built]] = {}
        self._masks: dict[tuple[tuple[str, tuple[str, ...]], ...], None] = {}  # where ranges are: their names and paths
        for it in own:
            spelled = _spelled(it.low)
            mask = tuple(_positions(it.variant.plain, spelled, ()))
            self._masks.setdefault(mask)
            for plain in (spelled, _spelled(_simplest(it.low))):
                self._known.setdefault(_text([_masked(plain, mask), mask]), []).append(it)

    def find(self, design: DesignPoint) -> tuple[Built, dict[str, float]] | None:
        """The variant of the design's part, and its numbers; the part as it is written, else as it is simplest."""
        option = getattr(design, self._part)
        for wanted in (option, _simplest(option)):
            plain = _spelled(wanted)
            for mask in self._masks:
                for it in self._known.get(_text([_masked(plain, mask), mask]), ()):
                    numbers = {name: _at(plain, path) for name, path in mask}
                    if all(found.holds(numbers[found.name]) for found in it.variant.ranges):
                        drawn = cast(dict[str, float], numbers)
                        made = it.made(self._part, self._base, drawn)
                        if _text(plain) in (_text(_spelled(made)), _text(_spelled(_simplest(made)))):
                            return it, drawn
        if self._part == "execution":  # one that the rest of the design does not tell apart
            for it in {id(it): it for own in self._known.values() for it in own}.values():
                if not it.variant.ranges and dataclasses.replace(design, execution=it.low).hash == design.hash:
                    return it, {}
        return None


def _positions(plain: object, spelled: object, path: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Where in the full plain form the ranges of a variant stand: their names and paths."""
    if isinstance(plain, Range):
        return [(plain.name, (*path, "value") if isinstance(spelled, dict) else path)]
    if not isinstance(plain, dict) or not isinstance(spelled, dict):
        return []
    return [it for key, inner in plain.items() for it in _positions(inner, spelled.get(key), (*path, key))]


def _at(plain: object, path: tuple[str, ...]) -> object:
    for key in path:
        plain = plain.get(key) if isinstance(plain, dict) else None
    return plain


def _masked(plain: dict[str, Plain], mask: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, Plain]:
    """The plain form with nothing where the ranges are."""
    found: dict[str, Plain] = json.loads(_text(plain)) if mask else plain
    for _, path in mask:
        node = _at(found, path[:-1])
        if isinstance(node, dict) and path[-1] in node:
            node[path[-1]] = None
    return found
