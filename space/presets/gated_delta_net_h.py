"""Gated DeltaNet's first hybrid: the memory and sliding-window attention by turns."""

from __future__ import annotations

from miras_search.space.presets.gated_delta_net import GATED_DELTA_NET
from miras_search.space.presets.protocol import register
from miras_search.space.presets.shared import hybrid

register(
    hybrid(
        GATED_DELTA_NET,
        "Yang, Kautz and Hatamizadeh 2024 (2412.06464), the layers of its H1 (H2 has Mamba 2's before them), after "
        "Samba (2406.07522); a window of 2048 there, of 32 here (model.attention_window)",
    )
)
