"""Chunks of a memory with one hidden layer under frozen gradients, forward and backward by hand.

A hidden layer is several times as wide as what goes in and out, so nearly all time goes into products and passes of its
width. Autograd over a chunk makes some four hundred operators, many of them such passes; here are the fewest there are.
What is as wide as a value (norm, residual, bias) stays with autograd, option by option. The formulas: docs/kernels.md.

Legend: n chunks, G memories (batch times heads), C tokens and N writes a chunk, K, E, V widths of key, hidden layer and
value, m parts of a state: Z alone, or Z over the surprise S. Tensors of all chunks are [n,G,..], those of one [G,..].
The second layer's weights are held transposed, so that a state of either layer is parts of [G,rows,E].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function

from miras_search.errors import MirasError
from miras_search.kernels import recording
from miras_search.kernels.feedback import kept, parted
from miras_search.kernels.recurrence import SIGNAL_LIMIT
from miras_search.kernels.vmap import VmapInfo, folded
from miras_search.space.bias import Bias
from miras_search.space.memory import Hidden
from miras_search.space.memory.finish import Place
from miras_search.space.smooth import DERIVATIVES

Gradient = Tensor | None
Parameters = dict[str, Tensor]  # [G,1,d]


class SecondDerivativeError(MirasError):
    """A gradient of gradients was asked for, which the backward by hand does not have."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is no tensor."""

    hidden: Hidden
    bias: Bias
    names: tuple[str, ...]  # of the static parameters
    save: bool  # whether anybody may ask for gradients
    apart: bool  # whether each chunk's results are tensors of their own, not rows of one for all


class Given(NamedTuple):
    """The inputs of all chunks."""

    q: Tensor  # [n,G,C,K]
    k: Tensor  # [n,G,N,K]
    v: Tensor  # [n,G,N,V]
    threshold: Tensor | None  # [n,G,N,1]
    reach: Tensor | None  # [n,G,C,m] what each token reads of the parts of its chunk's start; None: all of Z
    asked: Tensor | None  # [n,G,C,m*K] its query times that; None: the query
    writes: Tensor  # [n,G,C,N] what each token reads of each write
    shares: Tensor  # [n,G,N,m] what the parts of the end have of each write
    written: Tensor  # [n,G,N,m*K] its key times that
    keep: Tensor | None  # [n,G,m,m] mixes the parts of a start into those of the end; None: everything is kept
    first: Tensor  # [1,G,m*K,E] the first layer before the first chunk
    second: Tensor  # [1,G,m*V,E] the second, transposed

    def chunks(self) -> list[Given]:
        """Each chunk's, [G,..]; where the first one starts stays what it is."""
        count = len(self.k)
        rows = zip(*([None] * count if x is None else x.unbind() for x in self[:-2]), strict=True)
        return [Given._make((*row, *self[-2:])) for row in rows]


class Saved(NamedTuple):
    """What the backward needs of each chunk: of all of them, or without the first axis of one."""

    first: Tensor  # [n,G,m*K,E] its start
    second: Tensor  # [n,G,m*V,E]
    h: Tensor  # [n,G,N,E] hidden layer s(a) of the keys
    slope: Tensor  # s'(a)
    bent: Tensor  # s''(a) times the signal at s(a)
    d: Tensor  # signal at a, descending and limited
    out: Tensor  # [n,G,N,V] output layer of the keys, before it is finished
    mean: Tensor  # [n,G,N,1] of that, where it is normed
    rate: Tensor
    u: Tensor  # signal there, descending
    b: Tensor  # [n,G,C,E] hidden layer of the queries before s
    g: Tensor  # and after
    keys: Tensor  # [n,G,C,N] overlaps q k^T
    hiddens: Tensor  # overlaps g h^T
    seen: Tensor  # [n,G,C,m*V] what the queries read of the start's parts

    def chunks(self) -> list[Saved]:
        """Each chunk's, [G,..]."""
        return [Saved(*row) for row in zip(*(x.unbind() for x in self), strict=True)]


class _Rows:
    """Where results of the shape of a tensor are put, row by row."""

    def __init__(self, like: Tensor, *, apart: bool) -> None:
        self._whole = None if apart else torch.empty_like(like)
        self.each = [torch.empty_like(x) for x in like.unbind()] if self._whole is None else self._whole.unbind()

    def joined(self) -> Tensor:
        """All rows as one tensor, once they are filled."""
        return torch.stack(tuple(self.each)) if self._whole is None else self._whole


