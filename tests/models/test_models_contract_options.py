"""The package's own options keep the contract that a user's are tried against; broken ones are in tests/cli."""

from __future__ import annotations

import optuna
import pytest

from miras_search.models.config import ModelConfig
from miras_search.models.contract_options import examine_design
from miras_search.space.presets import PRESETS, preset
from miras_search.space.sampling import Space

NAMES = ["construction", "shapes", "identity", "gradient", "runs", "definition"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_the_contract(name: str) -> None:
    found = examine_design(preset(name), ModelConfig(d_model=12, heads=2, key_dim=6, value_dim=6))
    assert [one.name for one in found] == NAMES
    assert [one for one in found if not one.ok] == []


@pytest.mark.parametrize(("seed", "count"), [(0, 40), pytest.param(1, 1500, marks=pytest.mark.slow)])
def test_designs_from_the_whole_space_keep_it(seed: int, count: int) -> None:
    """Chunks are what the definition gives token by token, outputs and all gradients, whatever is put together."""
    space = Space.parse("any", dims=((4, 4), (3, 5)))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    broken = []
    for number in range(count):
        design = space.suggest(draws.ask()).design
        sizes = {"key_dim": 3, "value_dim": 5} if number % 2 else {"key_dim": 4, "value_dim": 4}
        found = examine_design(design, ModelConfig(d_model=8, heads=2, **sizes), seed=number)
        broken += [(str(design), one.name, one.found) for one in found if not one.ok]
    assert broken == []


def test_memories_of_other_keys_than_values() -> None:
    found = examine_design(preset("gated_delta_net"), ModelConfig(d_model=10, heads=2, key_dim=3, value_dim=4))
    assert [one.found for one in found if one.name == "shapes"] == ["weights [2, 3, 4], signals as values"]
