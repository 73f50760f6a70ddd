"""The neighbours of a design: all designs that differ from it by one option of one axis, as levels of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.errors import MirasError
from miras_search.models import fit
from miras_search.models.config import ModelConfig
from miras_search.space.design import AXES, CHOICES, DesignPoint
from miras_search.space.fields import SpecError, nearest


@dataclass(frozen=True, slots=True)
class Neighbours:
    """By axis the options that fit, at their defaults; and those that do not, with the first reason."""

    levels: Mapping[str, Sequence[str]]
    refused: Mapping[tuple[str, str], str]


def neighbours(point: DesignPoint, model: ModelConfig, axes: Sequence[str]) -> Neighbours:
    """The neighbours along some of the four axes. Options that are one function are listed once.

    Raises MirasError for an axis that there is not, and for a layer of the user's own, which has none.
    """
    if point.mixer is not None:
        raise MirasError(f"neighbours: {point.mixer} is a layer of its own and has no axes")
    for axis in axes:
        if axis not in CHOICES:
            raise MirasError(f"neighbours: unknown axis {axis!r}{nearest(axis, CHOICES)}: one of {', '.join(CHOICES)}")
    found: dict[str, list[str]] = {axis: [] for axis in axes}
    refused: dict[tuple[str, str], str] = {}
    seen = {point.hash}
    for axis in found:
        for name in AXES[axis].options:
            if name == getattr(point, axis).name:
                continue
            try:
                changed = point.changed(axis, name)
            except SpecError as error:
                refused[axis, name] = str(error.problems[0])
                continue
            broken = fit.violations(changed, model)
            if broken:
                refused[axis, name] = broken[0].what
            elif changed.hash not in seen:
                seen.add(changed.hash)
                found[axis].append(name)
    return Neighbours({axis: names for axis, names in found.items() if names}, refused)
