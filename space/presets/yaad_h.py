"""Yaad-H: the memory and sliding-window attention by turns."""

from __future__ import annotations

from miras_search.space.presets.protocol import register
from miras_search.space.presets.shared import hybrid
from miras_search.space.presets.yaad import YAAD

register(
    hybrid(
        YAAD,
        "Miras, section 5.4: Yaad-H, after Samba (2406.07522). Its window is not stated: 32 here "
        "(model.attention_window); else as yaad",
    )
)
