"""One function has one hash, however its gates are written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from miras_search.models.config import ModelConfig
from miras_search.models.mixer import Mixer
from miras_search.space.design import DesignPoint

TIED = {"tie": "step", "squash": "mamba", "value": 0.9}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a learned gate projects nothing, so has no bottleneck": (
        {"retention": {"l2": {"keep": {"source": "learned", "rank": 4}}}},
        {"retention": {"l2": {"keep": {"source": "learned"}}}},
    ),
    "nor has a threshold, whose default is fixed": (
        {"bias": {"huber": {"delta": {"source": "learned", "rank": 4}}}},
        {"bias": {"huber": {"delta": {"source": "learned"}}}},
    ),
    "a decay by the step has a rate of its own and nothing else": (
        {"retention": {"l2": {"keep": {**TIED, "source": "learned"}}}},
        {"retention": {"l2": {"keep": {**TIED, "source": "data"}}}},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_spellings_of_one_function_have_one_hash(name: str) -> None:
    one, other = map(DesignPoint.parse, PAIRS[name])
    assert one != other
    assert one.hash == other.hash
    assert DesignPoint.parse(one.to_plain()).hash == one.hash


@pytest.mark.parametrize("name", PAIRS)
def test_and_they_are_one_function(name: str) -> None:
    found = []
    for spec in PAIRS[name]:
        mixer = Mixer(ModelConfig(d_model=8, heads=2), DesignPoint.parse(spec))
        mixer.initialise(torch.Generator().manual_seed(0))
        found.append(mixer(torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1)))[0])
    assert torch.equal(*found)


def test_a_bottleneck_of_a_data_gate_is_another_function() -> None:
    rank, none = ({"retention": {"l2": {"keep": {"source": "data", "rank": n}}}} for n in (4, 0))
    assert DesignPoint.parse(rank).hash != DesignPoint.parse(none).hash
