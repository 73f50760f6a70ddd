"""Controls on every cell: which rows there are, which cells share one, and which have none."""

from __future__ import annotations

import pytest

from miras_search.study.loader import Study, StudyError, loads
from miras_search.study.plan import confounds

HEAD = "name: t\ntask: mqar\nbase: delta_net\ncontrols_on: cells\n"


def read(text: str) -> Study:
    return loads(HEAD + text, "t.yaml")


def under(study: Study) -> dict[str, dict[str, str]]:
    """For every cell its rows by control."""
    return {
        cell.name: {control: study.cells[number].name for control, number in cell.controls.items()}
        for cell in study.cells
        if cell.controls
    }


def test_every_cell_has_every_control() -> None:
    study = read("vary: {bias: [dot, l2, huber]}\ncontrols: [ascent, q_is_k]\n")
    assert [(c.number, c.role, c.name) for c in study.cells] == [
        (0, "base", "l2"),
        (1, "cell", "dot"),
        (2, "cell", "huber"),
        (3, "control", "l2 + ascent"),
        (4, "control", "dot + ascent"),
        (5, "control", "huber + ascent"),
        (6, "control", "l2 + q_is_k"),
        (7, "control", "dot + q_is_k"),
        (8, "control", "huber + q_is_k"),
    ]
    assert under(study) == {
        name: {"ascent": f"{name} + ascent", "q_is_k": f"{name} + q_is_k"} for name in ("l2", "dot", "huber")
    }
    assert study.cells[4].changes == {"bias": "dot", "control": "ascent"}
    assert study.cells[4].design == study.cells[1].design.changed("control", "ascent")
    assert study.cells[3].changes == {"control": "ascent"}
    assert study.controls == tuple(cell.name for cell in study.cells[3:])


def test_cells_that_are_one_function_under_a_control_share_its_row() -> None:
    """No bias, step or order of gradients says anything where nothing is written; what has parameters does."""
    study = read(
        "vary: {bias: [dot, {huber: {delta: data}}], algorithm: [momentum, {momentum: {momentum: 0.5}}], "
        "execution.gradient: [frozen], retention: [l2, {l2: {keep: 0.9}}, lq], train.lr: [0.5]}\ncontrols: [no_write]\n"
    )
    rows = {name: rows["no_write"] for name, rows in under(study).items()}
    shared = {name for name, row in rows.items() if row == f"{study.base_name} + no_write"}
    assert shared == {
        study.base_name, "bias=dot", "momentum(momentum=0.5)", "gradient=frozen", "retention=l2(keep=0.9)",
    }  # fmt: skip
    assert {name for name, row in rows.items() if row == f"{name} + no_write"} == set(rows) - shared | {study.base_name}
    assert len(study.cells) == len(rows) + len(rows) - len(shared) + 1


def test_a_row_is_shared_where_training_would_only_match_a_step_that_is_not_taken() -> None:
    study = read("train: {inner_step: match_base}\nvary: {bias: [dot, kl]}\ncontrols: [no_write]\n")
    assert under(study)["dot"] == under(study)["kl"] == {"no_write": "l2 + no_write"}


def test_a_control_that_a_rule_refuses_leaves_no_row_and_is_told() -> None:
    study = read("vary: {algorithm: [newton], bias: [dot]}\ncontrols: [ascent, no_write]\n")
    assert set(under(study)["newton"]) == {"no_write"}
    assert set(under(study)["dot"]) == {"ascent", "no_write"}
    told = [line for line in confounds(study) if "has no row under" in line]
    assert len(told) == 1
    assert told[0].startswith("newton has no row under ascent, which its effect would have to survive: the step is")


def test_a_control_that_the_base_cannot_have_is_an_error() -> None:
    with pytest.raises(StudyError, match=r"t\.yaml:6:12: controls\.0: control: it sets model\.conv: 0, which"):
        read("model: {conv: 0}\ncontrols: [no_conv]\n")


def test_the_model_without_its_convolution_is_a_cell_that_has_none() -> None:
    study = read("vary: {model.conv: [0], bias: [dot]}\ncontrols: [no_conv]\n")
    assert under(study) == {"delta_net": {"no_conv": "conv=0"}, "dot": {"no_conv": "dot + no_conv"}}


def test_settings_of_a_control_are_part_of_its_name() -> None:
    study = read("vary: {bias: [l1]}\ncontrols: [{inner_steps: {n: 2}}, {inner_steps: {n: 3}}]\n")
    assert [cell.name for cell in study.cells[2:]] == [
        "l2 + inner_steps(n=2)", "l1 + inner_steps(n=2)", "l2 + inner_steps(n=3)", "l1 + inner_steps(n=3)",
    ]  # fmt: skip


def test_controls_of_the_base_alone_leave_the_study_as_it_was() -> None:
    text = "vary: {bias: [dot]}\ncontrols: [ascent]\n"
    plain = loads(HEAD.replace("controls_on: cells\n", "") + text, "t.yaml")
    spelled = loads(HEAD.replace("cells", "base") + text, "t.yaml")
    assert plain.config_hash == spelled.config_hash
    assert "controls" not in plain.cells[0].to_plain()
    assert read(text).cells[0].to_plain()["controls"] == {"ascent": 2}
    assert read(text).config_hash != plain.config_hash
