"""Colours, Okabe and Ito's, in two shades each: one that is read on white, one on a dark ground.

What a colour means is the same on every page. No meaning rests on colour alone: markers and words say it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from miras_search.store.types import JobState


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one theme, as hexadecimal text."""

    better: str
    worse: str
    open: str  # not decided, or not testable
    text: str
    faint: str  # rules, grids, zero lines
    states: Mapping[JobState, str]
    series: tuple[str, ...]  # told apart in one figure, in this order


LIGHT = Palette(
    better="#0072B2",
    worse="#D55E00",
    open="#6E6E6E",
    text="#262730",
    faint="#C9CCD3",
    states=MappingProxyType(
        {
            "complete": "#009E73",
            "pruned": "#CC79A7",
            "running": "#0072B2",
            "waiting": "#C9CCD3",
            "diverged": "#E69F00",
            "failed": "#D55E00",
        }
    ),
    series=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F"),
)

DARK = Palette(
    better="#56B4E9",
    worse="#E69F00",
    open="#A6A6A6",
    text="#FAFAFA",
    faint="#4A4D57",
    states=MappingProxyType(
        {
            "complete": "#2DB88D",
            "pruned": "#CC79A7",
            "running": "#56B4E9",
            "waiting": "#4A4D57",
            "diverged": "#F0C84A",
            "failed": "#E8743B",
        }
    ),
    series=("#56B4E9", "#E69F00", "#2DB88D", "#CC79A7", "#F0E442", "#E8743B", "#9AA7FF"),
)


def palette(theme: str | None) -> Palette:
    """The palette of Streamlit's theme type; light where it is not known."""
    return DARK if theme == "dark" else LIGHT


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` as `rgba(...)`, for bands."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"
