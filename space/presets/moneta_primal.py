"""Moneta, with its q read as the exponent of the weights' norm."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import MIRAS_LAYER, moneta

register(
    Preset(
        "moneta_primal",
        "A_t = a_t A_{t-1} - e_t grad |M(k_t; W_{t-1}) - v_t|_3^3;  "
        "W_t = (q-1) A_t |A_t|^(p-2) / |A_t|_p^(p-2),  p = q/(q-1),  q = 4",
        "Miras, section 5.3: the minimiser of its objective |W|_q^2 / (2(q-1)) - <A, W>. Open: as moneta's",
        moneta("primal_index"),
        MIRAS_LAYER,
    )
)
