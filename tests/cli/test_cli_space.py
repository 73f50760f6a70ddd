"""`space`: a design from choices or the reasons against it, plugins, the count of combinations, and the page."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from miras_search.space import plugins
from miras_search.space.combinations import count
from miras_search.space.design import AXES, DesignPoint
from miras_search.space.presets import PRESETS, preset
from miras_search.study.homes import SETTINGS
from miras_search.study.keys import keys
from miras_search.study.loader import loads
from miras_search.study.schema import Confirm, Resources, SearchFile, StudyFile

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
        (["bias=l2", "dot"], "dot: expected PATH=VALUE, as in bias=dot"),
        (["--preset", "yaad", "dot"], "dot: expected PATH=VALUE, as in bias=dot"),
        (["huebr"], "huebr: neither PATH=VALUE, as in bias=dot, nor an axis, option, preset, task, metric, key or "
                    "setting (did you mean 'huber'?)"),
        (["xyzzy"], "xyzzy: neither PATH=VALUE, as in bias=dot, nor an axis, option, preset, task, metric, key or "
                    "setting; `miras-search space` lists them"),
        (["bias", "max_seeds"], "max_seeds: it is told on the page of the study file: see `miras-search space --study"),
        (["step.lr"], "step.lr: neither PATH=VALUE"),
        (["delta=3"], "delta: unknown axis 'delta' (it is a setting: write bias.delta)"),
        (["--study", "bias"], "space: --tasks, --kernels, --study, --markdown, and names or a design show different"),
        (["bias=[dot"], "bias=[dot: not readable as YAML: while parsing a flow sequence: expected ',' or ']'"),
        (["--markdown", "--json"], "space: --markdown and --json are two forms of one answer: give one"),
        (["--tasks", "bias=dot"], "space: --tasks, --kernels, --study, --markdown, and names or a design"),
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


def test_the_page_of_the_study_file_is_current(cli) -> None:
    assert (DOCS / "study.md").read_text() == cli("space", "--study", "--markdown").out, (
        "keys or settings have changed: miras-search space --study --markdown > docs/study.md"
    )


def test_every_key_and_setting_is_told(cli) -> None:
    text, document = cli("space", "--study").out, cli("space", "--study", "--json").json
    told = {(key["where"], key["name"]): key for key in document["keys"]}
    for file, where in ((StudyFile, "kind: ablation"), (SearchFile, "kind: search")):
        names = [*file.model_fields, *(f"resources.{name}" for name in Resources.model_fields)]
        for name in [*names, *(f"confirm.{name}" for name in Confirm.model_fields if file is SearchFile)]:
            key = told.get((where, name)) or told["every study", name]
            assert key["help"], name
            assert f"{name}:" in text or f"{name} = " in text
    assert told["kind: ablation", "seeds"]["default"] == 10
    assert told["every study", "resources.save_every"]["default"] == "10 min"  # as a file has it, not in seconds
    assert told["kind: ablation", "controls_on"]["words"] == "base | cells"
    assert told["every study", "base"]["needed"] and not told["every study", "question"]["needed"]
    for block, cls in SETTINGS.items():
        assert list(document["settings"][block]) == [field.name for field in fields(cls)]
        assert all(one["help"] for one in document["settings"][block].values())
    assert {task["name"] for task in document["tasks"]} == {"mqar", "noisy_recall", "text"}


def test_defaults_that_are_told_are_those_of_a_study_that_says_nothing(cli) -> None:
    """Each default, written into the file, makes the study that leaves it out."""
    start = "name: t\ntask: mqar\nbase: delta_net\n"
    for kind, more in (("kind: ablation", ""), ("kind: search", "kind: search\nspace: {bias: any}\n")):
        plain = loads(f"{start}{more}", "t.yaml")
        for key in cli("space", "--study", "--json").json["keys"]:
            if key["where"] in ("every study", kind) and key["default"] is not None and key["name"] != "resolution":
                same = loads(f"{start}{more}", "t.yaml", [f"{key['name']}={json.dumps(key['default'])}"])
                assert (same.config, same.resources) == (plain.config, plain.resources), key["name"]


LEVELS = {
    "memory": "vector", "bias": "{lp: {p: 1.5}}", "retention": "none", "algorithm": "momentum",
    "bias.delta": "0.5", "memory.expansion": "2", "retention.keep": "0.9", "step": "0.5", "execution.chunk": "8",
    "execution.gradient": "exact", "preset": "gla", "model.conv": "0", "train.lr": "2e-2",
}  # fmt: skip
"""A level for every path that docs/study.md names."""


@pytest.mark.parametrize("name", ["lr", "train.lr", "keep", "bias.delta", "cpus", "vocab", "accuracy", "step.value"])
def test_every_name_of_the_page_can_be_asked_for(cli, name: str) -> None:
    """A setting by its name or its path, a key of a block, a task's setting, a metric."""
    told, document = cli("space", name), cli("space", name, "--json").json
    assert (told.code, told.err) == (0, "")
    things = document["named"][name]
    assert told.out.count("\n\n") == len(things) - 1
    for one in (data for thing in things for kind, data in thing.items() if kind != "key"):
        assert " ".join(one["help"].split()[:4]) in told.out


