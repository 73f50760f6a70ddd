"""Cells of a study: which there are, what they are called, and what is the same for all of them."""

from __future__ import annotations

import itertools

import pytest

from miras_search.space.design import DesignPoint
from miras_search.space.presets import preset
from miras_search.study.drafts import Cell
from miras_search.study.loader import Study, StudyError, loads

HEAD = "name: t\ntask: mqar\nbase: delta_net\n"


def read(text: str, *overrides: str) -> Study:
    return loads(HEAD + text, "t.yaml", overrides)


def names(text: str) -> list[str]:
    return [cell.name for cell in read(text).cells]


def test_one_at_a_time_is_the_base_and_every_level_that_differs_from_it() -> None:
    study = read("vary: {bias: [dot, l2, {lp: {p: 2}}, {huber: {form: norm, delta: 0.5}}]}\ncontrols: [no_write]\n")
    assert [(c.number, c.role, c.name, dict(c.changes)) for c in study.cells] == [
        (0, "base", "l2", {}),
        (1, "cell", "dot", {"bias": "dot"}),
        (2, "cell", "huber(delta=0.5)", {"bias": "huber(delta=0.5)"}),
        (3, "control", "l2 + no_write", {"control": "no_write"}),
    ]
    base, dot, huber, control = study.cells
    assert base.design == study.base == preset("delta_net")
    assert dot.design == preset("delta_net").changed("bias", "dot")
    assert huber.design == preset("delta_net").changed("bias", {"huber": {"delta": 0.5}})
    assert control.design == preset("delta_net").changed("control", "no_write")
    assert study.base_name == "l2"
    assert study.controls == ("l2 + no_write",)


def test_levels_are_complete_where_changes_are_short() -> None:
    study = read("vary: {bias: [dot], algorithm: [momentum]}\ncontrols: [ascent]\n")
    assert [dict(c.levels) for c in study.cells] == [
        {"bias": "l2", "algorithm": "gd"},
        {"bias": "dot", "algorithm": "gd"},
        {"bias": "l2", "algorithm": "momentum"},
        {"bias": "l2", "algorithm": "gd", "control": "ascent"},
    ]
    assert {axis.path: (axis.base, axis.levels) for axis in study.axes} == {
        "bias": ("l2", ("l2", "dot")),
        "algorithm": ("gd", ("gd", "momentum")),
        "control": (None, ("ascent",)),
    }


def test_factorial_is_every_combination() -> None:
    study = read("design: factorial\nvary: {bias: [dot, l2], algorithm: [gd, momentum], train.lr: [1e-3, 1e-2]}\n")
    assert study.base_name == "l2 / gd / lr=0.01"
    assert len(study.cells) == 8  # 7 and the base, which is one of the combinations
    found = {(c.design.bias.name, c.design.algorithm.name, c.train.lr) for c in study.cells}
    assert found == set(itertools.product(["dot", "l2"], ["gd", "momentum"], [1e-3, 1e-2]))
    cell = next(c for c in study.cells if c.name == "dot / momentum / lr=0.01")
    assert cell.changes == {"bias": "dot", "algorithm": "momentum"}


def test_a_factorial_without_the_base_among_its_levels_keeps_the_base() -> None:
    study = read("design: factorial\nvary: {bias: [dot, kl], memory: [mlp]}\n")
    assert [c.name for c in study.cells] == ["l2 / matrix", "dot / mlp", "kl / mlp"]


def test_a_factorial_applies_axes_before_their_settings() -> None:
    study = read("design: factorial\nvary: {bias.p: [1.5, 3], bias: [lp], preset: [gated_delta_net]}\n")
    designs = [cell.design for cell in study.cells[1:]]
    assert [getattr(design.bias, "p", None) for design in designs] == [1.5, 3.0]
    assert all(design.retention == preset("gated_delta_net").retention for design in designs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vary: {train.lr: [1e-3, 0.01]}", ["lr=0.01", "lr=0.001"]),
        ("vary: {step: [data, 0.5, {scale: 2}]}", ["step=data", "step=0.5", "step=data(scale=2)"]),
        ("vary: {model.output_gate: [false]}", ["output_gate=true", "output_gate=false"]),
        ("vary: {model.key_dim: [8]}", ["key_dim=none", "key_dim=8"]),
        ("vary: {train.betas: [[0.9, 0.99]]}", ["betas=[0.9, 0.95]", "betas=[0.9, 0.99]"]),
        (
            "vary: {execution.gradient: [frozen, {refined: 4}]}",
            ["gradient=exact", "gradient=frozen", "gradient=refined(4)"],
        ),
        (
            "vary: {bias: [{huber: {delta: {source: data, squash: softplus}}}, {huber: {delta: 2}}]}",
            ["l2", "huber(delta=data)", "huber(delta=2)"],
        ),
        ("vary: {bias: [kl], retention: [kl]}", ["delta_net", "bias=kl", "retention=kl"]),
        ("vary: {model.conv: [0], memory: [mlp]}", ["delta_net", "conv=0", "mlp"]),
        ("vary: {control: [no_write]}", ["none", "no_write"]),
        ("", ["delta_net"]),
    ],
)
def test_names_are_short_and_different(text: str, expected: list[str]) -> None:
    assert names(text + "\n") == expected


