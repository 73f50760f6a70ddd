"""Published models as design points. One file a preset, registered by being there."""

from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, SpecError, nearest
from miras_search.space.presets.protocol import PRESETS, Preset, register
from miras_search.space.siblings import load_siblings

load_siblings(__name__, __path__)

__all__ = ["PRESETS", "Preset", "preset", "register"]


def preset(name: str, where: Path = ()) -> DesignPoint:
    """The design point of a published model. Raises `SpecError` naming the nearest preset."""
    if name not in PRESETS:
        raise SpecError.at(where, f"unknown preset '{name}'{nearest(name, PRESETS)}")
    return DesignPoint.parse(PRESETS[name].design, where)
