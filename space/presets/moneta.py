"""Moneta, with its q read as the exponent of the accumulator's norm."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import MIRAS_LAYER, moneta

MONETA = register(
    Preset(
        "moneta",
        "A_t = a_t A_{t-1} - e_t grad |M(k_t; W_{t-1}) - v_t|_3^3;  W_t = A_t |A_t|^(q-2) / |A_t|_q^(q-2),  q = 4",
        "Miras, Eq. 24-25, the elementwise power that the formula lost restored, the second e_t dropped. Open in the "
        "paper: what the norm is over (each matrix here), where gates by channel act (one a head here), rotary "
        "positions (none here); it applies the norm at chunk ends only (execution.link_refresh: chunk)",
        moneta("dual_index"),
        MIRAS_LAYER,
    )
)
