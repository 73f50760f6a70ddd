"""A study of the base alone in which starts, draws of training data and evaluations meet crosswise."""

from __future__ import annotations

import dataclasses
import json

from miras_search.seeds import crossed_seeds
from miras_search.study.loader import loads
from miras_search.study.study import Study

BASE_ALONE = {
    "vary": {},
    "design": "one_at_a_time",
    "controls": [],
    "controls_on": "base",
    "tune": {},
    "top_up": {},
    "match": "none",
}
"""What leaves nothing of a study but its base, on its tasks, as the file trains it."""


def crossed_study(study: Study, levels: int) -> Study:
    """`levels` starts x draws of data x evaluations of the study's base; a study of its own in the same database."""
    given = {**BASE_ALONE, "seeds": crossed_seeds(levels)}
    made = loads(study.yaml, study.path, [f"{path}={json.dumps(value)}" for path, value in given.items()])
    return dataclasses.replace(made, name=f"{study.name}.seeds-{made.space_hash[:8]}")
