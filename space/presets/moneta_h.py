"""Moneta-H: the memory and sliding-window attention by turns."""

from __future__ import annotations

from miras_search.space.presets.moneta import MONETA
from miras_search.space.presets.protocol import register
from miras_search.space.presets.shared import hybrid

register(
    hybrid(
        MONETA,
        "Miras, section 5.4: Moneta-H, after Samba (2406.07522). Its window is not stated: 32 here "
        "(model.attention_window); else as moneta",
    )
)
