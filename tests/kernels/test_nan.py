"""A number that is none stays none: a training that has diverged must not look alive on one way and dead on another.

Clamps and comparisons like to lose it (`tl.maximum(NaN, c)` is c, `torch.sign(NaN)` is 0). One sequence for each input
of a design, with NaN in that input at one token, goes through the recurrence and through what runs in its place.
"""

from __future__ import annotations

import json

import pytest
import torch
from chunk_designs import POINTS
from loops import DESIGNS
from memories import Case, Run, case, points
from torch import Tensor
from triton_device import DEVICE, RUNS

from miras_search.kernels import chunkwise, dispatch, recurrence
from miras_search.kernels.triton.loop_run import run_loop
from miras_search.space.design import DesignPoint

pytestmark = [  # the interpreter's NumPy
    pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]
TOKENS = 6
AT = 2


def planted(point: DesignPoint, dtype: torch.dtype) -> tuple[Case, list[str]]:
    """Sequences with NaN in one input each, and the names of these inputs; a keep that is none is not read."""
    plain = case(point, TOKENS, seed=1, batch=1, heads=1, dtype=dtype)
    unread = {"log_keep"} if point.retention.keep.is_one else set()
    names = [name for name, x in plain.inputs._asdict().items() if x is not None and name not in unread]

    def rows(name: str, x: Tensor) -> Tensor:
        spread = x.repeat(len(names), *(1 for _ in x.shape[1:]))
        if name in names:
            spread[names.index(name), AT * (x.shape[1] // TOKENS)].flatten()[0] = torch.nan
        return spread

    given = {name: None if x is None else rows(name, x) for name, x in plain.inputs._asdict().items()}
    return Case(plain.inputs._replace(**given), plain.start, plain.static), names


def lost(run: Run, point: DesignPoint, given: Case) -> Tensor:
    """Whether a token's output is not finite, [sequences, T]."""
    with torch.no_grad():
        y = run(point, given.inputs, given.start, given.static)[0]
    return ~y.isfinite().all(-1).squeeze(-1).cpu()


def check(point: DesignPoint, run: Run, dtype: torch.dtype = torch.float64, device: str = "cpu") -> None:
    given, names = planted(point, dtype)
    wanted = lost(recurrence.run, point, given)
    for name, tokens in zip(names, wanted, strict=True):
        assert tokens.any(), f"{name}: the definition itself loses it"
        assert not tokens[:AT].any(), name
    found = lost(run, point, given.with_leaves([x.to(device) for x in given.leaves()]))
    for name, tokens, want in zip(names, found, wanted, strict=True):
        assert (tokens | ~want).all(), f"{name}: lost at tokens {(want & ~tokens).nonzero().flatten().tolist()}"


@pytest.mark.parametrize("count", [24, pytest.param(400, marks=pytest.mark.slow)])
def test_chunks_of_the_whole_space(count: int) -> None:
    for point in points(count, seed=count):
        check(point, chunkwise.run)


@RUNS
@pytest.mark.parametrize("spec", [spec for spec, _ in POINTS], ids=[json.dumps(spec)[:80] for spec, _ in POINTS])
def test_chunks_by_triton(spec: dict[str, object]) -> None:
    check(DesignPoint.parse(spec), dispatch.run_triton, torch.float32, DEVICE)


@RUNS
@pytest.mark.parametrize("name", DESIGNS)
def test_the_token_loop_by_triton(name: str) -> None:
    check(DesignPoint.parse(DESIGNS[name]), run_loop, torch.float32, DEVICE)
