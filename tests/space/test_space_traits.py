"""What an option must have: every member of every protocol is asked for or answered, and the page says which."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from miras_search.space.design import AXES
from miras_search.space.facts import option_facts
from miras_search.space.gates import Gate
from miras_search.space.traits import members, required

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"


@pytest.mark.parametrize("axis", list(AXES))
def test_the_page_says_what_a_class_must_have(axis: str) -> None:
    rows = dict(re.findall(r"^\| (\w+) \| ([^|]*) \|", PAGE.read_text(), re.M))
    assert re.findall(r"`(\w+)`", rows[axis]) == required(axis), (
        "a member that every option must have makes old plugins fail: give it an answer in space/traits.py or in the "
        "base class of the axis, or tell it in docs/extending.md"
    )


@pytest.mark.parametrize("axis", list(AXES))
def test_the_packages_own_options_have_every_member(axis: str) -> None:
    asked = members(axis)
    assert {"name", "equation", "source"} < set(asked)
    assert set(required(axis)) <= set(asked)
    for cls in AXES[axis].options.values():
        missing = [name for name in asked if inspect.getattr_static(cls, name, None) is None and not hasattr(cls, name)]
        assert not missing, cls


def test_facts_tell_types_choices_and_defaults() -> None:
    settings = {one.name: one for one in option_facts("bias", AXES["bias"].options["huber"]).settings}
    assert settings["form"].type.startswith("coordinate | norm")
    assert settings["form"].choices[:2] == ("coordinate", "norm")
    assert settings["form"].default == "norm"
    assert (settings["delta"].type, settings["delta"].choices) == ("gate", ())
    assert settings["delta"].default == {"source": "fixed", "value": 1.0}
    mlp = {one.name: one for one in option_facts("memory", AXES["memory"].options["mlp"]).settings}
    assert (mlp["depth"].type, mlp["depth"].choices) == ("whole number", ())
    assert (mlp["residual"].type, mlp["residual"].choices) == ("true or false", (False, True))
    assert AXES["bias"].options["huber"]().delta == Gate("fixed", squash="softplus", value=1.0)


def test_facts_know_the_rules_that_can_refuse_the_option() -> None:
    facts = option_facts("bias", AXES["bias"].options["dot"])
    assert any("several steps on one pair" in text for text in facts.couplings)
    assert facts.to_plain()["couplings"] == list(facts.couplings)
    assert option_facts("control", AXES["control"].options["none"]).couplings == ()
