"""A level of `preset`: a whole design, by a published model's name or as a mapping with settings of its own.

    vary:
      preset:
        - gla
        - {preset: gla, bias: l1, train: {lr: 3e-3}, name: gla with l1}
        - {mixer: {module: my_layers.MyLayer, args: {width: 4}}, model: {layers: 3}}

So that each published model can run at the rate, or in the shape, that a pilot found for it. What a mapping says of
model and training is more particular than what the study says, and wins; an execution that the study holds is for every
cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import cast

from miras_search.space.design import KEYS
from miras_search.space.fields import Path, SpecError, flow, nearest
from miras_search.space.own_mixer import OwnMixer
from miras_search.space.presets import PRESETS, preset

AROUND = ("model", "train")
NAME = "name"
PRESET = "preset"


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """A level of `preset`, taken apart."""

    text: str
    """What it is, in few words, with all it sets: `gla(bias=l1, train.lr=0.003)`."""
    head: str
    """What it is built on: a preset's name, or a layer of the user's own."""
    name: str
    """What its cell is called."""
    preset: str | None
    design: object
    """What `DesignPoint.parse` reads."""
    settings: Mapping[str, object]
    """Path -> level, of all that it sets beside its head: `bias`, `train.lr`."""
    model: Mapping[str, object]
    train: Mapping[str, object]


def read(level: object, where: Path) -> Whole:
    """A level taken apart; what its parts hold is checked by who builds them. Raises `SpecError`."""
    if isinstance(level, str):
        preset(level, where)  # known, or told here
        return Whole(level, level, level, level, level, {}, {}, {})
    if not isinstance(level, Mapping):
        raise SpecError.at(where, f"expected a preset's name, or a mapping with `preset` or `mixer`, got {level!r}")
    for key in level:
        if key not in (PRESET, NAME, *AROUND, *KEYS):
            raise SpecError.at((*where, str(key)), f"unknown key{nearest(str(key), [PRESET, NAME, *AROUND, *KEYS])}")
    for key in AROUND:
        if not isinstance(level.get(key, {}), Mapping):
            raise SpecError.at((*where, key), f"expected a mapping of settings, got {level[key]!r}")
    known, name = level.get(PRESET), level.get(NAME)
    if known is not None and (not isinstance(known, str) or known not in PRESETS):
        raise SpecError.at((*where, PRESET), f"unknown preset '{known}'{nearest(str(known), PRESETS)}")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise SpecError.at((*where, NAME), f"expected a cell's name, got {name!r}")
    if PRESET in level and "mixer" in level:
        raise SpecError.at((*where, "mixer"), "a layer of your own takes the place of the preset: drop one of the two")
    if "mixer" in level:
        head = str(OwnMixer.from_plain(level["mixer"], (*where, "mixer")))
    elif known is None and name is None:
        raise SpecError.at(where, "a design that is built on no preset has no name: add `name: ...`, or `preset: ...`")
    else:
        head = str(known or name)
    settings = dict(_settings(level))
    inner = ", ".join(f"{path}={flow(value)}" for path, value in settings.items())
    before = f"{head[:-1]}, " if head.endswith(")") else f"{head}("  # a layer may have arguments
    text = f"{before}{inner})" if inner else head
    return Whole(
        text=text,
        head=head,
        name=str(name or text),
        preset=known,
        design={key: value for key, value in level.items() if key in (PRESET, *KEYS)},
        settings=settings,
        model=cast(Mapping[str, object], level.get("model", {})),
        train=cast(Mapping[str, object], level.get("train", {})),
    )


def _settings(level: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in level.items():
        if key in AROUND:
            yield from ((f"{key}.{inner}", one) for inner, one in cast(Mapping[str, object], value).items())
        elif key not in (PRESET, NAME, "mixer"):
            yield key, value
