"""Moneta as it is printed."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import MIRAS_LAYER, moneta

register(
    Preset(
        "moneta_literal",
        "A_t = a_t A_{t-1} - e_t grad |M(k_t; W_{t-1}) - v_t|_3^3;  W_t = A_t / |A_t|_q^(q-2),  q = 4",
        "Miras, Eq. 24 as printed: W is of degree -1 in A, so a memory that has been written more is smaller. Open: "
        "as moneta's",
        moneta("literal"),
        MIRAS_LAYER,
    )
)
