"""A token of a design point by the decode kernel: the state as tiles, and what the end of a chunk does to it.

For streaming. Nothing is differentiated here: with gradients a token is the recurrence's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miras_search.kernels.recurrence import definition
from miras_search.kernels.state import Level, State, chunk_start, is_lagged
from miras_search.kernels.triton.decode import decode_op
from miras_search.kernels.triton.loop_launch import LoopRule, loop_why_not
from miras_search.kernels.triton.loop_ops import widened
from miras_search.kernels.triton.loop_run import loop_inputs, loop_rule, write_refuses
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static


def decode_refuses(point: DesignPoint, key_dim: int, value_dim: int, dtype: torch.dtype) -> str | None:
    """The reason that the kernel cannot make a token of a point at this shape, or None when it can."""
    return write_refuses(point) or loop_why_not(key_dim, value_dim, dtype)


def decode(point: DesignPoint, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    """y [B,1,H,V] of one token and the state after it, of a point that `decode_refuses` lets pass."""
    lags = state.position == 0 and is_lagged(point)
    rule = loop_rule(definition(point) if lags else point)
    kept = State(dual=state.dual, moments=state.moments) if lags else state
    x = loop_inputs(point, inputs, static, _packed(rule, kept))
    y, tiles = decode_op(*widened(x), rule.to_text())
    after = _unpacked(rule, tiles, kept)
    if lags:  # the rest of the chunk starts here
        after = chunk_start(point, Level(after.dual, after.moments), static)
    position = state.position + 1 if point.chunked else 0
    if point.chunked and position == point.execution.chunk:
        return y, chunk_start(point, Level(after.dual, after.moments), static)
    return y, after._replace(position=position)


def _packed(rule: LoopRule, state: State) -> Tensor:
    """[B,H,TILES,K,V]."""
    tiles = [state.dual[0], *(moment[0] for moment in state.moments), *state.tangent, *state.start]
    for level in state.tower:
        tiles += [level.weights[0], *(moment[0] for moment in level.moments)]
    assert len(tiles) == rule.tiles
    return torch.stack(tiles, 2)


def _unpacked(rule: LoopRule, kept: Tensor, state: State) -> State:
    """The state with its tiles replaced; the chunk's start stays."""
    tiles = iter(kept.unbind(2))

    def level() -> Level:
        return Level((next(tiles),), tuple((next(tiles),) for _ in state.moments))

    dual = level()
    tangent = tuple(next(tiles) for _ in state.tangent)
    for _ in state.start:
        next(tiles)
    tower = tuple(level() for _ in state.tower)
    return state._replace(dual=dual.weights, moments=dual.moments, tangent=tangent, tower=tower)
