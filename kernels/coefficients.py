"""Coefficients of a chunk as execution needs them: several writes a token, and the weights before each write."""

from __future__ import annotations

import torch
from torch import Tensor

from miras_search.space.algorithm import Coefficients


def spread(log_keep: Tensor, writes: int) -> Tensor:
    """Log keep per token [..., T] -> per write [..., T * writes]: the past fades before a token's first write only."""
    if writes == 1:
        return log_keep
    padding = torch.zeros_like(log_keep).unsqueeze(-1).expand(*log_keep.shape, writes - 1)
    return torch.cat([log_keep.unsqueeze(-1), padding], -1).flatten(-2)


def before_writes(after: Coefficients, fade: Tensor | None) -> Coefficients:
    """Coefficients of the weights at which gradients are taken: one write earlier, faded where keep comes first."""
    keep = after.keep
    if keep is not None:
        keep = torch.cat([torch.ones_like(keep[..., :1]), keep[..., :-1]], -1)
    writes = torch.cat([torch.zeros_like(after.writes[..., :1, :]), after.writes[..., :-1, :]], -2)
    momentum = after.momentum
    if momentum is not None:
        momentum = torch.cat([torch.zeros_like(momentum[..., :1]), momentum[..., :-1]], -1)
    if fade is not None:
        keep, writes = fade if keep is None else fade * keep, fade.unsqueeze(-1) * writes
        momentum = None if momentum is None else fade * momentum
    return Coefficients(keep, momentum, writes, None, None)


def at_reads(after: Coefficients, writes: int) -> Coefficients:
    """Coefficients of the weights that each token's query reads: those after its last write."""
    if writes == 1:
        return after
    momentum = None if after.momentum is None else after.momentum[..., writes - 1 :: writes]
    rows = after.writes[..., writes - 1 :: writes, :]
    keep = None if after.keep is None else after.keep[..., writes - 1 :: writes]
    return Coefficients(keep, momentum, rows, None, None)


def of_pairs(c: Coefficients, window: int, *, rows: bool) -> Coefficients:
    """Coefficients of writes of a whole window of pairs: a column for every pair, and with `rows` a row for each."""
    if window == 1:
        return c
    writes = c.writes.repeat_interleave(window, -1)
    end = None if c.end_writes is None else c.end_writes.repeat_interleave(window, -1)
    if not rows:
        return c._replace(writes=writes, end_writes=end)
    momentum = None if c.momentum is None else c.momentum.repeat_interleave(window, -1)
    keep = None if c.keep is None else c.keep.repeat_interleave(window, -1)
    return Coefficients(keep, momentum, writes.repeat_interleave(window, -2), c.end_momentum, end)
