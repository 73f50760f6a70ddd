"""Every bias's pair of jit functions against its torch signal and autograd, in float64."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from triton_device import DEVICE, RUNS

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from miras_search.kernels.triton.signals import pair_of  # noqa: E402 - they need Triton
from miras_search.space.bias import BIAS  # noqa: E402 - they need Triton

pytestmark = RUNS
V = 13  # in tiles of 16: padding must not reach the channels
SPECS: list[object] = [
    *BIAS.options,
    {"l2": {"scale": "full"}},
    *({"l1": {"smoothing": how}} for how in ("epsilon", "tanh")),
    {"lp": {"p": 3.0, "scale": "paper"}},
    {"lp": {"p": 1.0}},
    {"lp": {"smoothing": "tanh"}},
    {"lp": {"p": 3.0, "smoothing": "tanh", "sharpness": 4.0}},
    *({"huber": {"form": form}} for form in ("coordinate", "norm", "pseudo", "pseudo_norm", "switch")),
]


@triton.jit
def apply(
    p_ptr, v_ptr, threshold_ptr, d_u_ptr, u_ptr, d_p_ptr, d_v_ptr, d_threshold_ptr,
    V: tl.constexpr, WIDTH: tl.constexpr, SIGNAL: tl.constexpr, VJP: tl.constexpr, SETTINGS: tl.constexpr,
):  # fmt: skip
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    channel = column < V
    cell = channel & (row < 16)
    at = row * V + column
    p = tl.load(p_ptr + at, mask=cell, other=0.0)
    v = tl.load(v_ptr + at, mask=cell, other=0.0)
    d_u = tl.load(d_u_ptr + at, mask=cell, other=0.0)
    threshold = tl.load(threshold_ptr + row) if WIDTH == 1 else tl.load(threshold_ptr + at, mask=cell, other=0.0)
    tl.store(u_ptr + at, SIGNAL(p, v, threshold, channel, SETTINGS), mask=cell)
    d_p, d_v, d_threshold = VJP(p, v, threshold, d_u, channel, SETTINGS)
    tl.store(d_p_ptr + at, d_p, mask=cell)
    tl.store(d_v_ptr + at, d_v, mask=cell)
    tl.store(d_threshold_ptr + at, d_threshold, mask=cell)


def test_every_option_names_a_pair() -> None:
    assert all(BIAS.parse(name).triton is not None for name in BIAS.options)


@pytest.mark.parametrize(
    ("spec", "width"),
    [
        pytest.param(spec, width, id=f"{json.dumps(spec)}-{width}")
        for spec in SPECS
        for width in ([1, V] if "value" in BIAS.parse(spec).threshold_scopes else [1])
    ],
)
def test_pairs_are_the_torch_signals(spec: object, width: int) -> None:
    bias = BIAS.parse(spec)
    gen = torch.Generator().manual_seed(0)
    p, v, d_u = (torch.randn(16, V, generator=gen) for _ in range(3))
    p[3], v[3] = 1e-4 * p[3], 1e-4 * v[3]  # where smooth forms differ from their asymptotes
    v[4] = p[4]  # no residual at all
    threshold = torch.rand(16, width, generator=gen) * (2 * V**0.5 if bias.couples_channels else 1.5)
    assert bias.triton is not None
    pair = pair_of(bias.triton)
    u, *grads = (torch.full((16, V), torch.nan, device=DEVICE) for _ in range(4))
    apply[(1,)](
        *(x.to(DEVICE) for x in (p, v, threshold, d_u)), u, *grads,
        V=V, WIDTH=width, SIGNAL=pair.signal, VJP=pair.vjp, SETTINGS=pair.settings,
    )  # fmt: skip
    leaves = [x.double().requires_grad_() for x in (p, v, threshold)]
    expected = bias.signal(leaves[0], leaves[1], leaves[2] if bias.threshold_scopes else None)
    wanted: list[Tensor | None] = [None] * 3
    if expected.requires_grad:
        wanted = list(torch.autograd.grad((expected * d_u.double()).sum(), leaves, allow_unused=True))
    if width == 1:
        grads[2] = grads[2].sum(1, keepdim=True)
    torch.testing.assert_close(u.cpu().double(), expected.detach(), rtol=1e-5, atol=1e-6)
    for found, want, leaf in zip(grads, wanted, leaves, strict=True):
        want = torch.zeros_like(leaf) if want is None else want
        scale = float(want.abs().max()) + 1.0  # a cusp smoothed by 1e-6 has slopes of a thousand
        torch.testing.assert_close(found.cpu().double(), want, rtol=1e-5, atol=1e-6 * scale)
