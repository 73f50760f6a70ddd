"""Pairs that are written together: every token takes the last c tokens' pairs, its own included (the omega rule)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from miras_search.space.control import Inputs


def unfolded(inputs: Inputs, past: Mapping[str, Tensor]) -> tuple[Inputs, dict[str, Tensor]]:
    """Inputs whose keys, values and thresholds hold a whole window a token, oldest first, and the window after them.

    k [B,T,H,K] -> [B,T*c,H,K], v and threshold likewise; share [B,T,H,c] is 0 where there was no token yet. With no
    past (c = 1) the inputs as they are.
    """
    if not past:
        return inputs, {}
    given = {"k": inputs.k, "v": inputs.v, "seen": inputs.k.new_ones(inputs.k.shape[:3])}
    if inputs.threshold is not None:
        given["threshold"] = inputs.threshold
    window = past["k"].shape[1] + 1
    joined = {name: torch.cat([past[name], x], 1) for name, x in given.items()}
    after = {name: x[:, x.shape[1] - window + 1 :] for name, x in joined.items()}

    def windows(x: Tensor) -> Tensor:  # [B,c-1+T,...] -> [B,T,c,...]; no unfold: vmap has no rule for its backward
        tokens = x.shape[1] - window + 1
        return torch.stack([x[:, i : i + tokens] for i in range(window)], 2)

    share = windows(joined["seen"]).movedim(2, -1)  # [B,T,H,c]
    wide = inputs._replace(
        k=windows(joined["k"]).flatten(1, 2),
        v=windows(joined["v"]).flatten(1, 2),
        threshold=None if inputs.threshold is None else windows(joined["threshold"]).flatten(1, 2),
        share=share if inputs.share is None else inputs.share * share,
    )
    return wide, after
