"""docs/extending.md, run as a user would: its modules and its study are written to a folder, its commands are typed."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from miras_search.space import plugins
from miras_search.space.design import DesignPoint
from miras_search.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.M | re.S))
COMMANDS, TRIED, LAYERS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
LOCAL = ("--executor", "local", "--workers", "1")
TASK = ("my_task.py", "my_task.yaml")
MODULES = ["my_bias", "my_gate", "my_memory"]


@pytest.fixture
def page(here: Path) -> object:
    """The files of the page in an empty working directory."""
    for name, text in FILES.items():
        (here / name).write_text(text)
    yield here
    plugins.use(())


def commands(block: str = COMMANDS) -> list[list[str]]:
    found = [shlex.split(line) for line in block.splitlines()]
    assert all(words[0] == "miras-search" for words in found)
    return [words[1:] for words in found]


def test_each_option_is_one_short_class_in_a_module() -> None:
    assert set(FILES) == {*(f"{name}.py" for name in MODULES), "my_study.yaml", "my_layers.py", "my_layers.yaml", *TASK}
    for name in MODULES:
        text = FILES[f"{name}.py"]
        assert len(text.splitlines()) < 25
        assert text.count("\nclass ") == 1


def test_the_readme_shows_the_bias_of_the_page() -> None:
    assert f"```python\n{FILES['my_bias.py']}```" in (ROOT / "README.md").read_text()


def test_the_commands_of_the_page_work_in_their_order(cli, page: Path) -> None:
    said = {}
    for words in commands():
        plugins.use(())  # each command has a process of its own
        result = cli(*words, *(LOCAL if words[0] == "run" else ()))
        assert result.code == 0, result.err
        said[words[0]] = result.out
    tried = "bias welsch, bias welsch(c=1.0), retention softsign, memory low_rank(rank=4)"
    assert said["check"] == f"my_study.yaml: ok (6 cells, 12 jobs; tried: {tried})\n"
    assert re.search(r"^  plugins +my_bias ", said["plan"], re.M)
    for cell in ("welsch", "welsch(c=1)", "softsign", "low_rank(rank=4)"):
        assert re.search(rf"^(\w+=)?{re.escape(cell)} .* 2/2 ", said["run"], re.M), cell
    assert re.search(r", plugin my_bias [0-9a-f]{12}, plugin my_gate", said["show"])
    assert re.search(r"^  bias +welsch\(c=4\.0\) ", said["show"], re.M)
    assert all(f"from the plugin {name}" in said["space"] for name in MODULES)

    cells = cli("run", "my_study.yaml", "--json").out  # nothing is left to train
    assert '"skipped": 12' in cells


def test_the_readme_shows_the_layer_of_the_page() -> None:
    assert f"```python\n{FILES['my_layers.py']}```" in (ROOT / "README.md").read_text()


def test_the_commands_for_a_layer_work_in_their_order(cli, page: Path) -> None:
    (words,) = commands(TRIED)
    tried = cli(*words)
    assert tried.code == 0, tried.out + tried.err
    assert len(re.findall(r"^  ok ", tried.out, re.M)) == 9
    said = {}
    for words in commands(LAYERS):
        plugins.use(())
        result = cli(*words, *((*LOCAL, "--set", "train.steps=2") if words[0] == "run" else ()))
        assert result.code == 0, result.err
        said[words[0]] = result.out
    assert said["check"] == "my_layers.yaml: ok (5 cells, 10 jobs)\n"
    assert (
        "train.lr differs beside the design: 0.02 in faster gla, 0.02 in Decayed(width=32, train.lr=0.02)"
        in said["plan"]
    )
    for cell in ("gated_delta_net", "faster gla", "Decayed", "Decayed(width=32, train.lr=0.02)"):
        assert re.search(rf"^{re.escape(cell)} .* 2/2 ", said["run"], re.M), cell
    assert re.search(r"^Decayed +1\.07k +64 B ", said["run"], re.M)
    assert re.search(r"^  mixer +my_layers\.Decayed\(\) +source [0-9a-f]{12}$", said["show"], re.M)
    Path("my_layers.py").unlink()
    plugins.use(())
    assert "preset = Decayed" in cli("show", "my_layers", "3").out  # readers need no file
    assert "Decayed" in cli("table", "my_layers").out


def test_readers_work_without_the_plugins(cli, page: Path) -> None:
    assert cli("run", "my_study.yaml", "--set", "train.steps=2", "--set", "seeds=1", *LOCAL, "--quiet").code == 0
    for name in MODULES:
        Path(f"{name}.py").unlink()
    plugins.use(())
    assert "welsch" in cli("table", "my_study").out
    assert cli("status", "my_study").code == 0
    result = cli("show", "my_study", "4")
    assert result.code == 0, result.err
    assert re.search(r"^  memory +low_rank\(rank=4\) +M\(x\) = \(x W_0\) W_1,  W_0 in", result.out, re.M)
    assert "  bias       l2 " in result.out
    document = cli("show", "my_study", "4", "--json").json
    assert document["equations"]["memory"] == "M(x) = (x W_0) W_1,  W_0 in R^(K x r), W_1 in R^(r x V)"
    assert document["equations"]["bias"].startswith("l = ")
    assert document["runs"][0]["provenance"]["plugins"]["my_memory"]["source"] == FILES["my_memory.py"]
    assert "no module 'my_bias'" in cli("check", "my_study.yaml").err


def test_an_edited_plugin_is_another_study(cli, page: Path) -> None:
    words = ["run", "my_study.yaml", "--set", "train.steps=2", "--set", "seeds=1", *LOCAL, "--quiet"]
    assert cli(*words, "--set", "vary={bias: [welsch]}").code == 0
    with Path("my_gate.py").open("a") as file:
        file.write("\n# no cell has this gate\n")
    assert cli(*words, "--set", "vary={bias: [welsch]}").code == 0
    with Path("my_bias.py").open("a") as file:
        file.write("\n# every cell has this bias\n")
    refused = cli(*words, "--set", "vary={bias: [welsch]}")
    assert refused.code == 2
    assert "--as" in refused.err


def test_the_bias_of_the_page_is_the_gradient_of_its_loss(page: Path) -> None:
    torch = importlib.import_module("torch")
    plugins.use(plugins.find(MODULES, page))
    bias = DesignPoint.parse({"bias": {"welsch": {"c": 1.5}}}).bias
    generator = torch.Generator().manual_seed(4)
    p, v = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    p.requires_grad_()
    (gradient,) = torch.autograd.grad(bias.loss(p, v, None).sum(), p)
    assert torch.allclose(gradient, bias.signal(p, v, None), atol=1e-14)


def test_a_task_of_ones_own_trains_and_an_edited_one_is_another_study(cli, page: Path) -> None:
    assert cli("check", "my_task.yaml").out == "my_task.yaml: ok (2 cells, 4 jobs)\n"
    first = cli("run", "my_task.yaml", *LOCAL)
    assert first.code == 0, first.err
    file = page / "my_task.py"
    file.write_text(file.read_text().replace("tokens[:, :1].copy()", "0 * tokens[:, :1]"))
    plugins.use(())  # a process of its own
    edited = cli("run", "my_task.yaml", "--set", "seeds=3", *LOCAL)
    assert edited.code == 2 and "--as NAME" in edited.err
    assert cli("run", "my_task.yaml", "--as", "other", *LOCAL).code == 0
    assert {name: cls.__module__ for name, cls in TASKS.items() if name == "first_token"} == {"first_token": "my_task"}
    plugins.use(())
    assert "first_token" not in TASKS
    assert "unknown task 'first_token'" in cli("check", "my_task.yaml", "--set", "plugins=[]").err


def test_a_task_is_in_force_as_its_study_has_it(cli, page: Path) -> None:
    """Read one after the other in one process, two editions of a file do not meet."""
    file = page / "my_task.py"
    text = file.read_text()
    kinds = []
    for edition in (text, text.replace("Tell the", "Say the"), text):
        file.write_text(edition)
        assert cli("check", "my_task.yaml").code == 0
        kinds.append(TASKS["first_token"].summary[:3])
    assert kinds == ["Tel", "Say", "Tel"]
    file.write_text(text + "raise ValueError('late')\n")
    assert "late" in cli("check", "my_task.yaml").err
    assert "first_token" not in TASKS
