"""Each preset against its paper's recurrence, written here as a plain loop from the equation, in float64.

Those with a matrix memory are in test_presets_linear.py.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

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
    "titans_lmm": deep_loop(lambda r, i, t: 2 * r, momentum=True),
    "yaad": deep_loop(yaad_signal),
    "memora": deep_loop(lambda r, i, t: r, logits=True),
}


def test_every_preset_has_a_loop() -> None:
    """In a dictionary named LOOPS of one of the files about presets."""
    found: list[str] = []
    for file in Path(__file__).parent.glob("test_presets*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.value, ast.Dict)
                and "LOOPS" in ast.unparse(node.target)
            ):
                found += [ast.literal_eval(key) for key in node.value.keys if key is not None]
    assert sorted(found) == sorted(PRESETS)


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
@pytest.mark.parametrize("name", sorted(LOOPS))
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