def run(given: Given, static: dict[str, Tensor], hidden: Hidden, bias: Bias) -> tuple[Tensor, Tensor, Tensor]:
    """The output layer's reads [n,G,C,V], not finished yet, and the states [1,G,..] after the last chunk.

    static: parameters [1,G,1,d]. Second derivatives raise `SecondDerivativeError`.
    """
    rule = Rule(hidden, bias, tuple(static), torch.is_grad_enabled(), recording.on())
    y, first, second, *_ = _Chunks.apply(rule, *given, *static.values())  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return y, first, second


def weighed(weights: Tensor, x: Tensor) -> Tensor:
    """x [..,N,V] as every part weighs it: [..,N,m] times that is [..,N,m*V]."""
    if weights.shape[-1] == 1:
        return weights * x
    return (weights.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def _by_part(x: Tensor, parts: int) -> Tensor:
    """[G,N,m*V] -> [G,N,m,V]."""
    return x.view(*x.shape[:-1], parts, -1)


def _buffers(given: Given, *rows: int) -> Saved:
    """Room for so many chunks, or for one without an axis for it."""
    like, (tokens, writes) = given.second, given.writes.shape[-2:]
    values, hidden = given.v.shape[-1], like.shape[-1]

    def empty(*shape: int) -> Tensor:
        return like.new_empty(*rows, like.shape[1], *shape)

    return Saved(
        first=empty(*given.first.shape[2:]),
        second=empty(*given.second.shape[2:]),
        h=empty(writes, hidden),
        slope=empty(writes, hidden),
        bent=empty(writes, hidden),
        d=empty(writes, hidden),
        out=empty(writes, values),
        mean=empty(writes, 1),
        rate=empty(writes, 1),
        u=empty(writes, values),
        b=empty(tokens, hidden),
        g=empty(tokens, hidden),
        keys=empty(tokens, writes),
        hiddens=empty(tokens, writes),
        seen=empty(tokens, given.second.shape[2]),
    )


def _room(rule: Rule, given: Given, chunks: int) -> tuple[list[Saved], Saved | None]:
    """Each chunk's room, and the whole that it is a row of, if it is."""
    if not rule.save:
        return [_buffers(given)] * chunks, None  # all chunks share one
    if rule.apart:
        return [_buffers(given) for _ in range(chunks)], None
    whole = _buffers(given, chunks)
    return whole.chunks(), whole


def _to_save(rule: Rule, room: list[Saved], whole: Saved | None) -> tuple[Tensor, ...]:
    """What is handed to the backward, chunks first: of all of them, or one after the other."""
    if whole is not None:
        return whole
    return tuple(x.unsqueeze(0) for one in room for x in one) if rule.save else ()


def _saved(rule: Rule, tensors: Sequence[Tensor]) -> tuple[list[Saved], Saved | None]:
    """As `_room` had them, of the tensors that `_to_save` gave."""
    size = len(Saved._fields)
    if rule.apart:
        return [Saved(*(x.squeeze(0) for x in tensors[i : i + size])) for i in range(0, len(tensors), size)], None
    whole = Saved(*tensors)
    return whole.chunks(), whole


def _signal(rule: Rule, to: Saved, x: Given, static: Parameters) -> Tensor:
    """The gradient of the loss of finish(out): the bias's signal, pulled back."""
    place = rule.hidden.finish.at(to.out, static)
    if place.mean is not None and place.rate is not None:
        to.mean.copy_(place.mean)
        to.rate.copy_(place.rate)
    return place.pulled(rule.bias.signal(place.value(x.k), x.v, x.threshold))


class _Signals(NamedTuple):
    """What the derivative of a chunk's signals needs; all that does not depend on later chunks."""

    place: Place
    g: Tensor  # [G,N,V] the bias's own signal
    along: Tensor
    pulled: Tensor
    slopes: tuple[Tensor, ...] | None  # of it in the prediction, v and the threshold, channel by channel

    @classmethod
    def of(
        cls, rule: Rule, given: Given, saved: Sequence[Saved], whole: Saved | None, static: Parameters
    ) -> list[_Signals]:
        """Each chunk's, found for all at once: these tensors are small, and calls cost more than what they do."""
        out, mean, rate, u = (
            torch.stack([getattr(one, name) for one in saved]) if whole is None else getattr(whole, name)
            for name in ("out", "mean", "rate", "u")
        )
        place = rule.hidden.finish.again(out, mean, rate, static)
        threshold, coupled = given.threshold, rule.bias.couples_channels
        if threshold is not None and not coupled:
            threshold = threshold.expand_as(given.v)
        leaves = _leaves(place.value(given.k), given.v, threshold)
        g, slopes = _own_signal(rule.bias, leaves), None
        along, pulled = place.along(g.detach()), -u
        if not coupled:
            slopes = zip(*(x.unbind() for x in _pulled_back(g, leaves, torch.ones_like(g))), strict=True)
        rows = zip(place.unbind(), g.detach().unbind(), along.unbind(), pulled.unbind(), strict=True)
        return [cls(*row, None if slopes is None else next(slopes)) for row in rows]


def _leaves(value: Tensor, v: Tensor, threshold: Tensor | None) -> list[Tensor]:
    """The bias's inputs, apart from what made them."""
    return [t.detach().requires_grad_() for t in (value, v, threshold) if t is not None]


def _own_signal(bias: Bias, leaves: Sequence[Tensor]) -> Tensor:
    with torch.enable_grad():  # only the bias, whatever it is
        return bias.signal(leaves[0], leaves[1], leaves[2] if len(leaves) > 2 else None)


def _pulled_back(g: Tensor, leaves: Sequence[Tensor], gradient: Tensor) -> Sequence[Tensor]:
    if not g.requires_grad:  # a signal of steps alone: its derivative is zero
        return [torch.zeros_like(t) for t in leaves]
    return torch.autograd.grad(g, leaves, gradient, allow_unused=True, materialize_grads=True)


def _signal_back(
    rule: Rule, signals: _Signals, x: Given, gradient: Tensor
) -> tuple[Tensor, Sequence[Tensor], Parameters]:
    """From the gradient of -u those of out; of the prediction, v and the threshold; and of the parameters."""
    place = signals.place
    of_g, of_out = place.bent(signals.along, signals.pulled, gradient)
    found: Sequence[Tensor]
    if signals.slopes is None:
        leaves = _leaves(place.value(x.k), x.v, x.threshold)
        found = _pulled_back(_own_signal(rule.bias, leaves), leaves, of_g)
    else:
        found = [slope * of_g for slope in signals.slopes]
    return of_out.add_(place.pulled(found[0])), found, place.parameters(found[0], signals.g, gradient)


def _forward(rule: Rule, given: Given, static: Parameters) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    f, chunks = DERIVATIVES[rule.hidden.activation], given.k.shape[0]
    room, whole = _room(rule, given, chunks)
    reads = _Rows(given.v.new_empty(*given.q.shape[:3], given.v.shape[3]), apart=rule.apart)
    ends = torch.empty_like(given.first[0]), torch.empty_like(given.second[0])
    room[0].first.copy_(given.first[0])
    room[0].second.copy_(given.second[0])
    wide, square = torch.empty_like(room[0].h), torch.empty_like(room[0].keys)
    every = zip(given.chunks(), room, [*((to.first, to.second) for to in room[1:]), ends], reads.each, strict=True)
    for x, to, (first, second), read in every:
        z1, z2 = to.first[:, : x.k.shape[2]], to.second[:, : x.v.shape[2]]
        # the signals, all at the chunk's start
        f.jet(torch.bmm(x.k, z1, out=wide), to.h, to.slope, to.bent)
        torch.bmm(to.h, _transposed(z2), out=to.out)
        torch.neg(_signal(rule, to, x, static), out=to.u)
        to.bent.mul_(torch.bmm(to.u, z2, out=wide))
        torch.mul(wide, to.slope, out=to.d).clamp_(-SIGNAL_LIMIT, SIGNAL_LIMIT)
        u = to.u.clamp(-SIGNAL_LIMIT, SIGNAL_LIMIT)
        # the reads, of the start and of the writes so far
        torch.bmm(x.q, _transposed(x.k), out=to.keys)
        torch.bmm(x.q if x.asked is None else x.asked, to.first, out=to.b)
        to.b.baddbmm_(torch.mul(x.writes, to.keys, out=square), to.d)
        f.fill(to.b, to.g)
        torch.bmm(to.g, _transposed(to.h), out=to.hiddens)
        torch.bmm(to.g, _transposed(to.second), out=to.seen)
        start = to.seen if x.reach is None else (x.reach.unsqueeze(-1) * _by_part(to.seen, x.reach.shape[-1])).sum(-2)
        torch.baddbmm(start, torch.mul(x.writes, to.hiddens, out=square), u, out=read)
        # the end
        torch.baddbmm(kept(x.keep, to.first), _transposed(x.written), to.d, out=first)
        torch.baddbmm(kept(x.keep, to.second), _transposed(weighed(x.shares, u)), to.h, out=second)
    return reads.joined(), ends[0].unsqueeze(0), ends[1].unsqueeze(0), _to_save(rule, room, whole)


def _backward(
    rule: Rule,
    given: Given,
    static: Parameters,
    saved: Sequence[Saved],
    whole: Saved | None,
    reads: Gradient,
    first: Gradient,
    second: Gradient,
) -> tuple[Given, Parameters]:
    """The gradients of what is given, from those of the reads and of the states after the last chunk."""
    f, parts = DERIVATIVES[rule.hidden.activation], given.shares.shape[-1]
    keys, values = given.k.shape[3], given.v.shape[3]
    found = [None if x is None else _Rows(x, apart=rule.apart) for x in given[:-2]]
    room = zip(*([None] * len(given.k) if rows is None else rows.each for rows in found), strict=True)
    of_static = {name: torch.zeros_like(x) for name, x in static.items()}
    if reads is None:
        reads = given.v.new_zeros(*given.q.shape[:3], values)
    d_first = torch.zeros_like(given.first[0]) if first is None else first[0].clone()
    d_second = torch.zeros_like(given.second[0]) if second is None else second[0].clone()
    signals = _Signals.of(rule, given, saved, whole, static)
    targets = [Given._make((*row, *given[-2:])) for row in room]
    every = [*zip(given.chunks(), targets, saved, signals, reads.unbind(), strict=True)]
    dd, dh, da = (torch.empty_like(saved[0].h) for _ in range(3))
    db, overlap, square = (torch.empty_like(x) for x in (saved[0].b, saved[0].keys, saved[0].keys))
    for x, to, s, at, d_read in reversed(every):
        u = s.u.clamp(-SIGNAL_LIMIT, SIGNAL_LIMIT)
        z1, z2 = s.first[:, :keys], s.second[:, :values]
        # the end
        torch.bmm(s.d, _transposed(d_first), out=to.written)
        torch.bmm(x.written, d_first, out=dd)
        wide = torch.bmm(s.h, _transposed(d_second))
        torch.bmm(weighed(x.shares, u), d_second, out=dh)
        by_part = _by_part(wide, parts)
        torch.linalg.vecdot(by_part, u.unsqueeze(-2), out=to.shares)
        du = wide * x.shares if parts == 1 else (by_part * x.shares.unsqueeze(-1)).sum(-2)
        if x.keep is not None and to.keep is not None:
            pairs = ((d_first, s.first), (d_second, s.second))
            one, other = (parted(d, x.keep) @ _transposed(parted(start, x.keep)) for d, start in pairs)
            torch.add(one, other, out=to.keep)
            d_first, d_second = (kept(_transposed(x.keep), d) for d in (d_first, d_second))
        # the reads of the second layer
        d_start = d_read
        if x.reach is not None and to.reach is not None:
            torch.linalg.vecdot(_by_part(s.seen, parts), d_read.unsqueeze(-2), out=to.reach)
            d_start = weighed(x.reach, d_read)
        torch.bmm(d_read, _transposed(u), out=overlap)
        du.baddbmm_(_transposed(torch.mul(x.writes, s.hiddens, out=square)), d_read)
        torch.mul(overlap, s.hiddens, out=to.writes)
        overlap.mul_(x.writes)
        dh.baddbmm_(_transposed(overlap), s.g)
        d_second.baddbmm_(_transposed(d_start), s.g)
        f.pull(torch.bmm(d_start, s.second, out=db).baddbmm_(overlap, s.h), s.b)
        # and of the first
        torch.bmm(db, _transposed(s.d), out=overlap)
        dd.baddbmm_(_transposed(torch.mul(x.writes, s.keys, out=square)), db)
        to.writes.addcmul_(overlap, s.keys)
        overlap.mul_(x.writes)
        torch.bmm(overlap, x.k, out=to.q)
        torch.bmm(_transposed(overlap), x.q, out=to.k)
        if x.asked is not None and to.asked is not None:
            torch.bmm(db, _transposed(s.first), out=to.asked)
        else:
            to.q.baddbmm_(db, _transposed(s.first))
        d_first.baddbmm_(_transposed(x.q if x.asked is None else x.asked), db)
        # the signals
        torch.ops.aten.hardtanh_backward.grad_input(dd, s.d, -SIGNAL_LIMIT, SIGNAL_LIMIT, grad_input=dd)
        torch.mul(dd, s.bent, out=da)
        back = dd.mul_(s.slope)
        du = torch.ops.aten.hardtanh_backward(du, s.u, -SIGNAL_LIMIT, SIGNAL_LIMIT)
        du.baddbmm_(back, _transposed(z2))
        d_out, (d_value, *others), d_static = _signal_back(rule, at, x, du.neg_())
        dh.baddbmm_(d_out, z2)
        d_second[:, :values].baddbmm_(_transposed(s.u), back).baddbmm_(_transposed(d_out), s.h)
        da.addcmul_(dh, s.slope)
        to.k.baddbmm_(da, _transposed(z1))
        if rule.hidden.finish.residual:
            to.k.add_(d_value)
        for target, one in zip((to.v, to.threshold), others, strict=False):  # the threshold where there is one
            if target is not None:
                target.copy_(one.sum_to_size(target.shape))
        for name, one in d_static.items():
            of_static[name].add_(one)
        d_first[:, :keys].baddbmm_(_transposed(x.k), da)
    joined = (None if rows is None else rows.joined() for rows in found)
    return Given._make((*joined, d_first.unsqueeze(0), d_second.unsqueeze(0))), of_static


def _grouped(rule: Rule, tensors: Sequence[Tensor | None]) -> tuple[Given, Parameters]:
    """What is given, and the static parameters behind it without the axis for chunks."""
    own = len(Given._fields)
    static = {name: x[0] for name, x in zip(rule.names, tensors[own:], strict=True) if x is not None}
    return Given(*tensors[:own]), static  # type: ignore[arg-type]  # as they came


class _Chunks(Function):
    """`_forward`. What it saves are outputs: functorch's transforms know no other place for it."""

    @staticmethod
    def forward(rule: Rule, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        *found, saved = _forward(rule, *_grouped(rule, tensors))
        return *found, *saved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)  # or there were zeros for all that is saved
        ctx.mark_non_differentiable(*output[3:])
        ctx.rule, ctx.count = inputs[0], len(inputs) - 1
        ctx.save_for_backward(*inputs[1:], *output[3:])

    @staticmethod
    def backward(ctx: Any, reads: Gradient, first: Gradient, second: Gradient, *_: Gradient) -> tuple[Gradient, ...]:
        tensors = ctx.saved_tensors
        found = iter(_Backward.apply(ctx.rule, reads, first, second, *tensors))  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return None, *(None if x is None else next(found) for x in tensors[: ctx.count])

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[int | None, ...], *args: object) -> Any:
        return folded(_Chunks.apply, info, in_dims, args, axis=1)


class _Backward(Function):
    """`_backward`, a function of its own because vmap hands batched tensors to it too."""

    @staticmethod
    def forward(
        rule: Rule, reads: Gradient, first: Gradient, second: Gradient, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        count = len(Given._fields) + len(rule.names)
        saved, whole = _saved(rule, [x for x in tensors[count:] if x is not None])
        found, of_static = _backward(rule, *_grouped(rule, tensors[:count]), saved, whole, reads, first, second)
        return *(x for x in found if x is not None), *(x.unsqueeze(0) for x in of_static.values())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing: there is no second derivative."""

    @staticmethod
    def backward(ctx: Any, *gradients: Gradient) -> NoReturn:
        raise SecondDerivativeError(
            "kernels.hidden_chunks: second derivatives are not written; kernels.recurrence has them"
        )

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[int | None, ...], *args: object) -> Any:
        return folded(_Backward.apply, info, in_dims, args, axis=1)
