"""The kernels' benchmark: its shapes, its floors, what is refused and why."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch

from miras_search.bench import contenders, kernels
from miras_search.bench.contenders import Contender, known_wrong
from miras_search.bench.floors import Floors, Rates, products
from miras_search.bench.memory import Memory
from miras_search.kernels import chunkwise
from miras_search.kernels.dispatch import Setting
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError

CPU = torch.device("cpu")


def memory(spec: object, dtype: torch.dtype = torch.float32) -> Memory:
    return Memory(DesignPoint.parse(spec), CPU, (2, 4, 1, 3), dtype)


def test_every_combination_of_shapes_is_a_row_of_each_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(*given: object) -> object:
        y, state = chunkwise.run(*given)
        return 2 * y, state

    def all_of_them(*, compile_chunks: bool) -> list[Contender]:
        assert not compile_chunks
        wrong = Contender("wrong", doubled, lambda point, setting, tokens: None)
        right = Contender("chunkwise", chunkwise.run, lambda point, setting, tokens: None)
        long = Contender("short", chunkwise.run, lambda point, setting, tokens: "long" if tokens > 4 else None)
        return [right, wrong, long]

    monkeypatch.setattr(kernels, "contenders", all_of_them)
    designs = {"delta_net": {"preset": "delta_net"}}
    result = kernels.run(designs=designs, device="cpu", rounds=1, tokens=[4, 6], widths=[2, 3], memories=[3])
    assert json.loads(json.dumps(result)) == result
    rows = result["rows"]
    assert isinstance(rows, list) and len(rows) == 2 * 2 * 3
    for row in rows:
        assert isinstance(row, dict)
        ran = row["implementation"] == "chunkwise" or (row["implementation"] == "short" and row["tokens"] == 4)
        assert (row["refused"] is None) == ran == (row["training_ms"] is not None)
        if ran:
            assert row["of_floor"] == pytest.approx(row["floor_ms"] / row["training_ms"])
            assert row["tokens_per_second"] * row["training_ms"] == pytest.approx(1e3 * 3 * row["tokens"])
    lines = kernels.table(result).splitlines()
    assert "copies" in lines[0]
    assert "x fla" not in lines[1]  # nothing to show in it
    assert "not short: long: delta_net" in lines
    told = [line for line in lines if line.startswith("not wrong: its ")]
    assert told and all("is off chunkwise torch's by" in line for line in told)


def test_what_fails_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised, and whether at once or only where no gradient is asked for."""

    def untrained(*given: object) -> object:
        if not torch.is_grad_enabled():
            raise KeyError("no such kernel")
        return chunkwise.run(*given)

    def broken(*given: object) -> object:
        raise RuntimeError("out of resources\nRequired: 240 KiB")

    def all_of_them(*, compile_chunks: bool) -> list[Contender]:
        ways = {"chunkwise": chunkwise.run, "broken": broken, "untrained": untrained}
        return [Contender(name, run, lambda point, setting, tokens: None) for name, run in ways.items()]

    monkeypatch.setattr(kernels, "contenders", all_of_them)
    designs = {"delta_net": {"preset": "delta_net"}}
    rows = kernels.run(designs=designs, device="cpu", rounds=1, tokens=[4], widths=[2], memories=[1])["rows"]
    assert isinstance(rows, list)
    told = {row["implementation"]: row["refused"] for row in rows if isinstance(row, dict)}
    assert told == {
        "chunkwise": None,
        "broken": "RuntimeError: out of resources",
        "untrained": "KeyError: 'no such kernel'",
    }
    timed = [row["implementation"] for row in rows if isinstance(row, dict) and row["training_ms"] is not None]
    assert timed == ["chunkwise"]


def test_floors_are_bytes_and_products_that_nothing_saves() -> None:
    plain = memory({"preset": "delta_net"})
    assert products(plain) == 2 * (2 * 4) * 9 * (2 + 1)  # predict, change, read: 2 K V each
    assert products(memory({"preset": "linear_attention"})) == 2 * (2 * 4) * 9 * (1 + 1)
    given = 4 * sum(x.numel() for x in plain.leaves.values())
    reads = 4 * plain.inputs.v.numel()
    by_bytes = Floors.of(plain, Rates(bandwidth=1.0, products=1e30))
    assert by_bytes == (given + reads, 3 * given + 2 * reads)
    by_products = Floors.of(plain, Rates(bandwidth=1e30, products=1.0))
    assert by_products == (products(plain), 3 * products(plain))
    assert all(rate > 0 for rate in Rates.of(CPU, torch.float32))


