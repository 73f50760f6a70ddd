"""`check` and `run` try a plugin's options: mistakes that train as well as any are told, and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from miras_search.space import plugins

OPTIONS = """\
import torch
from dataclasses import dataclass
from miras_search.space.bias import BIAS
from miras_search.space.fields import setting
from miras_search.space.gates import Gate, fixed
from miras_search.space.memory import MEMORY, Layer
from miras_search.space.retention import RETENTION


class Cubic:
    equation = "l = sum_j r_j^4 / 4"
    power = 3.0

    def loss(self, p, v, threshold):
        return (p - v).abs().pow(self.power + 1).sum(-1) / (self.power + 1)

    def signal(self, p, v, threshold):
        return (p - v).sign() * (p - v).abs().pow(self.power)


@BIAS.register
@dataclass(frozen=True, slots=True)
class Right(Cubic):
    name = "right"
    power: float = setting(2.0, "of the residual")


@BIAS.register
@dataclass(frozen=True, slots=True)
class Rule(Cubic):
    name = "rule"  # descends no loss, and says so

    def loss(self, p, v, threshold):
        return None

    def signal(self, p, v, threshold):
        return torch.tanh(p) - v


@BIAS.register
@dataclass(frozen=True, slots=True)
class Bounded(Cubic):
    name = "bounded"  # with a threshold a head
    delta: Gate = setting(fixed(1.0), "where it begins to be linear")

    def loss(self, p, v, threshold):
        return torch.nn.functional.huber_loss(p / threshold, v / threshold, reduction="none").sum(-1)

    def signal(self, p, v, threshold):
        return ((p - v) / threshold).clamp(-1, 1) / threshold


@BIAS.register
@dataclass(frozen=True, slots=True)
class Wrong(Cubic):
    name = "wrong"

    def signal(self, p, v, threshold):
        return p - v


@BIAS.register
@dataclass(frozen=True, slots=True)
class Half(Cubic):
    name = "half"

    def loss(self, p, v, threshold):
        return (p - v).abs().pow(4) / 4


@BIAS.register
@dataclass(frozen=True, slots=True)
class Stretched(Cubic):
    name = "stretched"

    def signal(self, p, v, threshold):
        return (p - v).mean(-1, keepdim=True)


@BIAS.register
@dataclass(frozen=True, slots=True)
class Raising(Cubic):
    name = "raising"

    def signal(self, p, v, threshold):
        raise NotImplementedError("on a GPU only")


@BIAS.register
@dataclass(frozen=True, slots=True)
class Straight(Cubic):
    name = "straight"
    slope = 1.0  # it has none: its signal is a cube


@RETENTION.register
@dataclass(frozen=True, slots=True)
class Kept(Cubic):
    name = "kept"
    equation = "W = tanh(Z)"
    identity = True  # it is none

    def link(self, dual, static):
        return torch.tanh(dual)


@MEMORY.register
@dataclass(frozen=True, slots=True)
class Narrow:
    name = "narrow"
    equation = "M(x) = x W, summed"

    def layers(self, key_dim, value_dim):
        return (Layer(key_dim, value_dim, True, True),)

    def forward(self, x, lin, static):
        return lin(0, x).sum(-1, keepdim=True)


@MEMORY.register
@dataclass(frozen=True, slots=True)
class Endless(Narrow):
    name = "endless"
    equation = "M(x) = x W / 0"

    def forward(self, x, lin, static):
        return lin(0, x) / 0
