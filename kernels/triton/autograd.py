"""`chunked`: the Triton kernels as one differentiable function.

Forward and backward are operators of their own, `miras::chunked_forward` and `miras::chunked_backward`, so that
torch.compile sees two opaque calls with known shapes, and so that under `torch.func.vmap` either folds the extra axis
into the batch and launches once.

Legend: B batch, T time, H heads, N writes in all, K key dim, V value dim, X the axis that vmap adds.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function

from miras_search.kernels.triton.chunked_launch import run_backward, run_forward
from miras_search.kernels.triton.launch import Given, KernelInputError, Rule, why_not
from miras_search.kernels.triton.tiles import INTERPRETED
from miras_search.kernels.vmap import VmapInfo, folded
from miras_search.space.bias import Bias


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor | None,
    log_keep: Tensor,
    step: Tensor,
    momentum: Tensor | None,
    threshold: Tensor | None,
    initial: Tensor | None,
    initial_s: Tensor | None,
    rule: str,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = Given(q, k, v, w, log_keep, step, momentum, threshold)
    return run_forward(given, initial, initial_s, Rule.from_text(rule), save=save)


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor | None,
    log_keep: Tensor,
    step: Tensor,
    momentum: Tensor | None,
    threshold: Tensor | None,
    starts: Tensor,
    starts_s: Tensor,
    d_y: Tensor,
    d_final: Tensor,
    d_final_s: Tensor,
    rule: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = Given(q, k, v, w, log_keep, step, momentum, threshold)
    return run_backward(given, starts, starts_s, d_y, d_final, d_final_s, Rule.from_text(rule))


_GIVEN = "Tensor q, Tensor k, Tensor v, Tensor? w, Tensor log_keep, Tensor step, Tensor? momentum, Tensor? threshold"
_forward_op = torch.library.custom_op(
    "miras::chunked_forward",
    _forward,
    mutates_args=(),
    schema=f"({_GIVEN}, Tensor? initial, Tensor? initial_s, str rule, bool save)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_backward_op = torch.library.custom_op(
    "miras::chunked_backward",
    _backward,
    mutates_args=(),
    schema=f"({_GIVEN}, Tensor starts, Tensor starts_s, Tensor d_y, Tensor d_final, Tensor d_final_s, str rule)"
    f" -> ({', '.join(['Tensor'] * 10)})",
)


@_forward_op.register_fake
def _forward_shapes(
    q: Tensor, k: Tensor, v: Tensor, w: object, log_keep: object, step: Tensor, momentum: Tensor | None,
    threshold: object, initial: object, initial_s: object, rule: str, save: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, tokens, heads, keys = q.shape
    values, chunk = v.shape[-1], Rule.from_text(rule).chunk

    def state(*axes: int, there: bool) -> Tensor:
        return step.new_empty((batch, *axes, heads, keys, values) if there else (batch, 0))

    chunks, has_s = (tokens + chunk - 1) // chunk, momentum is not None
    finals = (state(there=True), state(there=has_s))
    return (
        v.new_empty((batch, tokens, heads, values)),
        *finals,
        *(state(chunks, there=save and x) for x in (True, has_s)),
    )


@_backward_op.register_fake
def _backward_shapes(*args: Any) -> tuple[Tensor, ...]:  # the operator's, in order
    given, (d_final, d_final_s) = args[:8], args[11:13]
    nothing = (args[0].shape[0], 0)
    gradients = (args[5].new_empty(nothing) if x is None else x.new_empty(x.shape) for x in given)
    return *gradients, d_final.new_empty(d_final.shape), d_final_s.new_empty(d_final_s.shape)


class _Chunked(Function):
    """Differentiates `miras::chunked_forward`, argument for argument.

    A function around the operator and not an autograd formula registered for it: functorch's transforms refuse those.
    """

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = _forward_op(*args)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *_, starts, starts_s = output
        ctx.mark_non_differentiable(starts, starts_s)
        ctx.save_for_backward(*inputs[:8], starts, starts_s)
        ctx.has_initial, ctx.has_initial_s, ctx.rule = inputs[8] is not None, inputs[9] is not None, inputs[10]

    @staticmethod
    def backward(ctx: Any, d_y: Tensor, d_final: Tensor, d_final_s: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        # torch.compile would hand the inner function's forward a context, and has no use for what it adds
        run = _backward_op if torch.compiler.is_compiling() else _Backward.apply
        *gradients, d_initial, d_initial_s = run(*saved, d_y, d_final, d_final_s, ctx.rule)
        found = [None if x is None else gradient for x, gradient in zip(saved[:8], gradients, strict=True)]
        ends = (d_initial if ctx.has_initial else None, d_initial_s if ctx.has_initial_s else None)
        return *found, *ends, None, None

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[int | None, ...], *args: object) -> Any:
        return folded(_Chunked.apply, info, in_dims, args)


class _Backward(Function):
    """`miras::chunked_backward`, which is a function of its own because vmap hands batched tensors to it too."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = _backward_op(*args)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing: there is no second derivative."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        raise KernelInputError(
            "kernels.triton.chunked: second derivatives are not implemented; use the chunkwise torch path for them"
        )

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[int | None, ...], *args: object) -> Any:
        return folded(_Backward.apply, info, in_dims, args)


