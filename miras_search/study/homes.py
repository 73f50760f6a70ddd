"""Where a setting is at home, for whoever wrote its name in another place: `delta` is set at `bias.delta`."""

from __future__ import annotations

from collections.abc import Iterable

from miras_search.models.config import ModelConfig
from miras_search.space.design import AXES
from miras_search.space.execution import Execution
from miras_search.space.fields import field_types, nearest
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
    """What to say of an unknown word: where a setting of that name is set, else the nearest of those that are known."""
    places = homes(name)
    return f" (it is a setting: write {' or '.join(places)})" if places else nearest(name, known)