"""
STUDY = """\
name: tried
question: Do they keep the contract?
plugins: [h_options]
task: {name: mqar, vocab: 16, length: 16, pairs: 2}
model: {layers: 1, d_model: 16, heads: 2}
train: {steps: 2, batch: 4, eval_examples: 8}
base: delta_net
seeds: 2
vary: {}
"""
RIGHT = ["right", "right: {power: 1.0}", "rule", "bounded"]
# axis and option -> the property that does not hold, and a phrase of what is said
BROKEN = {
    ("bias", "wrong"): ("gradient", "signal is not the gradient of loss (off by "),
    ("bias", "half"): ("gradient", "one number a token"),
    ("bias", "stretched"): ("shapes", "signal is [3, 2, 17, 1] for predictions [3, 2, 17, 8]"),
    ("bias", "raising"): ("shapes", "raised NotImplementedError: on a GPU only ("),
    ("bias", "straight"): ("definition", "are not those of token by token (off by "),
    ("retention", "kept"): ("identity", "identity is true, and link makes other weights"),
    ("memory", "narrow"): ("shapes", "forward predicts [3, 2, 17, 1] where values are [3, 2, 17, 8]"),
    ("memory", "endless"): ("definition", "outputs are not finite, however short the steps"),
}


@pytest.fixture
def study(here: Path) -> Iterator[str]:
    """A study in the working directory beside the options."""
    Path("h_options.py").write_text(OPTIONS)
    Path("tried.yaml").write_text(STUDY)
    yield "tried.yaml"
    plugins.use(())


def varied(axis: str, *options: str) -> tuple[str, str]:
    return "--set", f"vary={{{axis}: [{', '.join(f'{{{one}}}' if ':' in one else one for one in options)}]}}"


def test_what_keeps_the_contract_is_named(cli, study: str) -> None:
    result = cli("check", study, *varied("bias", "l1", *RIGHT))
    assert (result.code, result.err) == (0, "")
    tried = "bias right, bias right(power=1.0), bias rule, bias bounded"
    assert result.out == f"tried.yaml: ok (6 cells, 12 jobs; tried: {tried})\n"
    assert cli("check", study, *varied("bias", "l1")).out == "tried.yaml: ok (2 cells, 4 jobs)\n"


@pytest.mark.parametrize(("axis", "option"), BROKEN)
def test_what_does_not_is_refused_before_anything_is_stored(cli, study: str, axis: str, option: str) -> None:
    name, phrase = BROKEN[axis, option]
    words = varied(axis, option)
    checked = cli("check", study, *words)
    assert (checked.code, checked.out) == (2, "")
    assert checked.err.startswith(f"tried.yaml: {axis} {option}: {name}: ")
    assert phrase in checked.err
    assert checked.err.count("\n") == 1
    if name == "shapes" and "raised" in phrase:
        assert "h_options.py:" in checked.err
    refused = cli("run", study, *words, "--executor", "local", "--workers", "1")
    assert (refused.code, refused.out, refused.err) == (2, "", checked.err)
    assert not list(Path().glob("miras.db*"))


def test_an_option_is_blamed_alone_where_it_is_alone(cli, study: str) -> None:
    both = "vary={bias: [l2, right, wrong], retention: [none, kept]}"
    found = cli("check", study, "--set", both, "--set", "design=factorial", "--json").json["studies"][0]
    assert found["ok"] is False
    assert {one["where"] for one in found["problems"]} == {"bias wrong", "retention kept"}
    assert set(found["tried"]) == {"bias right", "bias wrong", "retention kept"}


def test_options_of_a_search_are_tried_too(cli, study: str) -> None:
    search = "name: tried\nquestion: Which?\nkind: search\nspace: {bias: [l2, right, wrong]}\ntrials: 4\n"
    kept = [line for line in STUDY.splitlines() if line.partition(":")[0] in ("plugins", "task", "model", "base")]
    Path(study).write_text("\n".join([search, "train: {steps: 8, batch: 4, eval_every: 2}", *kept]))
    result = cli("check", study)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("tried.yaml: bias wrong: gradient: ")


def test_one_that_raises_here_may_have_its_gpu_elsewhere(cli, study: str) -> None:
    """The driver of a cluster need not have what its workers have; what was measured here holds there too."""
    words = ("--executor", "local", "--workers", "1", "--set", "resources.gpus=1")
    assert "resources.gpus: 1 a job" in cli("run", study, *varied("bias", "raising"), *words).err
    assert "signal is not the gradient" in cli("run", study, *varied("bias", "wrong"), *words).err
