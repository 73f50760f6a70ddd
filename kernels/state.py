"""The state of a memory between tokens: a named pytree that streaming, checkpoints and budgets all walk.

dual      what the retention gate keeps, per layer [B,H,rows,cols]; the weights in force are link(dual)
moments   past gradients, per accumulator of the algorithm and layer
start     the dual at the chunk's start per layer, where gradients are not exact
tower     the lower levels of refined(n): n pairs (dual, moments)
tangent   weights that the link treats as linear inside a chunk (link_refresh: chunk, lag)
window    the last tokens' pairs, for algorithms that write several tokens together
solved    the statistics of a memory that is solved for instead of descended to; all else is empty then
position  tokens since the chunk's start
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint

Layers = tuple[Tensor, ...]
Static = Mapping[str, Tensor]


class Level(NamedTuple):
    """One level of the tower: accumulators per layer, and moments per accumulator and layer."""

    weights: Layers
    moments: tuple[Layers, ...]


class State(NamedTuple):
    """What a memory carries from one token to the next."""

    dual: Layers = ()
    moments: tuple[Layers, ...] = ()
    start: Layers = ()
    tower: tuple[Level, ...] = ()
    tangent: Layers = ()
    window: Mapping[str, Tensor] = {}
    solved: Mapping[str, Tensor] = {}
    position: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name (`dual.0`, `tower.1.moments.0.0`, ...)."""
        found: dict[str, Tensor] = {}
        for name in ("dual", "start", "tangent"):
            found |= {f"{name}.{i}": tensor for i, tensor in enumerate(getattr(self, name))}
        found |= _moments("moments", self.moments)
        for depth, level in enumerate(self.tower):
            found |= {f"tower.{depth}.weights.{i}": tensor for i, tensor in enumerate(level.weights)}
            found |= _moments(f"tower.{depth}.moments", level.moments)
        for name in ("window", "solved"):
            found |= {f"{name}.{key}": tensor for key, tensor in getattr(self, name).items()}
        return found

    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())


def _moments(name: str, moments: tuple[Layers, ...]) -> dict[str, Tensor]:
    return {f"{name}.{m}.{i}": x for m, layers in enumerate(moments) for i, x in enumerate(layers)}


def is_tangent(point: DesignPoint) -> bool:
    """Whether the link is treated as the identity inside a chunk, beside an accumulator that persists."""
    return point.execution.link_refresh != "token" and not is_plain(point)


def is_lagged(point: DesignPoint) -> bool:
    """Whether the first token of a chunk takes a true step, from which the rest of it starts."""
    return point.execution.link_refresh == "lag" and not point.retention.identity


def is_plain(point: DesignPoint) -> bool:
    """Whether the weights in force inside a chunk are what is kept: under no link, or one applied at chunk ends."""
    in_place = point.retention.restart and point.execution.link_refresh == "chunk"
    return point.retention.identity or in_place


def link(point: DesignPoint, dual: Layers, static: Static) -> Layers:
    """The weights in force of each layer, inside a chunk."""
    return dual if is_plain(point) else point.retention.links(dual, static)


def chunk_start(point: DesignPoint, last: Level, static: Static, window: Mapping[str, Tensor] | None = None) -> State:
    """The state at the start of a chunk: every level equal to the last."""
    sweeps = point.execution.gradient.sweeps
    if is_plain(point) and not point.retention.identity:
        last = last._replace(weights=point.retention.links(last.weights, static))
    tangent = link(point, last.weights, static) if is_tangent(point) else ()
    running = Level(tangent or last.weights, last.moments)
    return State(
        dual=last.weights,
        moments=last.moments,
        start=() if sweeps is None else last.weights,
        tower=(running,) * (sweeps or 0),
        tangent=tangent,
        window=window or {},
    )


def initial_state(point: DesignPoint, inputs: Inputs, start: Layers, static: Static) -> State:
    """The state before the first token, from the learned start [H,rows,cols] of each layer."""
    solution = point.algorithm.solution(point.memory)
    if solution is not None:
        return State(solved=solution.initial(inputs))
    batch = inputs.q.shape[0]
    dual = tuple(point.retention.origin(z).unsqueeze(0).expand(batch, *z.shape) for z in start)
    per_layer = [point.algorithm.moments(z) for z in dual]
    moments = tuple(zip(*per_layer, strict=True))
    return chunk_start(point, Level(dual, moments), static, empty_window(point, inputs))


def empty_window(point: DesignPoint, inputs: Inputs) -> dict[str, Tensor]:
    """No pairs yet: zeros, and a mask `seen` that leaves them out of every write."""
    past = point.algorithm.window - 1
    if not past:
        return {}
    batch, _, heads, _ = inputs.k.shape
    found = {
        "k": inputs.k.new_zeros(batch, past, *inputs.k.shape[2:]),
        "v": inputs.v.new_zeros(batch, past, *inputs.v.shape[2:]),
        "seen": inputs.k.new_zeros(batch, past, heads),
    }
    if inputs.threshold is not None:
        found["threshold"] = inputs.threshold.new_ones(batch, past, *inputs.threshold.shape[2:])
    return found
