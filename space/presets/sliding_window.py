"""Attention to the last tokens only: the other half of Samba's and Miras' hybrids."""

from __future__ import annotations

from miras_search.space.presets.protocol import Preset, register
from miras_search.space.presets.shared import ATTENTION, ATTENTION_LAYER

register(
    Preset(
        "sliding_window",
        "y_t = sum_{t-c<s<=t} w_ts v_s,  w_ts = exp(q_t.k_s / sqrt(K)) / sum_{t-c<r<=t} exp(q_t.k_r / sqrt(K))",
        "Beltagy et al. 2020 (2004.05150); Samba (2406.07522) and Gated DeltaNet's hybrids have c = 2048 on "
        "sequences of 4096, here c = 32; Miras does not state its own",
        {"memory": {"attention": {"window": 32, "lengths": "free", "learned": False}}, **ATTENTION},
        ATTENTION_LAYER,
    )
)
