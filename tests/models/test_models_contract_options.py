"""The package's own options keep the contract that a user's are tried against; broken ones are in tests/cli."""

from __future__ import annotations

import pytest

from miras_search.models.config import ModelConfig
from miras_search.models.contract_options import examine_design
from miras_search.space.presets import PRESETS, preset

NAMES = ["construction", "shapes", "identity", "gradient", "runs", "definition"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_the_contract(name: str) -> None:
    found = examine_design(preset(name), ModelConfig(d_model=12, heads=2, key_dim=6, value_dim=6))
    assert [one.name for one in found] == NAMES
    assert [one for one in found if not one.ok] == []


def test_memories_of_other_keys_than_values() -> None:
    found = examine_design(preset("gated_delta_net"), ModelConfig(d_model=10, heads=2, key_dim=3, value_dim=4))
    assert [one.found for one in found if one.name == "shapes"] == ["weights [2, 3, 4], signals as values"]
