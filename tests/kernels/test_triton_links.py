"""Links as jit functions: each setting's weights and gradients against the torch link and autograd."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import assert_agrees
from torch import Tensor
from triton_device import DEVICE, INTERPRETED, RUNS, poison

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from miras_search.kernels.triton.links import link_of  # noqa: E402 - they need Triton
from miras_search.kernels.triton.loop_launch import block  # noqa: E402 - they need Triton
from miras_search.space.retention import RETENTION, Retention  # noqa: E402 - they need Triton

pytestmark = RUNS
FTRL: dict[str, Any] = {"view": "ftrl", "shrink": 0.5}
DUAL: list[dict[str, Any]] = [
    *({"kl": {"slice": s, "scale": 2.0}} for s in ("column", "row", "whole")),
    {"kl": {"learned_scale": True, "scale": 2.0}},
    *({"lq": {"q": q, "reading": "dual_index"}} for q in (1.5, 2.0, 4.0, 8.0)),
    *({"lq": {"q": q, "reading": "primal_index", "over": "column"}} for q in (1.5, 4.0)),
    *({"lq": {"q": q, "reading": "literal", "over": "row"}} for q in (1.5, 2.0, 4.0)),
    *({"elastic_net": {**FTRL, "threshold": t}} for t in ("hard", "smooth", "arctan")),
    *({"elastic_net": {**FTRL, "threshold": t, "learned_shrink": True}} for t in ("hard", "smooth", "arctan")),
    *({"bregman": {"potential": p, "b": 0.5}} for p in ("logit", "tanh", "arcsinh", "entropy", "power")),
    {"bregman": {"potential": "power", "r": 1.5}},
]
PRIMAL: list[dict[str, Any]] = [
    {"elastic_net": {"threshold": t, "shrink": 0.5, "learned_shrink": t != "hard"}}
    for t in ("hard", "smooth", "arctan")
]


@triton.jit
def dual_kernel(z_ptr, d_w_ptr, parameter_ptr, w_ptr, d_z_ptr, d_parameter_ptr,
                LINK: tl.constexpr, VJP: tl.constexpr, SETTINGS: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
                BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr):  # fmt: skip
    """A link and its vjp on one tile."""
    key = tl.arange(0, BLOCK_K)
    value = tl.arange(0, BLOCK_V)
    cell = (key < K)[:, None] & (value < V)[None, :]
    inner = key[:, None] * V + value[None, :]
    z = tl.load(z_ptr + inner, mask=cell, other=0.0)
    parameter = tl.load(parameter_ptr)
    w = tl.where(cell, LINK(z, cell, parameter, SETTINGS), 0.0)
    tl.store(w_ptr + inner, w, mask=cell)
    d_w = tl.load(d_w_ptr + inner, mask=cell, other=0.0)
    d_z, d_parameter = VJP(z, w, cell, parameter, d_w, SETTINGS)
    tl.store(d_z_ptr + inner, d_z, mask=cell)
    tl.store(d_parameter_ptr, d_parameter)


@triton.jit
def primal_kernel(z_ptr, step_ptr, d_w_ptr, parameter_ptr, w_ptr, d_z_ptr, d_step_ptr, d_parameter_ptr,
                  STEP: tl.constexpr, VJP: tl.constexpr, SETTINGS: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
                  BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr):  # fmt: skip
    """A step in place and its vjp on one tile."""
    key = tl.arange(0, BLOCK_K)
    value = tl.arange(0, BLOCK_V)
    cell = (key < K)[:, None] & (value < V)[None, :]
    inner = key[:, None] * V + value[None, :]
    z = tl.load(z_ptr + inner, mask=cell, other=0.0)
    step = tl.load(step_ptr + inner, mask=cell, other=0.0)
    parameter = tl.load(parameter_ptr)
    tl.store(w_ptr + inner, STEP(z, step, cell, parameter, SETTINGS), mask=cell)
    d_w = tl.load(d_w_ptr + inner, mask=cell, other=0.0)
    d_z, d_step, d_parameter = VJP(z, step, cell, parameter, d_w, SETTINGS)
    tl.store(d_z_ptr + inner, d_z, mask=cell)
    tl.store(d_step_ptr + inner, d_step, mask=cell)
    tl.store(d_parameter_ptr, d_parameter)


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def accumulators(seed: int = 0) -> Tensor:
    """5 x 7, of all sizes, with zeros in a column and in an entry of a row."""
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(5, 7, generator=draw, dtype=torch.float64) * torch.tensor([1e-3, 1e-2, 0.1, 0.5, 1.0, 2.0, 3.0])
    z[:, 3] = 0
    z[2, 1] = 0
    return z


def static_of(gate: Retention) -> tuple[dict[str, Tensor], Tensor]:
    """The learned number, as a leaf, and by its name."""
    parameter = torch.zeros(1, 1, dtype=torch.float64)
    for _, value in gate.static().values():
        parameter = torch.full((1, 1), value + 0.1, dtype=torch.float64)
    return dict.fromkeys(gate.static(), parameter.requires_grad_()), parameter


def narrow(x: Tensor) -> Tensor:
    return x.detach().float().to(DEVICE).contiguous()


@pytest.mark.parametrize("spec", DUAL, ids=str)
def test_a_link_is_that_of_torch(spec: dict[str, Any]) -> None:
    gate = RETENTION.parse(spec)
    found = link_of(gate.triton, primal=gate.form == "primal")
    z = accumulators().requires_grad_()
    static, parameter = static_of(gate)
    w = gate.link(z, static)
    d_w = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = (z, parameter) if static else (z,)
    gradients = torch.autograd.grad((w * d_w).sum(), given)
    outputs = [torch.empty(shape, device=DEVICE) for shape in ((5, 7), (5, 7), (1, 1))]
    dual_kernel[(1,)](
        narrow(z), narrow(d_w), narrow(parameter), *outputs, LINK=found.forward, VJP=found.backward,
        SETTINGS=found.settings, K=5, V=7, BLOCK_K=block(5), BLOCK_V=block(7),
    )  # fmt: skip
    expected = dict(zip(("w", "d_z", "d_parameter"), (w.detach(), *gradients), strict=False))
    assert_agrees(dict(zip(expected, outputs, strict=False)), expected, 2e-6)


@pytest.mark.parametrize("spec", PRIMAL, ids=str)
def test_a_step_in_place_is_that_of_torch(spec: dict[str, Any]) -> None:
    gate = RETENTION.parse(spec)
    found = link_of(gate.triton, primal=gate.form == "primal")
    z = accumulators().requires_grad_()
    step = (accumulators(2) * 0.1 + 0.5).requires_grad_()
    static, parameter = static_of(gate)
    w = gate.step(z, torch.ones(1, 1), torch.zeros(1, 1), step, static)
    d_w = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = (z, step, parameter) if static else (z, step)
    gradients = torch.autograd.grad((w * d_w).sum(), given)
    outputs = [torch.empty(shape, device=DEVICE) for shape in ((5, 7), (5, 7), (5, 7), (1, 1))]
    primal_kernel[(1,)](
        narrow(z), narrow(step), narrow(d_w), narrow(parameter), *outputs, STEP=found.forward, VJP=found.backward,
        SETTINGS=found.settings, K=5, V=7, BLOCK_K=block(5), BLOCK_V=block(7),
    )  # fmt: skip
    expected = dict(zip(("w", "d_z", "d_step", "d_parameter"), (w.detach(), *gradients), strict=False))
    assert_agrees(dict(zip(expected, outputs, strict=False)), expected, 2e-6)


def test_every_gate_with_a_link_or_a_threshold_has_its_functions() -> None:
    """All of the package but the divergences, whose multiplier has to be searched for."""
    gates = {name: cls() for name, cls in RETENTION.options.items()}
    without = {name for name, gate in gates.items() if gate.triton is None}
    assert without == {"none", "l2", "f_divergence"}
    for name in gates.keys() - without:
        link_of(gates[name].triton, primal=gates[name].form == "primal")


PLUGIN = '''
from dataclasses import dataclass

import triton
import triton.language as tl

from miras_search.space.fields import setting
from miras_search.space.jit import Jit
from miras_search.space.retention import RETENTION


@triton.jit
def link(z, cell, parameter, SETTINGS: tl.constexpr):
    return z / (1 + SETTINGS[0] * z * z)


@triton.jit
def link_vjp(z, w, cell, parameter, d_w, SETTINGS: tl.constexpr):
    s = SETTINGS[0] * z * z
    return d_w * (1 - s) / ((1 + s) * (1 + s)), 0.0


@RETENTION.register
@dataclass(frozen=True, slots=True)
class Rational:
    """Large accumulators are read as small weights."""

    name = "rational"
    equation = "W = Z / (1 + c Z^2)"

    c: float = setting(0.5, "how soon")

    def link(self, dual, static):
        return dual / (1 + self.c * dual.square())

    @property
    def triton(self):
        return Jit(__name__, (self.c,))
'''

USE = """
from pathlib import Path
import torch
from loops import as_dtype, assert_agrees, given, outputs_and_gradients
from miras_search.kernels import recurrence
from miras_search.kernels.triton.loop_run import loop_refuses, run_loop
from miras_search.space import plugins
from miras_search.space.design import DesignPoint

plugins.use(plugins.find(["my_gate"], Path(".")))
point = DesignPoint.parse({"retention": {"rational": {"c": 0.25}}})
assert loop_refuses(point, 3, 5, torch.float32) is None
x = given(point, 3, heads=1)
expected = outputs_and_gradients(recurrence.run, point, x)
assert_agrees(outputs_and_gradients(run_loop, point, as_dtype(x, torch.float32)), expected, 1e-5)
"""


@pytest.mark.skipif(not INTERPRETED, reason="it is about where functions are found, not about a device")
def test_a_users_gate_with_functions_of_its_own_runs(tmp_path: Path) -> None:
    """In a process of its own: plugins are one set at a time."""
    (tmp_path / "my_gate.py").write_text(PLUGIN)
    support = Path(__file__).parents[1] / "support"
    code = f"import sys; sys.path.insert(0, {str(support)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
