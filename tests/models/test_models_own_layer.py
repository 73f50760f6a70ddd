"""A layer of the user's own in a model: constructed, drawn, streamed, measured, and every way to be wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from miras_search.errors import MirasError
from miras_search.models import budget
from miras_search.models.config import ModelConfig
from miras_search.models.language import LanguageModel
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError

MODULE = """
from dataclasses import dataclass

import torch
from torch import nn


class Mean(nn.Module):
    '''The mean of the past, without a state.'''

    def __init__(self, d_model, width=None, heads=1, layer=0, drop=0.0):
        super().__init__()
        self.heads, self.layer = heads, layer
        self.down = nn.Linear(d_model, width or d_model)
        self.up = nn.Linear(width or d_model, d_model)
        self.drop = nn.Dropout(drop)
        self.register_buffer("seen", torch.rand(3))
        self.register_buffer("fixed", torch.rand(3), persistent=False)

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device).unsqueeze(-1)
        return self.up(self.drop(self.down(x).cumsum(1) / count)) + self.fixed.sum()


@dataclass
class Sums:
    total: torch.Tensor
    count: int


class Streamed(Mean):
    def forward(self, x, state=None):
        h = self.down(x).cumsum(1) + (0 if state is None else state.total)
        first = 0 if state is None else state.count
        count = torch.arange(first + 1, first + x.shape[1] + 1, dtype=x.dtype).unsqueeze(-1)
        return self.up(h / count), Sums(h[:, -1:], first + x.shape[1])


class Odd(Mean):
    def forward(self, x, state=None):
        return self.up(x), object()


class Alone(Mean):
    def forward(self, x, state=None):
        return self.up(x)


class Pair(Mean):
    def forward(self, x):
        return x, None


class Short(Mean):
    def forward(self, x):
        return x[:, 1:]


class Choosy(nn.Module):
    def __init__(self, d_model, heads):
        super().__init__()
        assert d_model % 3 == 0, "d_model is to be a multiple of 3"


class Plain:
    def __init__(self, d_model):
        pass


def function(d_model):
    return nn.Identity()


made = type("made", (Mean,), {})
number = 3
"""


@pytest.fixture(autouse=True)
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `h_layers` on Python's path."""
    (tmp_path / "h_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path / "h_layers.py"
    sys.modules.pop("h_layers", None)


def model(name: str, seed: int = 0, layers: int = 2, **args: object) -> LanguageModel:
    design = DesignPoint.parse({"mixer": {"module": f"h_layers.{name}", "args": args}})
    made = LanguageModel(ModelConfig(layers=layers, d_model=8, heads=2), design, 11)
    made.initialise(torch.Generator().manual_seed(seed))
    return made


def tokens() -> torch.Tensor:
    return torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))


def test_the_constructor_is_given_width_arguments_and_what_it_names() -> None:
    found = model("Mean", width=3)
    inner = [block.mixer.inner for block in found.blocks]
    assert [one.layer for one in inner] == [0, 1]
    assert inner[0].heads == 2
    assert inner[0].down.weight.shape == (3, 8)
    assert model("Mean", heads=5).blocks[0].mixer.inner.heads == 5  # what the study says wins
    assert budget.parameters(found) == 2 * 11 * 8 + 8 + 2 * (8 + 9 * 3 + 4 * 8)


def test_draws_follow_the_seed_alone_and_leave_the_global_generator() -> None:
    torch.manual_seed(5)
    one, before = model("Mean"), torch.random.get_rng_state()
    torch.manual_seed(6)
    same, other = model("Mean"), model("Mean", seed=1)
    assert torch.equal(torch.random.get_rng_state(), torch.Generator().manual_seed(6).get_state())
    assert torch.equal(before, torch.Generator().manual_seed(5).get_state())
    pairs = zip([*one.parameters(), *one.buffers()], [*same.parameters(), *same.buffers()], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.blocks[0].mixer.inner.down.weight, other.blocks[0].mixer.inner.down.weight)
    inner = [block.mixer.inner for block in one.blocks]
    assert not torch.equal(inner[0].down.weight, inner[1].down.weight)


@pytest.mark.parametrize("name", ["Mean", "Streamed"])
def test_segments_are_the_whole(name: str) -> None:
    made = model(name)
    whole, _ = made.stream(tokens())
    states, parts = None, []
    for part in tokens().split([1, 5, 3], 1):
        hidden, states = made.stream(part, states)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_the_state_is_measured_where_there_is_one_and_is_not_zero_where_there_is_none() -> None:
    assert budget.state_bytes(model("Streamed"), 7) == 2 * 8 * 4
    assert budget.state_bytes(model("Mean"), 7) is None
    assert budget.state_bytes(model("Odd"), 7) is None  # whatever such a state holds


def test_work_is_counted() -> None:
    per_layer = 2 * 2 * 8 * 8
    assert budget.flops_per_token(model("Mean"), 6) == 2 * per_layer + 2 * 8 * 11


def test_gradients_reach_the_layer_and_steps_have_no_scale() -> None:
    made = model("Streamed")
    made(tokens(), torch.zeros(2, 1, dtype=torch.long) + 8).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    made.scale_steps(3.0)
    assert made.step_scale == 1.0


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Alone", "Alone: forward has a parameter 'state', so it returns (y, state)"),
        ("Pair", "Pair: forward returned a tuple: name a parameter 'state' if it streams"),
        ("Short", "Short: forward made [2, 8, 8] of [2, 9, 8]: a layer keeps the shape"),
    ],
)
def test_a_forward_that_breaks_the_contract_says_how(name: str, what: str) -> None:
    with pytest.raises(MirasError) as caught:
        model(name).stream(tokens())
    assert str(caught.value) == what


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Choosy", "mixer: Choosy(d_model=8, heads=2) raised AssertionError: d_model is to be a multiple of 3"),
        ("Plain", "mixer: h_layers.Plain is no torch.nn.Module: derive it from one"),
        ("number", "mixer: h_layers.number is int, not a class"),
    ],
)
def test_a_class_that_cannot_be_used_says_why(name: str, what: str) -> None:
    with pytest.raises(SpecError) as caught:
        model(name)
    assert str(caught.value) == what


def test_a_name_that_is_computed_is_found_when_it_is_there() -> None:
    assert budget.parameters(model("made")) == budget.parameters(model("Mean"))


def test_an_edited_file_is_refused_by_a_design_that_knew_it_before(layers: Path) -> None:
    design = DesignPoint.parse({"mixer": "h_layers.Mean"})
    layers.write_text(MODULE + "\n# edited\n")
    edited = DesignPoint.parse({"mixer": "h_layers.Mean"})
    assert design.hash != edited.hash
    assert DesignPoint.parse(design.to_plain()) == design
    with pytest.raises(SpecError, match=r"mixer: the source of h_layers\.Mean is \w+ here and \w+ in this design"):
        LanguageModel(ModelConfig(layers=1, d_model=8), design, 11)
