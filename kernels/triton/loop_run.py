"""A design point on the token loop: which points it runs, and their states as its tiles and back."""

from __future__ import annotations

import torch
from torch import Tensor

from miras_search.kernels.state import Layers, State, initial_state, is_plain, is_tangent, link
from miras_search.kernels.triton.loop_launch import LoopInputs, LoopRule, loop_why_not
from miras_search.kernels.triton.loop_ops import token_loop
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.memory import Static


def loop_refuses(point: DesignPoint, key_dim: int, value_dim: int, dtype: torch.dtype) -> str | None:
    """The reason that the loop cannot run a point at this shape, or None when it can."""
    reason = write_refuses(point)
    if reason is not None:
        return reason
    if point.execution.gradient.sweeps not in (None, 0):
        return "the loop takes exact or frozen gradients; refined ones have a tower of states"
    if point.execution.link_refresh == "lag" and not point.retention.identity:
        return "the loop has no lag token"
    return loop_why_not(key_dim, value_dim, dtype)


def write_refuses(point: DesignPoint) -> str | None:
    """The reason that a write of this point cannot be made by jit functions, whatever its execution; or None."""
    if not point.descends:
        return "the loop descends; this memory is solved for"
    if not point.memory.bare:
        return "the loop holds a bare matrix memory"
    if not point.algorithm.linear or point.algorithm.window > 1:
        return "the loop makes writes of single pairs, linear in their gradients"
    retention = point.retention
    if retention.triton is None and (not retention.identity or retention.form == "primal"):
        return f"no pair of jit functions is written for the retention {retention.name} in this form"
    if len(retention.static()) > 1:
        return f"a link takes one learned number a head: {retention.name} has {len(retention.static())}"
    if point.bias.triton is None:
        return f"no pair of jit functions is written for the bias {point.bias.name} in this form"
    return None


def loop_rule(point: DesignPoint) -> LoopRule:
    """What the kernels compile in of a point that `write_refuses` lets pass."""
    assert point.bias.triton is not None
    scopes = point.scopes
    in_place = is_plain(point) and not point.retention.identity
    return LoopRule(
        bias=point.bias.triton,
        retention=point.retention.triton,
        primal=point.retention.form == "primal",
        refresh="restart" if in_place else "tangent" if is_tangent(point) else "token",
        sweeps=point.execution.gradient.sweeps,
        decayed=point.execution.gradient_at == "decayed" and not point.retention.keep.is_one,
        chunk=point.execution.chunk if point.chunked else 0,
        writes=point.writes,
        keep=scopes["keep"],
        step=scopes["step"],
        momentum=scopes["momentum"] if point.algorithm.has_momentum else "none",
        threshold=scopes["threshold"] if "threshold" in point.gates else "none",
    )


def run_loop(
    point: DesignPoint, inputs: Inputs, start: Layers, static: Static, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs and final state of a point that `loop_refuses` lets pass; as `recurrence.run`, argument for argument."""
    if state is None:
        state = initial_state(point, inputs, start, static)
    rule = loop_rule(point)
    tokens = inputs.q.shape[1]
    # weights cannot be turned back into the accumulators of a chunk's start: the last chunk begins a call of its own
    last = tokens - (state.position + tokens) % rule.chunk if rule.frozen and rule.refresh == "tangent" else 0
    if not 0 < last < tokens:
        return _run(point, rule, inputs, static, state)
    y, state = _run(point, rule, inputs.tokens(0, last), static, state)
    tail, state = _run(point, rule, inputs.tokens(last, tokens), static, state)
    return torch.cat([y, tail], 1), state


def loop_inputs(point: DesignPoint, inputs: Inputs, static: Static, tiles: Tensor) -> LoopInputs:
    """The tensors of a call that starts from these tiles."""
    names = list(point.retention.static())
    return LoopInputs(
        q=inputs.q,
        k=inputs.k,
        v=inputs.v,
        log_keep=torch.zeros_like(inputs.log_keep) if point.retention.keep.is_one else inputs.log_keep,
        step=inputs.step,
        state=tiles,
        w=inputs.w,
        momentum=inputs.momentum if point.algorithm.has_momentum else None,
        threshold=inputs.threshold,
        parameter=static[names[0]].flatten().expand(inputs.q.shape[0], -1) if names else None,
    )


def _run(point: DesignPoint, rule: LoopRule, inputs: Inputs, static: Static, state: State) -> tuple[Tensor, State]:
    x = loop_inputs(point, inputs, static, _packed(point, rule, static, state))
    y, kept = token_loop(x, rule, state.position)
    return y, _unpacked(rule, kept, state, inputs.q.shape[1])


def _packed(point: DesignPoint, rule: LoopRule, static: Static, state: State) -> Tensor:
    """[B,H,TILES,K,V]."""
    tiles = [state.dual[0]]
    if rule.momentum != "none":
        tiles.append(state.moments[0][0])
    if rule.refresh == "tangent":
        tiles.append(state.tangent[0])
    if rule.frozen:
        starts = state.tangent if state.position == 0 else link(point, state.start, static)
        tiles.append(starts[0] if rule.refresh == "tangent" else state.start[0])
    return torch.stack(tiles, 2)


def _unpacked(rule: LoopRule, kept: Tensor, state: State, tokens: int) -> State:
    """The state after so many tokens from `state`."""
    tiles = iter(kept.unbind(2))
    dual = next(tiles)
    moments = ((next(tiles),),) if rule.momentum != "none" else ()
    tangent = (next(tiles),) if rule.refresh == "tangent" else ()
    position = (state.position + tokens) % rule.chunk if rule.chunk else 0
    starts: Layers = ()
    if rule.frozen and rule.refresh == "tangent":
        starts = state.start if position else (dual,)
    elif rule.frozen:
        starts = (next(tiles),)
    return State(dual=(dual,), moments=moments, start=starts, tangent=tangent, position=position)
