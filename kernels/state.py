"""The state of a memory between tokens: a named pytree that streaming, checkpoints and budgets all walk.

dual      Z per layer [B,H,rows,cols]: the accumulator; the weights in force are link(Z)
momentum  S per layer, with the momentum algorithm
start     Z at the chunk's start per layer, where gradients are not exact
tower     the lower levels of refined(n): n pairs (accumulator, momentum) per layer
tangent   weights that the link treats as linear inside a chunk (link_refresh: chunk)
position  tokens since the chunk's start
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.space.design import DesignPoint

Layers = tuple[Tensor, ...]


class Level(NamedTuple):
    """One level of the tower: accumulators and momenta per layer."""

    weights: Layers
    momentum: Layers


class State(NamedTuple):
    """What a memory carries from one token to the next."""

    dual: Layers
    momentum: Layers
    start: Layers
    tower: tuple[Level, ...]
    tangent: Layers
    position: int

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name (`dual.0`, `tower.1.momentum.0`, ...)."""
        found: dict[str, Tensor] = {}
        for name in ("dual", "momentum", "start", "tangent"):
            found |= {f"{name}.{i}": tensor for i, tensor in enumerate(getattr(self, name))}
        for depth, level in enumerate(self.tower):
            found |= {f"tower.{depth}.weights.{i}": tensor for i, tensor in enumerate(level.weights)}
            found |= {f"tower.{depth}.momentum.{i}": tensor for i, tensor in enumerate(level.momentum)}
        return found

    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())


def is_tangent(point: DesignPoint) -> bool:
    """Whether the link is treated as the identity inside a chunk."""
    return point.execution.link_refresh == "chunk" and not point.retention.identity


def link(point: DesignPoint, dual: Layers) -> Layers:
    """The weights in force of each layer."""
    return dual if point.retention.identity else tuple(point.retention.link(z) for z in dual)


def chunk_start(point: DesignPoint, dual: Layers, momentum: Layers) -> State:
    """The state at the start of a chunk: every level equal to the last."""
    sweeps = point.execution.gradient.sweeps
    tangent = link(point, dual) if is_tangent(point) else ()
    running = tangent or dual
    return State(
        dual=dual,
        momentum=momentum,
        start=() if sweeps is None else dual,
        tower=tuple(Level(running, momentum) for _ in range(sweeps or 0)),
        tangent=tangent,
        position=0,
    )


def initial_state(point: DesignPoint, start: Layers, batch: int) -> State:
    """The state before the first token, from the learned start [H,rows,cols] of each layer."""
    dual = tuple(z.unsqueeze(0).expand(batch, *z.shape) for z in start)
    momentum = tuple(torch.zeros_like(z) for z in dual) if point.algorithm.has_momentum else ()
    return chunk_start(point, dual, momentum)
