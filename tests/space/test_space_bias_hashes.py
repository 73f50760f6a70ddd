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
    "linear_attention": "859745820ad8",
    "delta_net": "5ccb0a5fd986",
    "gated_delta_net": "0e06cf26ba32",
    "delta_product": "11d0bbe6011c",
    "titans_lmm": "5c0f24af8a71",
    "yaad": "2f17f4ac3316",
    "memora": "11517c2e9541",
}
# studies/bias.yaml: the cell's name, the point's text after `matrix | `, its hash
CELLS = [
    ("l2", "l2 | none | gd | step data | refined(4), chunk 16, previous", "1757e247d6aa"),
    ("dot", "dot | none | gd | step data | refined(4), chunk 16, previous", "2b27a21ee274"),
    ("lp(p=1.5)", "lp(p=1.5) | none | gd | step data | refined(4), chunk 16, previous", "fed4c14589c7"),
    ("huber(delta=0.5)", "huber(delta=0.5) | none | gd | step data | refined(4), chunk 16, previous", "fba7eff80565"),
    ("value_shift", "value_shift | none | gd | step data | refined(4), chunk 16, previous", "9cb5b02f825a"),
    ("kl", "kl | none | gd | step data | refined(4), chunk 16, previous", "aa00e24e45ac"),
    ("l2 + no_write", "l2 | none | gd | step data | refined(4), chunk 16, previous | no_write", "b83d5210611c"),
    ("l2 + ascent", "l2 | none | gd | step data | refined(4), chunk 16, previous | ascent", "4d711fdbd73f"),
]
# every setting of every option of the first release
SPELLINGS = {
    "l2 full": ({"l2": {"scale": "full"}}, "309aef9a3510"),
    "lp 1": ({"lp": {"p": 1.0}}, "071fc02858bd"),
    "lp 1, paper": ({"lp": {"p": 1.0, "scale": "paper", "epsilon": 1e-4}}, "929f8eb1991e"),
    "lp 2": ({"lp": {"p": 2.0}}, "5ccb0a5fd986"),
    "lp 3, paper": ({"lp": {"p": 3.0, "scale": "paper", "epsilon": 0.01}}, "5417f173090c"),
    "huber": ("huber", "19913e4d9cb7"),
    "huber coordinate": (
        {"huber": {"form": "coordinate", "delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
        "5d81bd86c7f7",
    ),
    "huber switch": ({"huber": {"form": "switch", "delta": 0.7}}, "d52ddbfbdaaa"),
    "value_shift": (
        {"value_shift": {"delta": {"source": "data", "squash": "softplus", "value": 1.0}}},
        "501217342cdc",
    ),
    "value_shift 0": ({"value_shift": {"delta": 0.0}}, "5ccb0a5fd986"),
}
PLAIN = {
    "dot": {"dot": {}},
    "l2": {"l2": {"scale": "half"}},
    "lp": {"lp": {"p": 1.5, "scale": "unit", "epsilon": 1e-6, "smoothing": "epsilon", "sharpness": 10.0}},
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
