"""A search's rival: the same study by other means, and what it may not change."""

from __future__ import annotations

import pytest

from miras_search.study.loader import StudyError, loads

TEXT = """\
name: sought
kind: search
task: {name: mqar, length: 32}
train: {steps: 18, batch: 8, eval_every: 2}
base: delta_net
space: {bias: [dot, l2], train.lr: {log_uniform: [1e-3, 3e-2]}}
sampler: tpe
pruner: hyperband
trials: 8
rival: {sampler: random, pruner: none}
"""


def test_a_rival_seeks_the_same_by_other_means() -> None:
    study = loads(TEXT, "sought.yaml")
    other = study.rival
    assert other is not None and other.search is not None and study.search is not None
    assert (other.name, other.rival) == ("sought.rival", None)
    assert (other.search.sampler, other.search.pruner) == ("random", "none")
    assert (other.search.trials, other.search.confirm_seeds) == (study.search.trials, study.search.confirm_seeds)
    assert (other.tasks, other.cells, other.train) == (study.tasks, study.cells, study.train)
    assert study.config["rival"] == "sought.rival"
    alone = loads(TEXT, "sought.yaml", ["rival={}"])
    assert alone.rival is None and "rival" not in alone.config
    assert alone.space_hash == study.space_hash, "a rival changes nothing of what the study itself compares"


def test_overrides_and_another_name_are_the_rivals_too() -> None:
    study = loads(TEXT, "sought.yaml", ["trials=5", "rival.sampler=qmc"], "short")
    assert study.rival is not None and study.rival.search is not None
    assert (study.rival.name, study.rival.search.trials, study.rival.search.sampler) == ("short.rival", 5, "qmc")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{trials: 9}", "rival.trials: a rival differs in how it seeks: sampler, sampler_seed, pruner"),
        ("{sampler: rnadom}", "rival: unknown sampler 'rnadom' (did you mean 'random'?)"),
        ("{pruner: wilcoxon}", "rival: wilcoxon races seeds and tasks"),
        ("{sampler: tpe}", "rival: it seeks by the same means as the study itself"),
        ("random", "rival: expected a mapping of settings, got 'random'"),
    ],
)
def test_what_is_no_rival_is_told_at_its_place(given: str, said: str) -> None:
    text = TEXT.replace("rival: {sampler: random, pruner: none}", f"rival: {given}")
    with pytest.raises(StudyError) as caught:
        loads(text, "sought.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("sought.yaml:10:") and said in line


def test_an_ablation_has_none() -> None:
    with pytest.raises(StudyError, match="rival: belongs to kind: search"):
        loads("name: a\ntask: mqar\nbase: delta_net\nrival: {sampler: random}\n", "a.yaml")