def test_paths_in_torch_widen_bfloat16() -> None:
    ours = {one.name: one for one in contenders.contenders(compile_chunks=False)}
    low = memory({"preset": "delta_net"}, torch.bfloat16)
    y, _ = ours["recurrence"].run(low.point, low.inputs, low.start, low.static, None)
    assert y.dtype == torch.bfloat16
    assert low.train(ours["chunkwise"].run)["k"].dtype == torch.bfloat16
    assert ours["recurrence"].refuses(low.point, Setting("cpu", torch.bfloat16, 3, 3), 513) is not None


@pytest.mark.parametrize(
    ("spec", "operator"),
    [
        ({"preset": "linear_attention"}, "linear attention"),
        ({"preset": "retnet"}, "simple gla"),
        ({"preset": "delta_net"}, "delta"),
        ({"preset": "gated_delta_net"}, "gated delta"),
        ({"preset": "delta_net", "execution": {"gradient": "frozen"}}, None),
        ({"preset": "delta_net", "bias": "huber"}, None),
        ({"preset": "delta_net", "algorithm": "momentum"}, None),
        ({"preset": "gla"}, None),
    ],
)
def test_which_operator_of_fla_is_the_same_function(spec: object, operator: str | None) -> None:
    (fla,) = [one for one in contenders.contenders(compile_chunks=False) if one.name == "fla"]
    assert contenders.operator_of(DesignPoint.parse(spec)) == operator
    reason = fla.refuses(DesignPoint.parse(spec), Setting("cuda", torch.float32, 3, 3), 8)
    assert reason is not None and ("bfloat16" in reason) == (operator is not None)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"preset": "gated_delta_net"}, None),
        ({"preset": "linear_attention", "execution": {"gradient": "frozen"}}, None),
        ({"preset": "delta_net", "execution": {"gradient": "frozen"}}, "in turn in any case"),
        ({"preset": "delta_net", "algorithm": "momentum"}, "in turn in any case"),
        ({"preset": "delta_net", "bias": "huber"}, "in turn in any case"),
        ({"preset": "yaad"}, "matrix memory"),
    ],
)
def test_both_ways_through_the_chunks_are_timed_where_there_are_two(
    monkeypatch: pytest.MonkeyPatch, spec: object, reason: str | None
) -> None:
    ways = {one.name: one for one in contenders.contenders(compile_chunks=False) if one.name.startswith("triton ")}
    for way in ("in turn", "at once"):
        one = ways[f"triton {way}"]
        told = one.refuses(DesignPoint.parse(spec), Setting("cuda", torch.float32, 16, 16), 64)
        assert (told is None) if reason is None else (reason in str(told))
        monkeypatch.delenv("MIRAS_TRITON_CHUNKS", raising=False)
        with one.within():
            assert os.environ["MIRAS_TRITON_CHUNKS"] == way.replace(" ", "_")
        assert "MIRAS_TRITON_CHUNKS" not in os.environ


def test_what_a_contender_asks_for_holds_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its backward pass too, which asks again."""
    held: list[str | None] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            held.append(os.environ.get("MIRAS_TRITON_CHUNKS"))
            return x.clone()

        @staticmethod
        def backward(ctx: object, d_y: torch.Tensor) -> torch.Tensor:
            held.append(os.environ.get("MIRAS_TRITON_CHUNKS"))
            return d_y

    def watched(*given: object) -> object:
        y, state = chunkwise.run(*given)
        return Watched.apply(y), state

    (way,) = [one for one in contenders.contenders(compile_chunks=False) if one.name == "triton at once"]
    right = Contender("chunkwise", chunkwise.run, lambda point, setting, tokens: None)
    mine = replace(way, run=watched, refuses=lambda point, setting, tokens: None)
    monkeypatch.setattr(kernels, "contenders", lambda *, compile_chunks: [right, mine])
    designs = {"delta_net": {"preset": "delta_net"}}
    kernels.run(designs=designs, device="cpu", rounds=1, tokens=[4], widths=[2], memories=[1])
    assert len(held) >= 6 and set(held) == {"at_once"}


def test_a_backward_that_is_known_to_be_wrong_is_not_compared() -> None:
    hopper, ampere = (9, 0), (8, 0)
    for gated in ("gated delta", "simple gla"):
        assert "Triton 3.6.0" in str(known_wrong(gated, "3.6.0", "0.6.0", hopper))
        assert known_wrong(gated, "3.7.1", "0.6.0", hopper) is None
        assert known_wrong(gated, "3.6.0", "0.6.0", ampere) is None
    assert "fla-core 0.5.1" in str(known_wrong("delta", "3.7.1", "0.5.1", hopper))
    assert known_wrong("delta", "3.6.0", "0.5.2", hopper) is None
    assert known_wrong("delta", "3.6.0", "0.5.1", ampere) is None
    assert known_wrong("linear attention", "3.6.0", "0.5.1", hopper) is None


def test_a_design_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError):
        kernels.run(designs={"x": {"bias": "nothing"}}, device="cpu")
