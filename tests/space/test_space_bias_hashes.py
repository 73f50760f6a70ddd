"""Design points that databases already hold keep their text, their plain form and their hash.

A hash that moves makes a resumed study train everything again beside its old results, so a new option or setting may
not move one. A change that must move them belongs in the changelog, with the migration of stored studies.
"""

from __future__ import annotations

from importlib.resources import files

import pytest

from miras_search.space.design import DesignPoint
from miras_search.space.presets import preset
from miras_search.study.loader import loads

PRESET_HASHES = {
    "linear_attention": "13c8c67d02b7",
    "delta_net": "756fd1faf9d3",
    "gated_delta_net": "461579c3d14a",
    "delta_product": "5d93a149e52d",
    "titans_lmm": "56ceab37d03b",
    "yaad": "a18da383ee73",
    "memora": "1c5e127d676d",
}
# studies/bias.yaml: the cell's name, the point's text after `matrix | `, its hash
CELLS = [
    ("l2", "l2 | none | gd | step data | refined(4), chunk 16, previous", "9a90842909d8"),
    ("dot", "dot | none | gd | step data | refined(4), chunk 16, previous", "b9095c1838ce"),
    ("lp(p=1.5)", "lp(p=1.5) | none | gd | step data | refined(4), chunk 16, previous", "f20f26ca14cb"),
    ("huber(delta=0.5)", "huber(delta=0.5) | none | gd | step data | refined(4), chunk 16, previous", "66b0cd177a33"),
    ("value_shift", "value_shift | none | gd | step data | refined(4), chunk 16, previous", "99c1965af4b5"),
    ("kl", "kl | none | gd | step data | refined(4), chunk 16, previous", "33e11725b598"),
    ("l2 + no_write", "l2 | none | gd | step data | refined(4), chunk 16, previous | no_write", "f29e26e05d43"),
    ("l2 + ascent", "l2 | none | gd | step data | refined(4), chunk 16, previous | ascent", "a6af2202bfb5"),
]
# every setting of every option of the first release
SPELLINGS = {
    "l2 full": ({"l2": {"scale": "full"}}, "61732c9350e3"),
    "lp 1": ({"lp": {"p": 1.0}}, "1684cb8963bd"),
    "lp 1, paper": ({"lp": {"p": 1.0, "scale": "paper", "epsilon": 1e-4}}, "89e679b821c3"),
    "lp 2": ({"lp": {"p": 2.0}}, "756fd1faf9d3"),
    "lp 3, paper": ({"lp": {"p": 3.0, "scale": "paper", "epsilon": 0.01}}, "405964efaf25"),
    "huber": ("huber", "b496468c91bc"),
    "huber coordinate": (
        {"huber": {"form": "coordinate", "delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
        "ac3c159f68eb",
    ),
    "huber switch": ({"huber": {"form": "switch", "delta": 0.7}}, "bc7263013576"),
    "value_shift": (
        {"value_shift": {"delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
        "ae8099935116",
    ),
    "value_shift 0": ({"value_shift": {"delta": 0.0}}, "756fd1faf9d3"),
}
PLAIN = {
    "dot": {"dot": {}},
    "l2": {"l2": {"scale": "half"}},
    "lp": {"lp": {"p": 1.5, "scale": "unit", "epsilon": 1e-6}},
    "huber": {"huber": {"form": "norm", "delta": {"source": "fixed", "value": 1.0}}},
    "value_shift": {"value_shift": {"delta": {"source": "fixed", "value": 0.1}}},
    "kl": {"kl": {}},
}


@pytest.mark.parametrize("name", PRESET_HASHES)
def test_presets_keep_their_hash(name: str) -> None:
    assert preset(name).hash == PRESET_HASHES[name]


def test_the_cells_of_the_bias_study_keep_name_text_and_hash() -> None:
    study = loads(files("miras_search.studies").joinpath("bias.yaml").read_text(encoding="utf-8"), "bias.yaml")
    found = [(cell.name, str(cell.design).removeprefix("matrix | "), cell.design.hash) for cell in study.cells]
    assert found == CELLS


@pytest.mark.parametrize("name", SPELLINGS)
def test_settings_keep_their_hash(name: str) -> None:
    spec, expected = SPELLINGS[name]
    assert DesignPoint.parse({"bias": spec}).hash == expected


@pytest.mark.parametrize("name", PLAIN)
def test_plain_forms_keep_their_keys(name: str) -> None:
    assert DesignPoint.parse({"bias": name}).to_plain()["bias"] == PLAIN[name]
