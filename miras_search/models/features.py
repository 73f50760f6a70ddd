"""From projections to the keys, queries and values of a memory: activation, feature map, length; and the normaliser.

Shapes: B batch, N tokens or writes, H heads, D key dimension before the map, K after it, V value dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from miras_search.models.config import DPFP_NU, FeatureMap, ModelConfig, QkNorm
from miras_search.models.norms import scaled

EPS = 1e-6  # under square roots and in denominators: features that are all zero stay zero


def activate(config: ModelConfig, qkv: Tensor, values: int) -> Tensor:
    """The activation on projections [..., channels] of which the last `values` are v: not where a feature map acts."""
    if config.activation == "none":
        return qkv
    if config.feature_map == "none":
        return functional.silu(qkv)
    qk, v = qkv[..., :-values], qkv[..., -values:]
    return torch.cat([qk, functional.silu(v)], -1)


def mapped(name: FeatureMap, x: Tensor) -> Tensor:
    """The feature map of keys or queries [B,N,H,D] -> [B,N,H,K]."""
    if name == "none":
        return x
    if name == "elu1":
        return functional.elu(x) + 1
    if name == "silu":
        return functional.silu(x)
    if name == "softmax":
        return torch.softmax(x, -1)
    if name == "relu":
        return torch.relu(x)
    return _dpfp(x)


def _dpfp(x: Tensor) -> Tensor:
    """Deterministic parameter-free projection: r * roll(r, j) for j = 1 .. nu, with r = [relu(x), relu(-x)]."""
    r = torch.relu(torch.cat([x, -x], -1))
    return torch.cat([r * r.roll(j, -1) for j in range(1, DPFP_NU + 1)], -1)


def normalised(name: QkNorm, x: Tensor) -> Tensor:
    """Keys or queries with their length set; 0 stays 0."""
    if name == "none":
        return x
    return scaled(x, 1.0 if name == "l2" else 1 / x.shape[-1], EPS)


def counted(v: Tensor) -> Tensor:
    """Values [B,N,H,V] with a channel of ones: what a memory holds there is the sum of the keys, weighted alike."""
    return functional.pad(v, (0, 1), value=1.0)


def divided(y: Tensor) -> Tensor:
    """Reads [B,T,H,V+1] of a memory of such values, divided by their last channel: [B,T,H,V]; 0 where nothing is."""
    return y[..., :-1] / (y[..., -1:] + EPS)
