"""`top_up` in a study file: when it is looked at, what each look may spend, and what is refused."""

from __future__ import annotations

import pytest

from miras_search.study.loader import Study, loads
from miras_search.study.plan import confounds, plan
from miras_search.study.problems import StudyError
from miras_search.study.top_up import levels

HEAD = "name: t\ntask: mqar\nbase: delta_net\nvary: {bias: [dot, kl]}\ncontrols: [no_write]\n"


def read(text: str) -> Study:
    return loads(HEAD + text, "t.yaml")


def test_looks_are_evenly_spaced_and_share_the_error() -> None:
    found = read("seeds: 8\ntop_up: {max_seeds: 16, looks: 3}\n").top_up
    assert found is not None
    assert found.looks == (8, 12, 16)
    assert found.seeds == tuple(range(16))
    assert found.extra == tuple(range(8, 16))
    assert found.levels == pytest.approx((0.05 / 3,) * 3)


def test_late_spending_is_lan_and_demets() -> None:
    # their table for five equal looks at a two-sided .05: what O'Brien and Fleming's function has spent by each
    spent = (0.000005, 0.00125, 0.0085, 0.0229, 0.0417, 0.05)
    found = levels((1, 2, 3, 4, 5), "late")
    assert sum(found) == pytest.approx(0.05)
    assert found[0] == pytest.approx(spent[0] + 0.0000067, abs=2e-6)
    assert sum(found[:2]) == pytest.approx(0.0019, abs=1e-4)
    assert list(found) == sorted(found)


def test_listed_seeds_go_on_after_the_largest() -> None:
    found = read("seeds: [3, 9, 5, 7, 8, 1]\ntop_up: {max_seeds: 8}\n").top_up
    assert found is not None
    assert found.seeds == (3, 9, 5, 7, 8, 1, 10, 11)
    assert found.looks == (6, 8)


def test_a_plan_tells_the_looks_and_what_they_may_cost() -> None:
    found = plan(read("seeds: 8\ntop_up: {max_seeds: 12, looks: 2}\n"))
    assert (found.jobs, found.top_up_jobs, found.last_seeds, found.last_level) == (32, 12, 12, 0.025)  # no control
    assert found.to_plain()["top_up"] == {
        "seeds": list(range(12)), "looks": [8, 12], "levels": [0.025, 0.025], "spending": "even", "jobs": 12,
    }  # fmt: skip
    assert not any("cannot decide anything" in one for one in confounds(read("seeds: 8\ntop_up: {max_seeds: 12}\n")))
    vain = confounds(read("seeds: 6\ntop_up: {max_seeds: 8}\n"))
    assert any("the look at 6 (smallest p 0.031, level 0.025) seeds cannot decide anything" in one for one in vain)


def test_it_is_part_of_what_is_compared() -> None:
    plain, declared = read("seeds: 8\n"), read("seeds: 8\ntop_up: {max_seeds: 12}\n")
    assert plain.space_hash != declared.space_hash
    assert plain.space_hash == read("seeds: 9\n").space_hash  # as ever without one
    assert "top_up" not in plain.config
    waits, leaves = (read(f"seeds: 8\ntop_up: {{max_seeds: 12, failed: {rule}}}\n") for rule in ("wait", "leave_out"))
    assert waits.space_hash == declared.space_hash != leaves.space_hash


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("top_up: {looks: 2}", "top_up: 'max_seeds' is missing: give 9 to 1000, more than the study's 8"),
        ("top_up: {max_seeds: 8}", "top_up.max_seeds: 8 is no number of seeds: give 9 to 1000"),
        ("top_up: {max_seeds: 12, looks: 1}", "top_up.looks: 1 is no number of looks from 2 to 20"),
        ("top_up: {max_seeds: 9, looks: 3}", "top_up.looks: 3 looks do not fit between 8 and 9 seeds"),
        ("top_up: {max_seeds: 12, spending: pocock}", "top_up.spending: 'pocock' is none of even, late"),
        (
            "top_up: {max_seeds: 300, spending: late}",  # its level is zero, and p would be divided by it
            "top_up.spending: 'late' leaves the look at 8 of 300 seeds nothing to decide with",
        ),
        ("top_up: {max_seeds: 12, failed: skip}", "top_up.failed: 'skip' is none of wait, leave_out"),
        ("top_up: {max_seed: 12}", "top_up.max_seed: unknown key (did you mean 'max_seeds'?)"),
        ("top_up: {max_seeds: 12}\nmetric: params", "metric: params is a cost"),
        (
            "top_up: {max_seeds: 12}\ntune: {train.lr: [1e-3, 3e-3, 1e-2, 3e-2], seeds: [9]}",
            "top_up.max_seeds: a top-up would report seed 9, which is the tuning's",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(text: str, what: str) -> None:
    with pytest.raises(StudyError) as error:
        read(f"seeds: 8\n{text}\n")
    assert what in str(error.value)


def test_a_search_has_none() -> None:
    text = "name: t\nkind: search\ntask: mqar\nbase: delta_net\nspace: {bias: any}\ntop_up: {max_seeds: 12}\n"
    with pytest.raises(StudyError, match="top_up: belongs to kind: ablation"):
        loads(text, "t.yaml")
