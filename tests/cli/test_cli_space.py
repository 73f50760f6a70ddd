"""`space`: a design from choices or the reasons against it, plugins, the count of combinations, and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from miras_search.space import plugins
from miras_search.space.combinations import count
from miras_search.space.design import AXES, DesignPoint
from miras_search.space.presets import PRESETS, preset
from miras_search.study.loader import loads

DOCS = Path(__file__).resolve().parents[2] / "docs"
MODULE = """
from dataclasses import dataclass
from miras_search.space.retention import RETENTION

@RETENTION.register
@dataclass(frozen=True, slots=True)
class Still:
    '''Nothing moves that has been written.'''
    name = "still"
    equation = "W = Z"
"""


@pytest.fixture(autouse=True)
def forget() -> object:
    yield
    plugins.use(())


def test_choices_make_a_design_that_can_be_copied_into_a_study(cli) -> None:
    words = [
        "memory={mlp: {depth: 3}}",
        "execution.gradient=frozen",
        "bias=huber",
        "bias.delta=0.5",
        "memory.affine=true",
    ]
    point = DesignPoint.parse(
        {
            "memory": {"mlp": {"depth": 3, "affine": True}},
            "bias": {"huber": {"delta": 0.5}},
            "execution": {"gradient": "frozen"},
        }
    )
    document = cli("space", *words, "--json").json
    assert document["hash"] == point.hash
    assert document["design"] == point.to_plain()
    assert document["options"]["bias"]["name"] == "huber"
    result = cli("space", *words)
    assert (result.code, result.err) == (0, "")
    assert f"design {point.hash}" in result.out
    assert "valid with 16 key channels and 16 value channels a head" in result.out
    base = result.out[result.out.rindex("    base:\n") :]
    text = "name: t\ntask: mqar\n" + "".join(f"{line[4:]}\n" for line in base.splitlines())
    assert loads(text, "t.yaml").base.hash == point.hash


def test_choices_refine_a_preset(cli) -> None:
    document = cli("space", "--preset", "yaad", "step=0.5", "--json").json
    assert document["hash"] == preset("yaad").changed("step", 0.5).hash


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_spelled_out(cli, name: str) -> None:
    """What is printed makes the preset's own design and layer when it is copied into a study."""
    result = cli("space", "--preset", name)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[:3] == [name, f"  {PRESETS[name].equation}", f"  {PRESETS[name].source}"]
    spelled = result.out[result.out.rindex("    base:\n") :]
    text = "name: t\ntask: mqar\n" + "".join(f"{line[4:]}\n" for line in spelled.splitlines())
    study, named = loads(text, "t.yaml"), loads(f"name: t\ntask: mqar\nbase: {name}\n", "t.yaml")
    assert study.base.hash == named.base.hash == preset(name).hash
    assert study.cells[0].model == named.cells[0].model


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["bias=dot", "algorithm={multi_step: {own_keys: false}}"],
            "algorithm: the dot bias is linear in the value, so several steps on one pair are one step n times as "
            "long: set own_keys: true or scale the step",
        ),
        (
            ["memory=mlp", "model.value_dim=8"],
            "memory: a residual memory adds its input to its output, so key and value dimensions must be equal: "
            "set residual: false or model.value_dim to model.key_dim",
        ),
        (["bias=hubr"], "bias: unknown bias 'hubr' (did you mean 'huber'?)"),
        (["bais=dot"], "bais: unknown axis 'bais' (did you mean 'bias'?)"),
        (["bias.delta=1"], "bias.delta: the bias 'l2' has no setting 'delta'"),
        (["bias=l2", "bias=dot"], "bias: it is given twice: leave one out"),
        (["bias=huber", "bias.delta=0"], "bias.delta: the threshold must be positive"),
        (["memory=mlp", "memory.expansion=0"], "memory.expansion: 0 is not between 1 and 64"),
        (["step.value=-1"], "step.value: a data sigmoid gate starts strictly between 0 and 1"),
        (["dot"], "dot: expected PATH=VALUE, as in bias=dot"),
        (["bias=[dot"], "bias=[dot: not readable as YAML: while parsing a flow sequence: expected ',' or ']'"),
        (["--markdown", "--json"], "space: --markdown and --json are two forms of one answer: give one"),
        (["--tasks", "bias=dot"], "space: --tasks, --kernels, --markdown and a design"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_choices_is_one_line_each(cli, words: list[str], line: str) -> None:
    result = cli("space", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


def test_every_reason_against_a_pair_is_told(cli) -> None:
    result = cli("space", "memory=attention", "retention=kl", "algorithm=gd")
    assert result.code == 2
    assert "memory: a memory that keeps the pairs themselves is read by the nonparametric algorithm" in result.err


def test_the_number_of_combinations_is_printed(cli) -> None:
    found = count()
    text, document = cli("space").out, cli("space", "--json").json
    assert f"{found.valid:,} are valid of {found.written:,} structural ones, {found.different:,} of them" in text
    assert document["combinations"] == {
        "written": found.written,
        "valid": found.valid,
        "different": found.different,
    }


def test_facts_of_every_option_are_printed(cli) -> None:
    text, document = cli("space").out, cli("space", "--json").json
    dot = next(one for one in document["axes"]["bias"]["options"] if one["name"] == "dot")
    assert dot["axis"] == "bias" and dot["module"].startswith("miras_search.space.bias") and dot["plugin"] is None
    assert any("several steps on one pair" in reason for reason in dot["couplings"])
    assert "! the dot bias is linear in the value" in text
    huber = next(one for one in document["axes"]["bias"]["options"] if one["name"] == "huber")
    assert huber["settings"]["form"]["choices"][:2] == ["coordinate", "norm"]


def test_options_of_a_plugin_are_shown_and_forgotten(cli, here: Path) -> None:
    Path("mine.py").write_text(MODULE)
    before = len(AXES["retention"].options)
    result = cli("space", "--plugins", "mine")
    assert (result.code, result.err) == (0, "")
    assert "  still: Nothing moves that has been written.\n      W = Z\n" in result.out
    assert "from the plugin mine" in result.out
    document = cli("space", "--plugins", "mine", "--json").json
    still = document["axes"]["retention"]["options"][-1]
    assert (still["name"], still["plugin"], still["source"]) == ("still", "mine", "the module mine")
    assert cli("space", "--plugins", "mine", "retention=still").code == 0
    assert cli("space", "retention=still").err.startswith("retention: unknown retention 'still'")
    assert len(AXES["retention"].options) == before


def test_a_plugin_that_is_not_there_is_told(cli) -> None:
    result = cli("space", "--plugins", "mine")
    assert result.code == 2
    assert result.err.startswith("plugins.0: no module 'mine': no file ")


def test_the_page_of_the_design_space_is_current(cli) -> None:
    assert (DOCS / "space.md").read_text() == cli("space", "--markdown").out, (
        "the options have changed: miras-search space --markdown > docs/space.md"
    )
