"""`match`: cells resized to the base's cost by the knobs that are free, and refused beyond the tolerance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from miras_search.study.loader import Study, StudyError, loads
from miras_search.study.plan import confounds
from miras_search.training.costs import known_costs
from miras_search.training.job import Job

TEXT = """\
name: t
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 16, heads: 2, feed_forward: swiglu}
base: delta_net
execution: {chunk: 16, gradient: frozen}
vary: {memory: [{mlp: {depth: 2}}], retention: [l2]}
controls: [no_write]
match: params
"""


def read(*overrides: str) -> Study:
    return loads(TEXT, "t.yaml", overrides)


def cost(study: Study, number: int, name: str) -> float:
    cell = study.cells[number]
    return known_costs(Job(cell.design, cell.model, study.tasks[0].spec, cell.train, 0, study.base), [name])[name]


def test_the_channel_mixer_takes_up_what_a_memory_has_more() -> None:
    study = read()
    base, mlp, decayed, control = study.cells
    plain = read("match=none").cells
    assert mlp.model.feed_forward_ratio < plain[1].model.feed_forward_ratio
    assert mlp.design == plain[1].design and mlp.model.keys == plain[1].model.keys  # the memory is what is studied
    assert mlp.sizes == {"model.feed_forward_ratio": "0.8125"}
    assert mlp.ratio == cost(study, 1, "params") / cost(study, 0, "params")
    # no other width is nearer: one more column costs a twelfth of what the memory has more
    assert mlp.ratio is not None and decayed.ratio is not None
    assert abs(mlp.ratio - 1) < 0.01 and abs(decayed.ratio - 1) < 0.01
    assert (base.ratio, control.ratio, control.model) == (None, None, base.model)
    assert (base.to_plain(), control.to_plain()) == (plain[0].to_plain(), plain[3].to_plain())
    assert study.space_hash != read("match=none").space_hash
    assert any("only params are matched, within 10%" in line for line in confounds(study))
    assert not any(line.startswith("flops are the matrix products") for line in confounds(study))
    by_work = read("match={flops: {within: 1.0}}")
    assert any(line.startswith("flops are the matrix products") for line in confounds(by_work))


@pytest.mark.parametrize(
    ("setting", "by", "vary"),
    [
        ("model.rope=true", "state", "preset: [gla]"),
        ("model.rope=true", "params", "preset: [rwkv7]"),
        ("model.attention_every=2", "state", "preset: [gla]"),
    ],
)
def test_heads_that_cannot_turn_in_pairs_are_passed_over(setting: str, by: str, vary: str) -> None:
    study = read(setting, "model.layers=2", "model.feed_forward=none", f"match={{{by}: {{within: 1.0}}}}",
                 f"vary={{{vary}}}", "controls=[]")  # fmt: skip
    assert all(cell.model.keys % 2 == 0 for cell in study.cells)


def test_a_control_has_the_size_of_its_cell() -> None:
    study = read("controls_on=cells", "vary={retention: [l2], bias: [dot]}")
    of_l2 = study.cells[study.cells[1].controls["no_write"]]
    assert (of_l2.model, of_l2.ratio) == (study.cells[1].model, study.cells[1].ratio)


def test_knobs_come_in_order_and_one_alone_may_do() -> None:
    base = "base={preset: delta_net, memory: {mlp: {depth: 2}}}"  # whose state an algorithm with momentum doubles
    heads = read("match={state: {within: 0.15}}", "vary={algorithm: [momentum]}", base).cells[1]
    assert heads.sizes == {"model.key_dim": "7", "model.value_dim": "7"}
    found = read("match={state: {within: 0.12}}", "vary={algorithm: [momentum]}", base).cells[1]
    assert found.sizes == {"memory.expansion": "3"}  # nearer than narrower heads, and than both together
    assert found.ratio == pytest.approx(1.117, abs=1e-3)
    heads = read("match=params", "model.feed_forward=none").cells[1]
    assert heads.sizes == {"model.key_dim": "6", "model.value_dim": "6"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["match=state"], "vary.memory.0: mlp: its state can come no nearer than 0.855 times the base's"),
        (["match=state", "vary.model.key_dim=[4]"], "(knobs: none is free)"),
        (["match=size"], "unknown match 'size' (known: flops, none, params, state)"),
        (["match={params: 3}"], "expected `within`, as in {params: {within: 0.1}}, got 3"),
        (["match={params: {within: 3}}"], "expected a share above 0, at most 1, got 3"),
    ],
)
def test_what_is_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(StudyError) as caught:
        read(*overrides)
    assert expected in str(caught.value)
    assert read("match={state: {within: 0.5}}").cells[1].ratio == 0.855


def test_without_torch_a_matched_study_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TEXT)
    program = "import sys; sys.modules['torch'] = None; from miras_search.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", program, "plan", str(tmp_path / "t.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    expected = "match: params measures models, which takes torch: install it, or plan with --set match=none"
    assert done.stderr.strip().endswith(expected) and done.stderr.count("\n") == 1
