"""A search's rival: the same space, trials, seeds and confirmation, sought by other means.

    sampler: tpe
    pruner: hyperband
    rival: {sampler: random, pruner: none}

The rival is a study of its own, stored as `NAME.rival`, so that each is continued, looked at and exported like any
other. Both confirm their best on the same fresh seeds: the difference between them is paired by seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from miras_search.space.fields import Problem, SpecError, nearest
from miras_search.study.study import Study

KEY = "rival"
MEANS = ("sampler", "sampler_seed", "pruner", "presets", "schedule")
"""How a search seeks. What it seeks, where and how long is the same for both."""


def overrides(given: Mapping[str, object]) -> list[str]:
    """What turns the search's file into its rival's. Raises `SpecError` for what is no matter of means."""
    told = f"a rival differs in how it seeks: {', '.join(MEANS)}"
    problems = [Problem((KEY, key), f"{told}{nearest(key, MEANS)}") for key in given if key not in MEANS]
    if problems:
        raise SpecError(problems)
    return [f"{KEY}={{}}", *(f"{key}={json.dumps(value)}" for key, value in given.items())]


def name(study: str) -> str:
    """What the rival of a study is called."""
    return f"{study}.{KEY}"


def check(study: Study, rival: Study) -> None:
    """Raises `SpecError` where the two are one search."""
    if study.space_hash == rival.space_hash:
        raise SpecError.at((KEY,), "it seeks by the same means as the study itself: change its sampler or pruner")


def both(study: Study) -> Sequence[Study]:
    """The study, and its rival if it has one."""
    return (study,) if study.rival is None else (study, study.rival)
