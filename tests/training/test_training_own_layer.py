"""Training a layer of the user's own: the seed decides its dropout too, and a checkpoint has all of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.training.checkpoint import load_checkpoint
from miras_search.training.config import TrainConfig
from miras_search.training.descent import CompiledDescent, descent_of
from miras_search.training.job import Job, Outcome
from miras_search.training.run import train
from miras_search.training.start import new_model

MODULE = """
import torch
from torch import nn


class Dropped(nn.Module):
    def __init__(self, d_model, drop=0.5):
        super().__init__()
        self.map = nn.Linear(d_model, d_model)
        self.drop = nn.Dropout(drop)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("shift", torch.randn(d_model), persistent=False)

    def forward(self, x):
        self.calls += self.training
        return self.drop(self.map(x).cumsum(1)) + self.shift
"""
TASK = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}
SETTINGS = TrainConfig(steps=3, batch=2, eval_examples=4)


@pytest.fixture(autouse=True)
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `h_trained` on Python's path."""
    (tmp_path / "h_trained.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path / "h_trained.py"
    sys.modules.pop("h_trained", None)


def job(design: object = None, **settings: object) -> Job:
    point = DesignPoint.parse({"mixer": "h_trained.Dropped"} if design is None else design)
    config = TrainConfig.from_plain({**SETTINGS.to_plain(), **settings})
    base = DesignPoint.parse({"mixer": "h_trained.Dropped"}) if settings else None
    return Job(point, ModelConfig(layers=1, d_model=8, heads=1), TASK, config, 0, base)


def test_a_layer_of_ones_own_is_not_compiled() -> None:
    assert not isinstance(descent_of(job(), new_model(job()), "compiled"), CompiledDescent)


def values(outcome: Outcome) -> dict[tuple[str, str], float]:
    measured = ("tokens_per_second", "peak_memory_bytes", "wall_seconds")
    return {(one.name, one.split): one.value for one in outcome.finals if one.name not in measured}


def test_the_same_job_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    torch.manual_seed(1)
    one = values(train(job(), device="cpu"))
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    other = values(train(Job.from_plain(job().to_plain()), device="cpu"))
    assert one == other
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one["params", ""] == 2 * 16 * 8 + 8 + 8 + 8 * 8 + 8
    assert one["flops_per_token", ""] > 0
    assert ("state_bytes", "") not in one  # none, and not 0


def test_a_checkpoint_gives_back_buffers_and_what_was_drawn_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    train(job(), device="cpu", checkpoint=path)
    again, model = load_checkpoint(path)
    assert again == job()
    inner = model.blocks[0].mixer.inner
    assert int(inner.calls) == 3
    fresh = load_checkpoint(path)[1].blocks[0].mixer.inner
    assert torch.equal(inner.shift, fresh.shift)
    tokens, where = torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
    assert torch.equal(model.eval()(tokens, where), load_checkpoint(path)[1].eval()(tokens, where))


def test_a_checkpoint_of_an_edited_layer_is_refused(tmp_path: Path, layers: Path) -> None:
    path = tmp_path / "c.safetensors"
    train(job(), device="cpu", checkpoint=path)
    layers.write_text(MODULE + "\n# edited\n")
    with pytest.raises(SpecError, match="run the study under another name"):
        load_checkpoint(path)


@pytest.mark.parametrize("design", [None, "delta_net"])
def test_a_step_is_not_matched_to_or_for_such_a_layer(design: object) -> None:
    with pytest.raises(SpecError, match=r"train\.inner_step: match_base matches the writes of two memories"):
        job(design, inner_step="match_base")
