"""`chunked`: the Triton kernels as one differentiable function that runs under `torch.func.vmap`.

Forward and backward are autograd functions of their own, because under vmap the backward of the first receives batched
tensors too: each folds the extra axis into the batch and launches once.

Legend: B batch, T time, H heads, K key dim, V value dim, N chunks, X the axis that vmap adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from miras_search.errors import MirasError
from miras_search.kernels.triton.chunked import INTERPRETED
from miras_search.kernels.triton.launch import Rule, run_backward, run_forward, why_not
from miras_search.kernels.triton.signals import BiasPair, pair_of
from miras_search.space.bias import Bias


class KernelInputError(MirasError):
    """The tensors or the settings of a kernel call do not fit the kernel."""


class _VmapInfo(Protocol):
    batch_size: int


def _fold(tensor: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """[.., X, ..] with X at `dim` (or absent) and batch first otherwise -> [X * B, ..]."""
    if tensor is None:
        return None
    moved = tensor.unsqueeze(0).expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return moved.flatten(0, 1)


def _run_folded(
    apply: Callable[..., tuple[Tensor, ...]],
    size: int,
    dims: Sequence[int | None],
    tensors: Sequence[Tensor | None],
    settings: Sequence[object],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The vmap rule of both functions: one launch over X * B, then X split off again."""
    folded = [_fold(tensor, dim, size) for tensor, dim in zip(tensors, dims, strict=False)]
    out = apply(*folded, *settings)
    return tuple(x.unflatten(0, (size, x.shape[0] // size)) for x in out), (0,) * len(out)


class _Chunked(Function):
    """(q, k, v, log_keep, step, threshold, initial_state, rule, save_starts) -> (y, final state, chunk starts)."""

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_keep: Tensor,
        step: Tensor,
        threshold: Tensor | None,
        initial_state: Tensor | None,
        rule: Rule,
        save_starts: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return run_forward(q, k, v, log_keep, step, threshold, initial_state, rule, save_starts)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
        q, k, v, log_keep, step, threshold, initial_state, rule, _ = inputs
        starts = output[2]
        ctx.mark_non_differentiable(starts)
        ctx.save_for_backward(q, k, v, log_keep, step, threshold, starts)  # type: ignore[arg-type]
        ctx.rule = rule  # type: ignore[attr-defined]
        ctx.has_initial = initial_state is not None  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx, d_y: Tensor, d_final: Tensor, _d_starts: Tensor) -> tuple[Tensor | None, ...]:
        grads = _ChunkedBackward.apply(*ctx.saved_tensors, d_y, d_final, ctx.rule)
        d_q, d_k, d_v, d_log_keep, d_step, d_initial, *d_threshold = grads
        return (
            d_q,
            d_k,
            d_v,
            d_log_keep,
            d_step,
            d_threshold[0] if d_threshold else None,
            d_initial if ctx.has_initial else None,
            None,
            None,
        )

    @staticmethod
    def vmap(info: _VmapInfo, in_dims: tuple[int | None, ...], *args: Tensor | None):
        tensors, settings = args[:7], args[7:]
        return _run_folded(_Chunked.apply, info.batch_size, in_dims, tensors, settings)


class _ChunkedBackward(Function):
    """(q, k, v, log_keep, step, threshold, starts, d_y, d_final, rule) -> what `run_backward` returns."""

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_keep: Tensor,
        step: Tensor,
        threshold: Tensor | None,
        starts: Tensor,
        d_y: Tensor,
        d_final: Tensor,
        rule: Rule,
    ) -> tuple[Tensor, ...]:
        return run_backward(q, k, v, log_keep, step, threshold, starts, d_y, d_final, rule)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing: there is no second derivative."""

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> NoReturn:
        raise KernelInputError(
            "kernels.triton.chunked: second derivatives are not implemented; use the chunkwise torch path for them"
        )

    @staticmethod
    def vmap(info: _VmapInfo, in_dims: tuple[int | None, ...], *args: Tensor | None):
        return _run_folded(_ChunkedBackward.apply, info.batch_size, in_dims, args[:9], args[9:])


def _pair(bias: Bias) -> BiasPair:
    if bias.triton is None:
        raise KernelInputError(f"kernels.triton.chunked: bias: {bias.name}: no pair of jit functions is written for it")
    return pair_of(bias.triton)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: dict[str, Tensor | None],
    initial_state: Tensor | None,
    rule: Rule,
    uses_threshold: bool,
) -> None:
    """Raise KernelInputError on the first thing that does not fit."""
    where = "kernels.triton.chunked"
    if q.ndim != 4:
        raise KernelInputError(f"{where}: q: {list(q.shape)}: expected [B, T, H, K]")
    B, T, H, K = q.shape
    if v.ndim != 4:
        raise KernelInputError(f"{where}: v: {list(v.shape)}: expected [B, T, H, V]")
    V = v.shape[-1]
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "k": (k, (B, T, H, K)),
        "v": (v, (B, T, H, V)),
        "initial_state": (initial_state, (B, H, K, V)),
    }
    wanted |= {name: (gate, (B, T, H)) for name, gate in gates.items()}
    for name, (tensor, shape) in wanted.items():
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise KernelInputError(f"{where}: {name}: {list(tensor.shape)}: expected {list(shape)} to go with q")
        if tensor.device != q.device:
            raise KernelInputError(f"{where}: {name}: on {tensor.device}: move it to {q.device}, where q is")
    if not q.dtype == k.dtype == v.dtype:
        raise KernelInputError(f"{where}: q, k, v: {q.dtype}, {k.dtype}, {v.dtype}: cast them to one dtype")
    reason = why_not(K, V, rule.chunk, q.dtype)
    if reason is not None:
        raise KernelInputError(f"{where}: {reason}")
    if rule.sweeps < 0:
        raise KernelInputError(f"{where}: sweeps: {rule.sweeps}: must be 0 (frozen) or more")
    if uses_threshold and gates["threshold"] is None:
        raise KernelInputError(f"{where}: threshold: None: this bias reads a threshold [B, T, H]")
    if not (q.is_cuda or INTERPRETED):
        raise KernelInputError(
            f"{where}: q: on {q.device}: move it to a CUDA device, or set TRITON_INTERPRET=1 before triton is imported"
        )


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_keep: Tensor,
    step: Tensor,
    threshold: Tensor | None,
    initial_state: Tensor | None,
    *,
    bias: Bias,
    chunk: int,
    sweeps: int,
    decayed: bool,
) -> tuple[Tensor, Tensor]:
    """Run a matrix memory, identity link, plain gradient descent, one write a token, on chunks of `chunk` tokens.

    Args:
        q: queries [B, T, H, K], float32 or bfloat16; used as they are, without a scale.
        k: keys [B, T, H, K], same dtype.
        v: values [B, T, H, V], same dtype.
        log_keep: log of the share of the state kept, [B, T, H], <= 0; below -30 it counts as -30.
        step: step of the inner gradient descent, [B, T, H].
        threshold: the bias's threshold [B, T, H], or None where the bias reads none.
        initial_state: [B, H, K, V], or None for zeros.
        bias: the option, with a pair of jit functions.
        chunk: tokens of a chunk, 1 to 64. The chunk is part of the function: sweep 0 predicts from its start.
        sweeps: refinements after sweep 0; 0 is the frozen gradient, chunk - 1 is exact.
        decayed: True takes the gradient at a_t Z_{t-1}, False at Z_{t-1}.

    Returns:
        y [B, T, H, V] in the dtype of v, and the final state [B, H, K, V] in float32. A sequence cut at a multiple of
        `chunk` and continued from that state gives the same outputs.

    Raises:
        KernelInputError: the shapes, dtypes, devices or settings do not fit, or a second derivative is asked for.
    """
    rule = Rule(bias=_pair(bias), chunk=chunk, sweeps=sweeps, decayed=decayed)
    _check(
        q,
        k,
        v,
        {"log_keep": log_keep, "step": step, "threshold": threshold},
        initial_state,
        rule,
        bool(bias.threshold_scopes),
    )
    y, final, _ = _Chunked.apply(
        q,
        k,
        v,
        log_keep.float(),
        step.float(),
        None if threshold is None else threshold.float(),
        None if initial_state is None else initial_state.float(),
        rule,
        torch.is_grad_enabled(),
    )
    return y, final