def _check(q: Tensor, tensors: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]], rule: Rule) -> None:
    """Raise KernelInputError on the first thing that does not fit; by name each tensor, and its possible shapes."""
    where = "kernels.triton.chunked"
    for name, (tensor, shapes) in tensors.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise KernelInputError(f"{where}: {name}: {list(tensor.shape)}: expected {wanted} to go with q")
        if tensor.device != q.device:
            raise KernelInputError(f"{where}: {name}: on {tensor.device}: move it to {q.device}, where q is")
    k, v = tensors["k"][0], tensors["v"][0]
    assert k is not None
    assert v is not None
    if not q.dtype == k.dtype == v.dtype:
        raise KernelInputError(f"{where}: q, k, v: {q.dtype}, {k.dtype}, {v.dtype}: cast them to one dtype")
    momentum = tensors["momentum"][0]
    if momentum is not None and tensors["log_keep"][0] is not None and tensors["log_keep"][0].dim() == 4:
        raise KernelInputError(f"{where}: momentum: with keeps by key channel: use keeps by head or chunkwise torch")
    reason = why_not(q.shape[-1], v.shape[-1], rule.rows, q.dtype, couples=rule.couples, momentum=momentum is not None)
    if reason is not None:
        raise KernelInputError(f"{where}: {reason}")
    if rule.sweeps is not None and rule.sweeps < 0:
        raise KernelInputError(f"{where}: sweeps: {rule.sweeps}: must be 0 (frozen) or more, or None (exact)")
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
    threshold: Tensor | None = None,
    initial_state: Tensor | None = None,
    *,
    bias: Bias,
    chunk: int,
    sweeps: int | None,
    decayed: bool,
    w: Tensor | None = None,
    momentum: Tensor | None = None,
    initial_momentum: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run a matrix memory with the identity link by gradient descent, on chunks of `chunk` tokens.

    Args:
        q: queries [B, T, H, K], float32 or bfloat16; used as they are, without a scale.
        k: keys [B, N, H, K], same dtype; N is a multiple of T, the writes of a token in order.
        v: values [B, N, H, V], same dtype.
        log_keep: log of the share of the state kept, [B, T, H] or [B, T, H, K], <= 0; below -30 it counts as -30.
        step: step of the inner gradient descent, [B, N, H].
        threshold: the bias's threshold [B, N, H] or [B, N, H, V], or None where the bias reads none.
        initial_state: [B, H, K, V], or None for zeros.
        bias: the option, with a pair of jit functions.
        chunk: tokens of a chunk, up to 64 writes. With sweeps it is part of the function: sweep 0 predicts from its
            start.
        sweeps: refinements after sweep 0; 0 is the frozen gradient. None is exact: by a triangular solve where the
            signal is linear in the prediction, else by a sweep a write.
        decayed: True takes the gradient at a_t Z_{t-1}, False at Z_{t-1}.
        w: write keys [B, N, H, K] where they differ from the read keys.
        momentum: the share of the past change that stays, [B, N, H]; needs keeps one a head.
        initial_momentum: [B, H, K, V], or None for zeros.

    Returns:
        y [B, T, H, V] in the dtype of v, the final state [B, H, K, V] in float32, and the final momentum or None. A
        sequence cut at a multiple of `chunk` and continued from there gives the same outputs.

    Raises:
        KernelInputError: the shapes, dtypes, devices or settings do not fit, or a second derivative is asked for.
    """
    where = "kernels.triton.chunked"
    if q.ndim != 4:
        raise KernelInputError(f"{where}: q: {list(q.shape)}: expected [B, T, H, K]")
    if v.ndim != 4:
        raise KernelInputError(f"{where}: v: {list(v.shape)}: expected [B, N, H, V]")
    if bias.triton is None:
        raise KernelInputError(f"{where}: bias: {bias.name}: no pair of jit functions is written for it")
    if bias.threshold_scopes and threshold is None:
        raise KernelInputError(f"{where}: threshold: None: this bias reads a threshold [B, T, H]")
    B, T, H, K = q.shape
    N, V = v.shape[1], v.shape[3]
    if not T or N % T:
        raise KernelInputError(f"{where}: v: {list(v.shape)}: its writes are no multiple of {T} tokens")
    slope, couples = bias.slope, bias.couples_channels
    rule = Rule(bias.triton, slope, couples, chunk, N // T, sweeps, decayed)
    thresholds: list[tuple[int, ...]] = [(B, N, H)]
    if "value" in bias.threshold_scopes:
        thresholds.append((B, N, H, V))
    if momentum is not None and initial_state is not None and initial_momentum is None:
        initial_momentum = torch.zeros_like(initial_state)
    shapes: dict[str, tuple[Tensor | None, list[tuple[int, ...]]]] = {
        "k": (k, [(B, N, H, K)]),
        "v": (v, [(B, N, H, V)]),
        "w": (w, [(B, N, H, K)]),
        "log_keep": (log_keep, [(B, T, H), (B, T, H, K)]),
        "step": (step, [(B, N, H)]),
        "momentum": (momentum, [(B, N, H)]),
        "threshold": (threshold, thresholds),
        "initial_state": (initial_state, [(B, H, K, V)]),
        "initial_momentum": (initial_momentum, [(B, H, K, V)]),
    }
    _check(q, shapes, rule)

    def single(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.float()

    y, final, final_s, _, _ = _Chunked.apply(
        q,
        k,
        v,
        None if w is None else w.to(k.dtype),
        log_keep.float(),
        step.float(),
        single(momentum),
        single(threshold if bias.threshold_scopes else None),
        single(initial_state),
        single(initial_momentum if momentum is not None else None),
        rule.to_text(),
        torch.is_grad_enabled(),
    )
    return y, final, None if momentum is None else final_s
