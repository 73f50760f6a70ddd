"""Each preset against its paper's recurrence, written here as a plain loop from the equation, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from memories import Case, case, evaluate, worst
from torch import Tensor
from torch.nn import functional

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.state import State
from miras_search.space.control import Inputs
from miras_search.space.presets import PRESETS, preset

Found = tuple[list[Tensor], list[tuple[Tensor, ...]]]  # outputs; final accumulators and momenta
Loop = Callable[[Inputs, tuple[Tensor, ...], dict[str, Tensor]], Found]


def matrix_loop(update: Callable[[Tensor, Inputs, int], Tensor]) -> Loop:
    """S per batch and head [B,H,K,V]; `update` is the paper's rule for one token."""

    def loop(inputs: Inputs, start: tuple[Tensor, ...], static: dict[str, Tensor]) -> Found:
        s = start[0].expand(inputs.q.shape[0], *start[0].shape)
        outputs = []
        for t in range(inputs.q.shape[1]):
            s = update(s, inputs, t)
            outputs.append(torch.einsum("bhk,bhkv->bhv", inputs.q[:, t], s))
        return outputs, [(s,)]

    return loop


def outer(k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhk,bhv->bhkv", k, v)


def erase(k: Tensor, beta: Tensor) -> Tensor:
    """I - b k^T k."""
    eye = torch.eye(k.shape[-1], dtype=k.dtype)
    return eye - beta[..., None, None] * outer(k, k)


def linear_attention(s: Tensor, i: Inputs, t: int) -> Tensor:
    return s + i.step[:, t, :, None, None] * outer(i.k[:, t], i.v[:, t])


def delta_net(s: Tensor, i: Inputs, t: int) -> Tensor:
    b = i.step[:, t]
    return erase(i.k[:, t], b) @ s + b[..., None, None] * outer(i.k[:, t], i.v[:, t])


def gated_delta_net(s: Tensor, i: Inputs, t: int) -> Tensor:
    b, a = i.step[:, t], i.log_keep[:, t].exp()
    return a[..., None, None] * (erase(i.k[:, t], b) @ s) + b[..., None, None] * outer(i.k[:, t], i.v[:, t])


def delta_product(s: Tensor, i: Inputs, t: int) -> Tensor:
    s = i.log_keep[:, t].exp()[..., None, None] * s
    for j in range(2):
        n = 2 * t + j
        b = i.step[:, n]
        s = erase(i.k[:, n], b) @ s + b[..., None, None] * outer(i.k[:, n], i.v[:, n])
    return s


def memory(x: Tensor, w: tuple[Tensor, Tensor]) -> Tensor:
    """x + LN(GELU(x W_0) W_1), heads apart: x [B,H,K]."""
    y = torch.einsum("bhe,bhev->bhv", functional.gelu(torch.einsum("bhk,bhke->bhe", x, w[0])), w[1])
    centred = y - y.mean(-1, keepdim=True)
    return x + centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)


def deep_loop(signal: Callable[[Tensor, Inputs, int], Tensor], *, momentum: bool = False, logits: bool = False) -> Loop:
    """The 2-layer memories of Titans and Miras, gradients frozen at the start of each chunk of 16 (Miras, Eq. 28).

    `signal(residual, inputs, t)` is dl/dM(k); the weights' gradients come from autograd of <signal, M(k; W)>.
    """

    def loop(inputs: Inputs, start: tuple[Tensor, ...], static: dict[str, Tensor]) -> Found:
        z = tuple(x.expand(inputs.q.shape[0], *x.shape) for x in start)
        s = tuple(torch.zeros_like(x) for x in z)

        def weights(z: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            a, b = (torch.softmax(x, -2) for x in z) if logits else z
            return a, b

        outputs, anchor = [], z
        for t in range(inputs.q.shape[1]):
            if t % 16 == 0:
                anchor = z
            at = weights(anchor)
            if not at[0].requires_grad:
                at = (at[0].detach().requires_grad_(), at[1].detach().requires_grad_())
            prediction = memory(inputs.k[:, t], at)
            u = signal(prediction - inputs.v[:, t], inputs, t)
            # <u, M(k; W)> with u held: a dummy u differentiated afterwards keeps the outer graph through u
            probe = torch.zeros_like(prediction, requires_grad=True)
            pulled = torch.autograd.grad((prediction * probe).sum(), at, create_graph=True)
            gradient = [_pull(x, probe, u) for x in pulled]
            e, a = inputs.step[:, t, :, None, None], inputs.log_keep[:, t, :, None, None].exp()
            change = tuple(-e * g for g in gradient)
            if momentum and inputs.momentum is not None:
                s = change = tuple(inputs.momentum[:, t, :, None, None] * x + c for x, c in zip(s, change, strict=True))
            z = tuple(a * x + c for x, c in zip(z, change, strict=True))
            outputs.append(memory(inputs.q[:, t], weights(z)))
        return outputs, [z, s] if momentum else [z]

    return loop


def _pull(linear_in_probe: Tensor, probe: Tensor, u: Tensor) -> Tensor:
    """A function linear in the probe, evaluated at probe = u: its Jacobian-vector product with u (double backward)."""
    cotangent = torch.zeros_like(linear_in_probe, requires_grad=True)
    (transposed,) = torch.autograd.grad((linear_in_probe * cotangent).sum(), probe, create_graph=True)
    (result,) = torch.autograd.grad((transposed * u).sum(), cotangent, create_graph=True)
    return result


def yaad_signal(r: Tensor, i: Inputs, t: int) -> Tensor:
    assert i.threshold is not None
    d = i.threshold[:, t, :, None]
    return torch.where(r.norm(dim=-1, keepdim=True) <= d, r, d * torch.sign(r))


LOOPS: dict[str, Loop] = {
    "linear_attention": matrix_loop(linear_attention),
    "delta_net": matrix_loop(delta_net),
    "gated_delta_net": matrix_loop(gated_delta_net),
    "delta_product": matrix_loop(delta_product),
    "titans_lmm": deep_loop(lambda r, i, t: 2 * r, momentum=True),
    "yaad": deep_loop(yaad_signal),
    "memora": deep_loop(lambda r, i, t: r, logits=True),
}


def test_every_preset_has_a_loop() -> None:
    assert set(LOOPS) == set(PRESETS)


def expected_of(name: str, given: Case) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and final accumulators (and momenta) of the paper's loop, and their gradients."""

    def run(
        point: object, inputs: Inputs, start: tuple[Tensor, ...], static: dict[str, Tensor]
    ) -> tuple[Tensor, State]:
        outputs, finals = LOOPS[name](inputs, start, static)
        return torch.stack(outputs, 1), State(finals[0], (finals[1],) if len(finals) > 1 else ())

    return evaluate(run, preset(name), given)[:2]


@pytest.mark.parametrize(
    "implementation", [recurrence.run, chunkwise.run, dispatch.run], ids=["recurrence", "chunkwise", "dispatch"]
)
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_is_its_papers_recurrence(name: str, implementation: Callable[..., tuple[Tensor, State]]) -> None:
    point = preset(name)
    given = case(point, tokens=19, seed=3, key_dim=4, value_dim=6)

    def only_running(*arguments: object) -> tuple[Tensor, State]:
        y, state = implementation(*arguments)  # the paper's loop has no notion of tower and position
        return y, state._replace(start=(), tower=(), tangent=())

    expected, expected_gradients = expected_of(name, given)
    found, gradients, _ = evaluate(only_running, point, given)
    assert worst(found, expected) < 1e-10
    assert worst(gradients, expected_gradients) < 1e-10