def test_a_base_spelled_out_is_called_base_and_a_lone_preset_by_its_name() -> None:
    text = "name: t\ntask: mqar\nvary: {bias: [dot], memory: [mlp]}\n"
    assert loads(text + "base: {bias: kl}\n", "t").base_name == "base"
    assert loads(text + "base: {preset: delta_net, bias: kl}\n", "t").base_name == "base"
    assert loads(text + "base: {preset: delta_net}\n", "t").base_name == "delta_net"


def test_settings_below_an_option_keep_the_rest_of_it() -> None:
    text = (
        "name: t\ntask: mqar\nbase: {memory: {mlp: {activation: relu}}}\n"
        "vary: {memory.expansion: [2], execution: [{gradient: frozen}]}\nexecution: {chunk: 32}\n"
    )
    base, expansion, execution = loads(text, "t.yaml").cells
    assert expansion.design == base.design.changed("memory", {"mlp": {"activation": "relu", "expansion": 2}})
    assert execution.design.execution.to_plain() == {**base.design.execution.to_plain(), "gradient": "frozen"}
    assert execution.design.execution.chunk == 32


def test_the_held_execution_reaches_the_base_and_whole_presets() -> None:
    study = read("vary: {preset: [yaad, memora]}\nexecution: {chunk: 8, gradient: {refined: 2}}\n")
    assert {str(cell.design.execution) for cell in study.cells} == {"refined(2), chunk 8, previous"}
    assert study.execution == "refined(2), chunk 8, previous"
    assert not study.mixed
    yaad = study.cells[1]
    assert yaad.design.bias == preset("yaad").bias


def test_presets_keep_their_own_execution_only_on_request() -> None:
    study = read("vary: {preset: [yaad]}\nexecution: own\n")
    assert study.mixed
    assert study.execution == "mixed: each design its own"
    assert study.cells[1].design == preset("yaad")


def test_executions_that_change_nothing_for_a_design_are_not_mixed() -> None:
    # a dot product's gradient sees no weights, and without a decay the gradient has one place only
    study = read("vary: {preset: [linear_attention, gated_delta_net]}\n")
    assert [c.design for c in study.cells[1:]] == [preset("linear_attention"), preset("gated_delta_net")]
    assert study.execution == "exact, chunk 16, decayed"
    assert not study.mixed


def test_a_varied_execution_is_not_mixed() -> None:
    study = read("vary: {execution.gradient: [frozen]}\n")
    assert study.execution == "varied; the base exact, chunk 16, previous"
    assert not study.mixed
    study = read("design: factorial\nvary: {preset: [delta_net, yaad], execution.gradient: [exact, frozen]}\n")
    assert [c.name for c in study.cells[1:]] == [
        "delta_net / gradient=frozen",
        "yaad / gradient=exact",
        "yaad / gradient=frozen",
    ]


def test_varying_the_execution_of_the_base_does_not_excuse_a_preset() -> None:
    with pytest.raises(StudyError, match=r"vary\.preset\.0: yaad runs as \(frozen"):
        read("vary: {preset: [yaad], execution.gradient: [frozen]}\n")


def test_controls_belong_to_the_base_and_come_last() -> None:
    study = read("vary: {bias: [dot]}\ncontrols: [ascent, no_write]\n")
    assert [(c.number, c.role, c.name) for c in study.cells[2:]] == [
        (2, "control", "l2 + ascent"),
        (3, "control", "l2 + no_write"),
    ]
    assert all(c.design.bias == study.base.bias for c in study.cells[2:])


def test_a_cell_as_plain_data_is_read_back() -> None:
    cell: Cell = read("vary: {bias: [{huber: {delta: 0.5}}]}\n").cells[1]
    assert DesignPoint.parse(cell.to_plain()["design"]) == cell.design
