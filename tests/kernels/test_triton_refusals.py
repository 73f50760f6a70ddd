"""What the chunked Triton kernel refuses, by name and with the cure; and that nothing loads triton unasked."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from triton_device import DEVICE, RUNS

from miras_search.kernels.triton.autograd import chunked
from miras_search.kernels.triton.launch import KernelInputError
from miras_search.space.bias import L2, Huber, Kl

pytestmark = RUNS


class PairlessBias:
    """As a user's bias is that says nothing of Triton."""

    name = "pairless"
    triton = None


def call(
    T: int = 4, K: int = 12, V: int = 20, dtype: torch.dtype = torch.float32, **changes: object
) -> tuple[Tensor, Tensor]:
    """The kernel on inputs of ones, with arguments replaced."""

    def ones(*shape: int) -> Tensor:
        return torch.ones(*shape, dtype=dtype, device=DEVICE)

    given: dict[str, object] = {
        "q": ones(1, T, 2, K),
        "k": ones(1, T, 2, K),
        "v": ones(1, T, 2, V),
        "log_keep": -ones(1, T, 2),
        "step": ones(1, T, 2),
        "threshold": None,
        "initial_state": None,
        "bias": L2(),
        "chunk": 16,
        "sweeps": 1,
        "decayed": False,
    }
    return chunked(**(given | changes))[:2]


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        ({"q": torch.zeros(1, 4, 2)}, {}, r"q: \[1, 4, 2\]: expected \[B, T, H, K\]"),
        ({"step": torch.zeros(1, 5, 2)}, {}, r"step: \[1, 5, 2\]: expected \[1, 4, 2\]"),
        ({"v": torch.zeros(1, 4, 2, 20, dtype=torch.bfloat16)}, {}, "cast them to one dtype"),
        ({}, {"bias": PairlessBias()}, "pairless: no pair of jit"),
        ({}, {"bias": Huber()}, "threshold: None"),
        ({}, {"chunk": 65}, "at most 64"),
        ({}, {"sweeps": -1}, "sweeps: -1"),
        ({"v": torch.zeros(1, 6, 2, 20)}, {}, r"v: \[1, 6, 2, 20\]: its writes are no multiple of 4 tokens"),
        ({"log_keep": torch.zeros(1, 4, 2, 12), "momentum": torch.zeros(1, 4, 2)}, {}, "momentum: with keeps by key"),
    ],
)
def test_misfits_are_named(change: dict[str, Tensor], rule: dict[str, object], message: str) -> None:
    tensors = {name: tensor.to(DEVICE) for name, tensor in change.items()}
    with pytest.raises(KernelInputError, match=message):
        call(**tensors, **rule)


def test_large_states_and_other_dtypes_are_refused() -> None:
    with pytest.raises(KernelInputError, match="exceeds 128 x 128"):
        call(K=130, V=128, bias=Kl())
    with pytest.raises(KernelInputError, match="at most 256"):
        call(K=257)
    with pytest.raises(KernelInputError, match="use chunk 32 or less"):
        call(K=65, V=64, chunk=33, bias=Kl())
    with pytest.raises(KernelInputError, match="in bfloat16: the backward would not fit"):
        call(K=129, chunk=33, dtype=torch.bfloat16)
    with pytest.raises(KernelInputError, match="float64: the Triton kernel takes"):
        call(dtype=torch.float64)


def test_second_derivatives_are_refused() -> None:
    q = torch.ones(1, 4, 2, 12, device=DEVICE, requires_grad=True)
    y, _ = call(q=q)
    (d_q,) = torch.autograd.grad(y.square().sum(), q, create_graph=True)
    with pytest.raises(KernelInputError, match="second derivatives"):
        d_q.sum().backward()


def test_importing_the_rooms_does_not_import_triton() -> None:
    code = "import sys, miras_search.kernels, miras_search.kernels.triton; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
