"""What the README tells a newcomer to type works, and what it shows of a study is the study that ships."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from miras_search.space import plugins
from miras_search.space.design import DesignPoint
from miras_search.space.rules import check
from miras_search.study.loader import load, loads

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
LAYER = re.findall(r"^`my_layers.py`:\n\n```python\n(.*?)^```", README, re.M | re.S)
SMALL = ("--set", "train.steps=2", "--set", "seeds=2", "--executor", "local", "--workers", "1", "--quiet")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[list[str]]:
    """Every line of a shell block, without its comment."""
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    return [words for words in lines if words]


def test_every_command_works_in_the_order_it_stands(cli, here: Path) -> None:
    (here / "studies").symlink_to(ROOT / "studies")
    (here / "my_layers.py").write_text(*LAYER)
    verbs = []
    for program, verb, *words in commands():
        assert program == "miras-search"
        verbs.append(verb)
        if verb == "dashboard":  # it serves until it is stopped; tests/dashboard opens it in a browser
            words = ["--help"]
        if verb == "check" and "--mixer" not in words:  # the shell's own star
            words = [str(path) for word in words for path in sorted(here.glob(word))]
        result = cli(verb, *words, *(SMALL if verb == "run" else ()))
        assert result.code == 0, (verb, words, result.err)
        assert result.out
    assert {"run", "check", "plan", "table", "dashboard", "space", "doctor"} <= set(verbs)


def test_the_study_shown_is_the_one_that_ships() -> None:
    text = next(block for block in blocks("yaml") if block.startswith("name: bias"))
    shown, shipped = (
        loads(text, "README.md"),
        loads(files("miras_search.studies").joinpath("bias.yaml").read_text(encoding="utf-8"), "bias.yaml"),
    )
    assert [(c.name, c.role, c.design.hash) for c in shown.cells] == [
        (c.name, c.role, c.design.hash) for c in shipped.cells
    ]
    assert shown.space_hash == shipped.space_hash


def test_the_design_spelled_out_is_valid() -> None:
    text = next(block for block in blocks("yaml") if block.startswith("base:"))
    point = DesignPoint.parse(YAML(typ="safe").load(text)["base"])
    check(point, 16, 16)
    assert point.memory.name == "mlp"


def test_a_study_may_have_the_layer_shown(here: Path) -> None:
    (here / "my_layers.py").write_text(*LAYER)
    shown = next(block for block in blocks("yaml") if block.startswith("plugins:"))
    study = loads(f"name: t\ntask: mqar\nexecution: {{chunk: 8}}\n{shown}", str(here / "t.yaml"))
    plugins.use(())
    assert [cell.name for cell in study.cells] == ["delta_net", "gla", "faster gla", "Decayed(width=32)"]


def cells(table: str) -> list[str]:
    return [re.split(r"\s{2,}", line)[0] for line in table.splitlines() if re.search(r"\S.* \d+/\d+ ", line)]


def headings(table: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line)[1:] for line in table.splitlines() if line.startswith("cell ")]


def test_the_tables_shown_are_what_the_studies_that_ship_print(cli, here: Path) -> None:
    """The figures are from runs of minutes; rows, columns and caption are those of the program as it is."""
    first, finding = blocks("text")
    (here / "studies").symlink_to(ROOT / "studies")
    shrunk = [*SMALL, "--set", "train.batch=1", "--set", "train.eval_examples=2", "--set", "task.length=16"]
    shrunk += ["--set", "tune.seeds=1", "--set", "top_up={max_seeds: 3, looks: 2}", "--set", "train.inner_step=as_is"]
    result = cli("run", "studies/bias_full.yaml", *shrunk)
    assert result.code == 0, result.err
    assert cells(finding) == cells(result.out)
    assert headings(finding) == headings(result.out)
    assert cells(first) == [cell.name for cell in load(ROOT / "studies" / "bias.yaml").cells]
    (tuned, _) = headings(result.out)
    assert headings(first) == [[heading for heading in tuned if heading != "lr"]]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
