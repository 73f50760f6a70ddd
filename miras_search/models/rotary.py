"""Rotary positions: the product of a query and a key that are turned depends on how far apart they are."""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10_000.0  # the slowest pair of channels turns once in about 2 pi BASE tokens


def rotate(x: Tensor, first: int, repeats: int = 1) -> Tensor:
    """x [B,N,H,K] with channels i and i + K/2 turned by position * BASE^(-2i/K).

    Positions are first, first + 1, ..., each `repeats` times: the writes of one token share its position. Angles are
    float64 throughout: in float32 those of token 100,000 are off by a hundredth of a radian.
    """
    half, count = x.shape[-1] // 2, x.shape[1] // repeats
    exponents = torch.arange(half, dtype=torch.float64, device=x.device) / half
    positions = torch.arange(first, first + count, dtype=torch.float64, device=x.device)
    angle = (positions.unsqueeze(-1) * BASE**-exponents).repeat_interleave(repeats, 0).unsqueeze(1)  # [N,1,K/2]
    cos, sin = torch.cos(angle).to(x), torch.sin(angle).to(x)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
