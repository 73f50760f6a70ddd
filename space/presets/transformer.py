"""A Transformer's attention: all pairs are kept and answer by similarity."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import ATTENTION, ATTENTION_LAYER

register(
    Preset(
        "transformer",
        "y_t = sum_{s<=t} w_ts v_s,  w_ts = exp(q_t.k_s / sqrt(K)) / sum_{r<=t} exp(q_t.k_r / sqrt(K))",
        "Vaswani et al. 2017 (1706.03762) with rotary positions, as in Llama; Miras, Table 1: non-parametric. Its "
        "channel mixer is model.feed_forward: swiglu",
        {"memory": {"attention": {"lengths": "free", "learned": False}}, **ATTENTION},
        ATTENTION_LAYER,
    )
)
