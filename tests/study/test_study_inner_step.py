"""`train.inner_step: match_base` and the mixer's options in a study: what is the same cell, and what is refused."""

from __future__ import annotations

import pytest

from miras_search.engine.jobs import task_of
from miras_search.space.design import DesignPoint
from miras_search.store.types import JobRow
from miras_search.study.loader import Study, StudyError, loads
from miras_search.training.job import Job

HEAD = "name: t\ntask: {name: mqar, vocab: 16, length: 16, pairs: 2}\nseeds: 2\n"


def read(text: str) -> Study:
    return loads(HEAD + text, "t.yaml")


def job_of(study: Study, number: int) -> Job:
    row = JobRow(1, 1, number, study.cells[number].name, study.tasks[0].name, 1, "waiting", 0)
    return Job.from_plain(task_of(study, [row], "m:f").jobs[0])


def test_every_job_of_a_matched_study_carries_the_base_design() -> None:
    study = read("base: yaad\ntrain: {inner_step: match_base}\nvary: {bias: [dot]}\ncontrols: [no_write]\n")
    assert [cell.name for cell in study.cells] == [study.base_name, "dot", f"{study.base_name} + no_write"]
    for number in range(3):
        job = job_of(study, number)
        assert job.base_design == study.base == DesignPoint.parse("yaad")
        assert job.design == study.cells[number].design
        assert Job.from_plain(job.to_plain()) == job


def test_only_the_cells_that_are_matched_carry_it() -> None:
    study = read("base: delta_net\ndesign: factorial\nvary: {bias: [l2, dot], train.inner_step: [as_is, match_base]}\n")
    # l2 matched to itself is the base once more, and no cell
    assert [cell.name for cell in study.cells] == [
        "l2 / inner_step=as_is",
        "dot / inner_step=as_is",
        "dot / inner_step=match_base",
    ]
    assert [job_of(study, number).base_design for number in range(3)] == [None, None, study.base]
    assert "base_design" not in job_of(study, 1).to_plain()


def test_a_base_that_does_not_fit_where_it_is_matched_is_refused() -> None:
    text = (
        "base: yaad\nexecution: {gradient: frozen}\ndesign: factorial\n"
        "vary: {memory: [{mlp: {residual: false}}], model.value_dim: [8]}\ntrain: {inner_step: INNER}\n"
    )
    assert len(read(text.replace("INNER", "as_is")).cells) == 2
    with pytest.raises(StudyError) as caught:
        read(text.replace("INNER", "match_base"))
    (line,) = str(caught.value).splitlines()
    assert "vary.model.value_dim.0: " in line
    assert "its step is matched to the base's, which does not fit into this model (memory: a residual memory" in line
    assert line.endswith(": use train.inner_step: as_is")


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(StudyError, match=r"train.inner_step: 'match' is not one of as_is, match_base"):
        read("base: delta_net\ntrain: {inner_step: match}\n")


def test_a_feature_map_that_changes_nothing_is_no_cell() -> None:
    study = read("base: delta_net\nvary: {model.feature_map: [silu, elu1], model.key_dim: [16, 8]}\n")
    assert [cell.name for cell in study.cells] == ["delta_net", "feature_map=elu1", "key_dim=8"]


def test_a_normaliser_is_refused_where_the_design_has_none() -> None:
    with pytest.raises(StudyError) as caught:
        read(
            "base: linear_attention\nmodel: {feature_map: elu1, normaliser: sum}\n"
            "vary: {bias: [l2], memory: [{mlp: {residual: false}}]}\n"
        )
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["vary.bias.0", "vary.memory.0"]
    assert all("model.normaliser: sum divides by" in line for line in lines)