def test_a_setting_that_can_be_none_takes_the_word_and_nothing(cli) -> None:
    """Help and tables say none."""
    start = "name: t\ntask: mqar\nbase: delta_net\nmodel: "
    word, nothing = (loads(f"{start}{{key_dim: {value}}}", "t.yaml") for value in ("none", "null"))
    assert word.cells == nothing.cells and word.cells[0].model.key_dim is None
    assert "key_dim = none: " in cli("space", "model").out


def test_what_the_page_shows_can_be_written(cli) -> None:
    """The example, every path with a level, the blocks, and every form of a space."""
    page = (DOCS / "study.md").read_text()
    example = "".join(line[4:] for line in page.partition("    name:")[2].splitlines(keepends=True)[1:10])
    study = loads(f"name: bias\n{example}", "t.yaml")
    names = [cell.name for cell in study.cells]
    assert names == ["delta_net", "dot", "huber(delta=0.5)", "conv=0", "delta_net + no_write"]
    ablation, search = "name: t\ntask: mqar\nbase: delta_net\n", "name: t\ntask: mqar\nbase: delta_net\nkind: search\n"
    blocks = re.findall(r"^    ((?:tune|top_up|match|rival): .*)$", page, re.M)
    assert len(blocks) == 4
    for block in blocks:
        loads(f"{search}space: {{bias: any}}\n{block}" if block.startswith("rival") else f"{ablation}{block}", "t.yaml")
    paths = page.partition("## Paths and levels")[2].partition("##")[0]
    named = [one for row in re.findall(r"^\| (`.*?) \|", paths, re.M) for one in re.findall(r"`([^`]+)`", row)]
    preset_level = (re.search(r"`(\{preset: gla.*?\}\})`", paths) or [""])[1]
    assert set(named) == {*LEVELS, "mixer"}
    start = "name: t\ntask: mqar\nexecution: {gradient: frozen}\n"
    start += "base: {preset: gated_delta_net, memory: {mlp: {residual: false}}, bias: huber}\n"
    for path, level in LEVELS.items():
        base, cell = loads(f"{start}vary: {{{path}: [{level}]}}", "t.yaml").cells
        assert (cell.design, cell.model, cell.train) != (base.design, base.model, base.train), path
    _, gla, other = loads(f"{ablation}vary: {{preset: [gla, {preset_level}]}}", "t.yaml").cells
    assert gla.design == other.design and gla.model != other.model
    loads("name: t\ntask: mqar\nbase: {preset: yaad, bias: {huber: {delta: 0.5}}}\n", "t.yaml")
    table = page.partition("## What a search may choose")[2].partition("##")[0]
    spaces = [one for row in re.findall(r"^\| (`.*?`) \|", table, re.M) for one in re.findall(r"`([^`]+)`", row)]
    assert len(spaces) == 13
    for one in spaces:
        written = f"bias: {{lp: {{p: {one}}}}}" if one.startswith("{") else one
        written = written.replace("[a, b]", "[1, 2]")
        if "int:" in written:
            written = f"model.heads: {one.replace('[a, b]', '[1, 2]')}"
        loads(f"{search}space: {{{written}}}\n", "t.yaml")


def test_names_show_what_they_stand_for(cli) -> None:
    result = cli("space", "l2", "noisy_recall", "delta_net", "train", "confirm", "step")
    assert (result.code, result.err) == (0, "")
    for line in ("bias\n  l2: Squared error", "retention\n  l2: Weight decay", "task\n  noisy_recall: recall",
                 "preset\n  delta_net: spelled out by `miras-search space --preset delta_net`",
                 "key of a study file, every study\n  train:", "train: its settings\n      steps = 300:",
                 "key of a study file, kind: search\n  confirm: the best", "    confirm.top = 5:",
                 "step, a gate: its settings\n      source = data"):  # fmt: skip
        assert line in result.out
    document = cli("space", "bias", "l2", "--json").json["named"]
    assert [[*one] for one in document["l2"]] == [["option"], ["option"]]
    assert [one["option"]["axis"] for one in document["l2"]] == ["bias", "retention"]
    (axis,) = document["bias"]
    assert [one["name"] for one in axis["axis"]["options"]] == list(AXES["bias"].options)
    assert cli("space", "bias").out.startswith("bias: ")
    assert cli("space", "bias", "xyzzy").out == ""  # nothing of an answer that is half


@pytest.mark.parametrize("name", sorted({*AXES, *PRESETS, *SETTINGS, *(key.name for key in keys())}))
def test_every_name_has_an_answer(cli, name: str) -> None:
    result = cli("space", name)
    assert (result.code, result.err) == (0, "") and name in result.out


def test_an_option_of_a_plugin_has_a_name_too(cli, here: Path) -> None:
    Path("mine.py").write_text(MODULE)
    assert "from the plugin mine" in cli("space", "--plugins", "mine", "still").out
