"""The token loop as operators of torch's library, and as one differentiable function that runs under `torch.func.vmap`.

What a kernel compiles in is an argument as text (rule_text.py). Gradients that are registered for an operator do not
run under functorch's transforms, and autograd functions inside one another not under torch.compile: there are both, of
the same parts. Under vmap each function folds the extra axis into the batch and launches once.

Legend: B batch, T tokens, N writes, H heads, K key dim, V value dim, X the axis that vmap adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from miras_search.errors import MirasError
from miras_search.kernels.triton.loop_launch import LoopInputs, LoopRule, loop_backward, loop_forward, segment
from miras_search.kernels.triton.tiles import INTERPRETED
from miras_search.kernels.vmap import VmapInfo, folded

OPTIONAL = ("w", "momentum", "threshold", "parameter")
GIVEN = ("q", "k", "v", "log_keep", "step", "state", *OPTIONAL)  # in the order of the operator's arguments


class LoopInputError(MirasError):
    """A call of the token loop asks for what it cannot give."""


def inputs_of(*tensors: Tensor | None) -> LoopInputs:
    """An operator's tensors, contiguous, in the order of `GIVEN`."""
    given = {n: None if x is None else x.contiguous() for n, x in zip(GIVEN, tensors, strict=True)}
    return LoopInputs(**given)  # type: ignore[arg-type]  # None are optional ones alone


@torch.library.custom_op("miras::token_loop", mutates_args=())
def loop_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    step: Tensor,
    state: Tensor,
    w: Tensor | None,
    momentum: Tensor | None,
    threshold: Tensor | None,
    parameter: Tensor | None,
    rule: str,
    position: int,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `loop_forward` returns."""
    x = inputs_of(q, k, v, log_keep, step, state, w, momentum, threshold, parameter)
    return loop_forward(x, LoopRule.from_text(rule), position, save=save)


@torch.library.custom_op("miras::token_loop_backward", mutates_args=())
def loop_backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    step: Tensor,
    w: Tensor | None,
    momentum: Tensor | None,
    threshold: Tensor | None,
    parameter: Tensor | None,
    saved: Tensor,
    d_y: Tensor,
    d_final: Tensor,
    rule: str,
    position: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients in the order of `GIVEN`; empty for what was not given."""
    # the state's place is taken by what stands for it: where segments start is saved
    x = inputs_of(q, k, v, log_keep, step, d_final, w, momentum, threshold, parameter)
    args = saved.contiguous(), d_y.contiguous(), d_final.contiguous()
    found = loop_backward(x, *args, LoopRule.from_text(rule), position)
    a, b, c, d, e, f, g, h, i, j = (found[name] if name in found else d_final.new_empty(0) for name in GIVEN)
    return a, b, c, d, e, f, g, h, i, j


@loop_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, step: Tensor, state: Tensor, w: Tensor | None,
    momentum: Tensor | None, threshold: Tensor | None, parameter: Tensor | None, rule: str, position: int, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    tokens, writes = q.shape[1], k.shape[1]
    count = -(-writes // segment(writes)) if save else 0
    y = v.new_empty((v.shape[0], tokens, *v.shape[2:]))
    final = torch.empty_like(state, memory_format=torch.contiguous_format)
    return y, final, state.new_empty((*state.shape[:2], count, *state.shape[2:]))


@loop_backward_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, step: Tensor, w: Tensor | None, momentum: Tensor | None,
    threshold: Tensor | None, parameter: Tensor | None, saved: Tensor, d_y: Tensor, d_final: Tensor, rule: str,
    position: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    wanted = (q, k, v, log_keep, step, d_final, w, momentum, threshold, parameter)
    a, b, c, d, e, f, g, h, i, j = (
        d_final.new_empty(0) if x is None else torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in wanted
    )
    return a, b, c, d, e, f, g, h, i, j


def _remember(ctx, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, rule, position, _ = inputs
    ctx.rule, ctx.position = rule, position
    state = GIVEN.index("state")
    ctx.save_for_backward(*tensors[:state], *tensors[state + 1 :], output[2])


def _pulled_back(
    op: Callable[..., tuple[Tensor, ...]], ctx, d_y: Tensor, d_final: Tensor
) -> tuple[Tensor | None, ...]:  # fmt: skip
    saved = ctx.saved_tensors  # asked for once, as checkpointing wants it
    found = op(*saved, d_y, d_final, ctx.rule, ctx.position)
    given = [*saved[:5], d_final, *saved[5:-1]]
    return (*(None if x is None else g for x, g in zip(given, found, strict=True)), None, None, None)


def _refused(ctx: object, *gradients: Tensor) -> NoReturn:
    raise LoopInputError(
        "kernels.triton.token_loop: second derivatives are not implemented; use the recurrence in torch for them"
    )


loop_op.register_autograd(
    lambda ctx, d_y, d_final, _: _pulled_back(loop_backward_op, ctx, d_y, d_final), setup_context=_remember
)
loop_backward_op.register_autograd(_refused)


class _Loop(Function):
    """The arguments of `loop_op` -> what it returns."""

    @staticmethod
    def forward(*args: object) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = loop_op(*args)
        return found

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[2])
        _remember(ctx, inputs, output)

    @staticmethod
    def backward(ctx, d_y: Tensor, d_final: Tensor, _d_saved: Tensor) -> tuple[Tensor | None, ...]:
        return _pulled_back(_LoopBackward.apply, ctx, d_y, d_final)

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[int | None, ...], *args: object):
        return folded(_Loop.apply, info, in_dims, args)


class _LoopBackward(Function):
    """The arguments of `loop_backward_op` -> what it returns."""

    @staticmethod
    def forward(*args: object) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = loop_backward_op(*args)
        return found

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing: there is no second derivative."""

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> NoReturn:
        _refused(ctx)

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[int | None, ...], *args: object):
        return folded(_LoopBackward.apply, info, in_dims, args)


def widened(x: LoopInputs) -> list[Tensor | None]:
    """The tensors in the order of `GIVEN`; gates and everything kept in float32."""
    given = ((name, getattr(x, name)) for name in GIVEN)
    return [t if t is None or name in ("q", "k", "v", "w") else t.float() for name, t in given]


def token_loop(x: LoopInputs, rule: LoopRule, position: int = 0) -> tuple[Tensor, Tensor]:
    """Run the writes one after the other; the same function as the recurrence of the design point behind `rule`.

    Args:
        x: the tensors; q, k, v, w of one dtype, float32 or bfloat16, the others are taken to float32.
        rule: what is compiled in.
        position: tokens since the chunk's start, where chunks are part of the function.

    Returns:
        y [B, T, H, V] in the dtype of v, and what is kept at the end, [B, H, TILES, K, V] in float32. Both can be
        differentiated once, by every tensor of `x`.

    Raises:
        LoopInputError: the tensors are on no CUDA device and Triton is not in its interpreter, or a second derivative
            is asked for.
    """
    if not (x.q.is_cuda or INTERPRETED):
        raise LoopInputError(
            f"kernels.triton.token_loop: q: on {x.q.device}: move it to a CUDA device, or set TRITON_INTERPRET=1 "
            "before triton is imported"
        )
    run = loop_op if torch.compiler.is_compiling() else _Loop.apply
    y, final, _ = run(*widened(x), rule.to_text(), position, torch.is_grad_enabled())
    return y, final
