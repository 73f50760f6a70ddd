"""The training benchmark: what it counts, and that its data and its table say the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from compiling import as_recorded

from miras_search.bench import loop
from miras_search.bench.products import Layout, Products
from miras_search.bench.training import DESIGNS, main, run, table
from miras_search.models.config import ModelConfig
from miras_search.training import compiled as graphs

TASK = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}


def test_products_are_counted_forward_and_backward() -> None:
    left, right = torch.randn(2, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    batch = torch.randn(4, 2, 3)
    with Products() as products:
        torch.autograd.backward((left @ right).sum())
        torch.baddbmm(torch.zeros(4, 2, 5), batch, right.detach().expand(4, 3, 5))
        left + 1
    forward, batched = 2 * 2 * 3 * 5, 2 * 4 * 2 * 3 * 5
    assert products.flop == 3 * forward + batched  # backward: one product for each operand
    assert len(products.calls()) == 4


def test_replayed_operands_have_the_layout_that_was_seen() -> None:
    for tensor in (torch.randn(3, 4).T, torch.randn(5).expand(2, 5), torch.randn(6, 8)[::2, 1::3]):
        layout = Layout.of(tensor)
        assert Layout.of(layout.make()) == layout
    for product, operands in _seen().calls():
        assert torch.isfinite(product(*operands)).all()


def _seen() -> Products:
    with Products() as products:
        torch.randn(2, 3).T @ torch.randn(2, 4)
    return products


def test_rows_hold_what_the_table_prints() -> None:
    designs = {name: DESIGNS[name] for name in ("delta_net", "yaad")}
    result = run(
        designs=designs, device="cpu", blocks=2, model=ModelConfig(layers=1, d_model=8, heads=2), task=TASK, batch=2
    )
    plain = json.loads(json.dumps(result))
    assert plain == result
    assert [row["name"] for row in plain["rows"]] == list(designs)
    for row in plain["rows"]:
        assert row["times_floor"] == pytest.approx(row["step_ms"] / row["floor_ms"])
        assert row["tokens_per_second"] * row["step_ms"] == pytest.approx(1e3 * 2 * 16)
        assert row["products"] > 10
    lines = table(result).splitlines()
    assert len(lines) == 2 + len(designs)
    assert "1 layers, width 8, 2 heads, mqar of 16 tokens, batch 2" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == list(designs)
    assert len({len(line) for line in lines[1:]}) == 1  # columns line up


def test_command_line_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--device", "cpu", "--blocks", "1", "--only", "linear_attention", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in printed["rows"]] == ["linear_attention"]


def test_benchmark_needs_torch_alone() -> None:
    absent = ("ray", "optuna", "sqlalchemy", "pydantic", "pandas", "rich", "typer")
    code = f"import sys, miras_search.bench.training; print(*(name for name in {absent!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_compiled_steps_and_chunks_stand_beside_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_made", as_recorded)
    small = ModelConfig(layers=1, d_model=8, heads=2)
    designs = {"delta_net": DESIGNS["delta_net"]}
    result = run(designs=designs, device="cpu", blocks=1, model=small, task=TASK, batch=2, compiles=True)
    (row,) = json.loads(json.dumps(result))["rows"]
    assert row["compiled_times_floor"] == pytest.approx(row["compiled_ms"] / row["floor_ms"])
    memories = loop.run(device="cpu", rounds=1, tokens=8, batch=1, heads=1, width=4, compiles=True)
    for memory in json.loads(json.dumps(memories))["rows"]:
        assert memory["compiled_times_faster"] == pytest.approx(memory["loop_ms"] / memory["compiled_ms"])
    assert f"{row['compiled_ms']:.2f}" in table(result)

    graphs._graphs.clear()
    monkeypatch.setattr(graphs, "_made", lambda *_: None)  # what cannot be compiled is not said to be
    result = run(designs=designs, device="cpu", blocks=1, model=small, task=TASK, batch=2, compiles=True)
    (row,) = json.loads(json.dumps(result))["rows"]
    assert row["compiled_ms"] is None
    memories = loop.run(device="cpu", rounds=1, tokens=8, batch=1, heads=1, width=4, compiles=True)
    assert {memory["compiled_ms"] for memory in json.loads(json.dumps(memories))["rows"]} == {None}
    graphs._graphs.clear()


def test_the_loop_and_the_chunks_of_one_memory_are_compared() -> None:
    result = loop.run(device="cpu", rounds=1, tokens=8, batch=1, heads=1, width=4)
    assert json.loads(json.dumps(result)) == result
    rows = result["rows"]
    assert isinstance(rows, list)
    assert [row["name"] for row in rows if isinstance(row, dict)] == list(loop.DESIGNS)
    for row in rows:
        assert isinstance(row, dict)
        assert row["times_faster"] == pytest.approx(row["loop_ms"] / row["chunks_ms"])
        assert row["share_of_products"] == pytest.approx(row["products_ms"] / row["chunks_ms"])
    lines = loop.table(result).splitlines()
    assert len(lines) == 2 + len(rows)
    assert "8 tokens, 1 heads of width 4" in lines[0]
