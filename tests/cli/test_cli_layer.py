"""`check --mixer`: each property of a layer, told where it does not hold; and wrong usage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from miras_search.space import plugins

LAYERS = """\
import numpy as np
import torch
from torch import nn


class Good(nn.Module):
    def __init__(self, d_model, width=4):
        super().__init__()
        self.down, self.up = nn.Linear(d_model, width), nn.Linear(width, d_model)

    def forward(self, x, state=None):
        h = self.down(x).cumsum(1) + (0 if state is None else state)
        return self.up(h), h[:, -1:]


class Quiet(Good):
    def forward(self, x):
        return self.up(self.down(x))


class Ahead(Good):
    def forward(self, x):
        return self.up(self.down(x).flip(1).cumsum(1).flip(1))


class Leaks(Good):  # only from the next token, and little
    def forward(self, x):
        return self.up(self.down(x)) + 1e-2 * torch.cat([x[:, 1:], x[:, :1] * 0], 1)


class Mixed(Good):
    def forward(self, x):
        return self.up(self.down(x)) + x.mean(0)


class Loose(Good):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.noise = nn.Parameter(torch.from_numpy(np.random.default_rng().normal(size=d_model)).float())

    def forward(self, x):
        return self.up(self.down(x)) + self.noise


class Noisy(Good):
    def forward(self, x):
        return self.up(self.down(x)) + torch.rand(x.shape[-1])


class Idle(Good):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.unused = nn.Linear(2, 2)


class Frozen(Good):
    def forward(self, x):
        return self.up(self.down(x.detach()))


class Forgets(Good):
    def forward(self, x, state=None):
        return self.up(self.down(x).cumsum(1)), None


class Infinite(Good):
    def forward(self, x):
        return self.up(self.down(x)) / 0


class Short(Good):
    def forward(self, x):
        return x[:, 1:]


class Even(Good):
    def forward(self, x):
        return self.up(self.down(x.unflatten(1, (-1, 2))).flatten(1, 2))


class Padded(Good):
    def forward(self, x):
        return self.up(self.down(x)) * x.shape[1]


class Picky(Good):
    def __init__(self, d_model):
        assert d_model == 7, "7 or nothing"
"""
# class -> the properties that do not hold, and a phrase of the first one's reason
BROKEN = {
    "Ahead": ({"causality", "lengths"}, "the output at token 0 changes"),
    "Leaks": ({"causality", "lengths"}, "with inputs from token 1 on"),
    "Mixed": ({"batch"}, "sequence 0 alone gives other outputs"),
    "Loose": ({"determinism"}, "two builds from one seed differ in 'noise': draw by torch alone"),
    "Noisy": ({"causality", "lengths", "batch", "determinism"}, ""),
    "Idle": ({"gradients"}, "none reaches unused.weight, unused.bias: unused"),
    "Frozen": ({"gradients"}, "none reaches the input"),
    "Forgets": ({"streaming"}, "segments of 1, 6, 10 tokens differ from the whole"),
    "Infinite": (
        {"finite", "causality", "lengths", "batch", "gradients"},
        "are not finite at the start",
    ),
    "Padded": ({"lengths"}, "a sequence of 1 has other outputs"),
    "Picky": ({"construction"}, "Picky(d_model=8) raised AssertionError: 7 or nothing"),
}


@pytest.fixture
def layers(here: Path) -> Iterator[Path]:
    """A module `h_tried` in the working directory."""
    path = here / "h_tried.py"
    path.write_text(LAYERS)
    yield path
    plugins.use(())


def test_a_layer_that_keeps_the_contract(cli, layers: Path) -> None:
    result = cli("check", "--mixer", "h_tried.Good", "--args", '{"width": 3}', "--d-model", "7")
    assert (result.code, result.err) == (0, "")
    first, *lines = result.out.splitlines()
    assert first.startswith("Good(width=3) (source ")
    names = [
        "construction",
        "shape",
        "finite",
        "causality",
        "lengths",
        "batch",
        "determinism",
        "gradients",
        "streaming",
    ]
    assert [line.split()[:2] for line in lines[:-1]] == [["ok", name] for name in names]
    assert lines[-1].split(maxsplit=1) == ["costs", f"{7 * 3 + 3 + 3 * 7 + 7} parameters, 12 bytes of state a sequence"]


def test_a_layer_without_a_state_keeps_it_too(cli, layers: Path) -> None:
    found = cli("check", "--mixer", "h_tried.Quiet", "--d-model", "8", "--json").json
    assert (found["ok"], found["parameters"], found["state_bytes"]) == (True, 8 * 4 + 4 + 4 * 8 + 8, None)
    assert found["mixer"]["module"] == "h_tried.Quiet"


@pytest.mark.parametrize("name", BROKEN)
def test_each_property_that_does_not_hold_is_told(cli, layers: Path, name: str) -> None:
    expected, phrase = BROKEN[name]
    result = cli("check", "--mixer", f"h_tried.{name}", "--d-model", "8", "--json")
    assert result.code == 1
    properties = result.json["properties"]
    broken = {one["name"]: one["found"] for one in properties if not one["ok"]}
    assert set(broken) == expected
    assert phrase in next(iter(broken.values()))


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("Short", "forward made [3, 16, 8] of [3, 17, 8]: a layer keeps the shape"),
        ("Even", "raised RuntimeError: "),
    ],
)
def test_what_a_layer_raises_is_told_at_its_line(cli, layers: Path, name: str, phrase: str) -> None:
    result = cli("check", "--mixer", f"h_tried.{name}", "--d-model", "8")
    assert result.code == 1
    (line,) = [line for line in result.out.splitlines() if line.split()[1] == "shape"]
    assert line.split()[0] == "FAILED"
    assert phrase in line
    assert name == "Short" or "h_tried.py:" in line


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--mixer", "h_tried.Gold"], "--mixer.module: h_tried.py has no class 'Gold' (did you mean 'Good'?)"),
        (
            ["--mixer", "h_tried.Good", "--args", '{"widht": 1}'],
            "--mixer.args.widht: Good.__init__ has no such parameter",
        ),
        (["--mixer", "h_tried.Good", "--args", "{"], "--args: not JSON: "),
        (["--mixer", "h_tried.Good", "--args", "3"], "--args: expected an object of arguments"),
        (["--mixer", "h_nowhere.Good"], "--mixer.module: no module 'h_nowhere' on Python's path"),
        (["--mixer", "h_tried.Good", "bias"], "check: a layer and studies are checked apart"),
        ([], "check: name a study file, a shipped study, or a layer of your own by --mixer"),
    ],
)
def test_wrong_usage_is_one_line(cli, layers: Path, words: list[str], what: str) -> None:
    result = cli("check", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(what)
    assert result.err.count("\n") == 1
