"""Where a setting is at home, for whoever wrote its name in another place: `delta` is set at `bias.delta`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from miras_search.models.config import ModelConfig
from miras_search.space.design import AXES
from miras_search.space.execution import Execution
from miras_search.space.fields import field_types, flow, nearest
from miras_search.space.gates import Gate
from miras_search.training.config import TrainConfig

SETTINGS: dict[str, type] = {"model": ModelConfig, "train": TrainConfig, "execution": Execution, "gate": Gate}
"""Blocks of settings, and the gate, of which a design has several."""


def homes(name: str) -> tuple[str, ...]:
    """The dotted paths at which a setting of this name is set, by an option or by a block."""
    axes = [axis for axis, there in AXES.items() if any(name in field_types(cls) for cls in there.options.values())]
    blocks = ["step" if block == "gate" else block for block, cls in SETTINGS.items() if name in field_types(cls)]
    return tuple(f"{place}.{name}" for place in (*axes, *blocks))


def meant(name: str, known: Iterable[str]) -> str:
    """What to say of an unknown path: where a setting of that name is set, else the nearest of those that are known."""
    places = homes(name)
    return f" (it is a setting: write {' or '.join(places)})" if places else nearest(name, known)


def meant_in_file(key: str, value: object, known: Iterable[str], blocks: Mapping[str, Iterable[str]]) -> str:
    """What to say of an unknown key of a study file: where such a setting is written, if it is one.

    `blocks` has the keys of the file's own blocks; those of settings are known here.
    """
    head, _, rest = key.partition(".")
    name = rest or head
    inside = {block: field_types(cls) for block, cls in SETTINGS.items()} | {
        block: [*keys] for block, keys in blocks.items()
    }
    if rest and head in known and head in inside:
        if rest not in inside[head]:
            return f": {head} has no setting {rest!r}{nearest(rest, inside[head])}"
        return f" (a setting: write {head}: {{{rest}: {flow(value)}}})"
    ways = []
    for place in (place for place in homes(name) if place == key or not rest):
        block, said = place.partition(".")[0], f"{{{name}: {flow(value)}}}"
        if block in AXES:
            options = sorted(option for option, cls in AXES[block].options.items() if name in field_types(cls))
            ways += [f"under base, as {block}: {{{option}: {said}}}, or vary {place}" for option in options[:1]]
        elif block == "step":
            ways.append(f"in a gate under base, as step: {said}, or vary {place}")
        elif block in known:
            ways.append(f"{block}: {said}")
    if ways:
        return f" (a setting: write {' or '.join(ways)})"
    if key in (*AXES, "step"):
        return f" (a choice of the design: write it under base, as {key}: ..., or vary it)"
    return nearest(key, known)
