"""Levels of `preset` that are mappings: whole designs with settings of their own, and layers of the user's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from miras_search.space import plugins
from miras_search.space.design import DesignPoint
from miras_search.study.drafts import Cell
from miras_search.study.loader import Study, StudyError, load, loads
from miras_search.study.plan import confounds

HEAD = """\
name: t
task: mqar
execution: {chunk: 8, gradient: frozen}
model: {d_model: 16}
train: {lr: 1e-2}
seeds: 6
"""
LAYER = """
import torch  # never run by a check: see `raise`
raise RuntimeError("a study is checked without running a package")

class MyLayer(torch.nn.Module):
    def __init__(self, d_model, heads, width=4, *, depth=1):
        pass
"""
PLUGIN = LAYER.replace('raise RuntimeError("a study is checked without running a package")', "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`h_pkg.layers`, importable, and `h_beside.py`, beside a study only."""
    site = tmp_path / "site"
    (site / "h_pkg").mkdir(parents=True)
    (site / "h_pkg" / "__init__.py").write_text("from .layers import MyLayer as Mine\nfrom h_pkg.layers import Gone\n")
    (site / "h_pkg" / "layers.py").write_text(LAYER)
    (tmp_path / "h_beside.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(site)
    yield tmp_path
    plugins.use(())


def read(text: str, folder: Path | None = None) -> Study:
    return loads(HEAD + text, str((folder or Path()) / "t.yaml"))


def cell(study: Study, name: str) -> Cell:
    return next(one for one in study.cells if one.name == name)


def problem(text: str, folder: Path | None = None) -> str:
    with pytest.raises(StudyError) as caught:
        read(text, folder)
    (line,) = str(caught.value).splitlines()
    return line.split(": ", 1)[1].replace(f"{folder}/", "")


def test_a_level_brings_settings_of_its_own() -> None:
    study = read(
        """\
base: delta_net
controls: [no_write]
vary:
  preset:
    - gla
    - {preset: gla, train: {lr: 3e-3}}
    - {preset: gla, bias: {huber: {delta: 0.5}}, model: {conv: 0}, train: {lr: 2e-2, steps: 300}, name: short}
    - {memory: mlp, bias: l1, name: mine}
"""
    )
    assert [one.name for one in study.cells[:-1]] == ["delta_net", "gla", "gla(train.lr=0.003)", "short", "mine"]
    assert [dict(one.changes) for one in study.cells[1:5]] == [
        {"preset": "gla"},
        {"preset": "gla", "train.lr": "0.003"},
        {"preset": "gla", "bias": "huber(delta=0.5)", "model.conv": "0", "train.lr": "0.02"},  # steps are the base's
        {"preset": "mine", "memory": "mlp", "bias": "l1"},
    ]
    gla, tuned, short, mine = study.cells[1:5]
    assert gla.design == tuned.design
    assert (gla.train.lr, tuned.train.lr, short.train.lr, mine.train.lr) == (1e-2, 3e-3, 2e-2, 1e-2)
    assert short.model.conv == 0
    assert short.model.output_norm == gla.model.output_norm
    assert mine.design.execution == gla.design.execution == study.base.execution
    assert study.axes[0].levels[1:3] == ("gla", "gla(train.lr=0.003)")


def test_the_plan_names_what_differs_beside_the_design() -> None:
    level = "{preset: gated_delta_net, train: {lr: 3e-3}}"
    study = read(f"base: delta_net\ncontrols: [no_write]\nvary: {{preset: [{level}]}}\n")
    told = [one for one in confounds(study) if one.startswith("train.lr")]
    assert told == [
        "train.lr differs beside the design: 0.003 in gated_delta_net(train.lr=0.003), 0.01 in delta_net, so a "
        "difference is one of train.lr too; tune every cell alike, on seeds of its own"
    ]


def test_a_level_that_is_the_base_is_no_cell_and_twins_are_told() -> None:
    assert len(read("base: delta_net\nvary: {preset: [{preset: delta_net}, gla]}\n").cells) == 2
    assert "is the same function as 'gla'" in problem(
        "base: delta_net\nvary: {preset: [gla, {preset: gla, name: b}]}\n"
    )


@pytest.mark.parametrize(
    ("vary", "what"),
    [
        ("[{preset: glaa}]", "vary.preset.0.preset: unknown preset 'glaa' (did you mean 'gla'?)"),
        ("[{preset: gla, modle: {}}]", "vary.preset.0.modle: unknown key (did you mean 'model'?)"),
        ("[{preset: gla, train: 3}]", "vary.preset.0.train: expected a mapping of settings, got 3"),
        (
            "[{preset: gla, train: {lrr: 3}}]",
            "vary.preset.0.train.lrr: unknown setting (did you mean 'lr'?)",
        ),
        ("[{preset: gla, model: {conv: 99}}]", "vary.preset.0.model.conv: 99 is not between 0 (none) and 64"),
        ("[{preset: gla, name: ''}]", "vary.preset.0.name: expected a cell's name, got ''"),
        (
            "[{preset: gla, execution: {chunk: 4}}]",
            "vary.preset.0.execution.chunk: the study holds chunk: 8 for every cell: drop one of the two",
        ),
        (
            "[{bias: l1}]",
            "vary.preset.0: a design that is built on no preset has no name: add `name: ...`, or `preset: ...`",
        ),
        (
            "[{preset: gla, mixer: h.L}]",
            "vary.preset.0.mixer: a layer of your own takes the place of the preset: drop one of the two",
        ),
    ],
)
def test_what_is_wrong_with_a_level_is_told_at_its_place(vary: str, what: str) -> None:
    assert problem(f"base: delta_net\nvary: {{preset: {vary}}}\n").endswith(what)


def test_a_setting_is_varied_or_set_but_not_both() -> None:
    vary = "{preset: [{preset: gla, train: {lr: 1e-3}}], train.lr: [1e-2, 1e-3]}"
    with pytest.raises(StudyError, match=r"vary\.train\.lr\.0: '.*' of vary\.preset sets train\.lr itself"):
        read(f"base: delta_net\ndesign: factorial\nvary: {vary}\n")


def test_a_layer_of_a_package_is_a_cell_like_others(folder: Path) -> None:
    study = read(
        """\
base: delta_net
vary:
  preset:
    - gla
    - {mixer: h_pkg.layers.MyLayer}
    - {mixer: {module: h_pkg.Mine, args: {width: 8}}, train: {lr: 3e-3}, name: wide}
    - {mixer: {module: h_pkg.layers.MyLayer, args: {width: 8}}}
""",
        folder,
    )
    names = ["delta_net", "gla", "MyLayer", "wide", "MyLayer(width=8)"]
    assert [one.name for one in study.cells] == names
    assert dict(study.cells[3].changes) == {"preset": "Mine(width=8)", "train.lr": "0.003"}
    design = study.cells[2].design
    assert design.mixer is not None
    assert (design.mixer.module, len(design.mixer.digest)) == ("h_pkg.layers.MyLayer", 12)
    assert set(design.to_plain()) == {"mixer"}
    assert DesignPoint.parse(design.to_plain()) == design
    assert len({one.design.hash for one in study.cells}) == 5
    assert not study.mixed
    (folder / "site" / "h_pkg" / "layers.py").write_text(LAYER + "\n# edited\n")
    assert DesignPoint.parse({"mixer": "h_pkg.layers.MyLayer"}).hash != design.hash


def test_a_layer_beside_the_study_is_a_plugin(folder: Path) -> None:
    base = "base: {mixer: {module: h_beside.MyLayer, args: {width: 8}}}\n"
    study = read(
        f"plugins: [h_beside]\n{base}vary: {{mixer.args.width: [2, 8], model.conv: [0], train.lr: [3e-3]}}\n", folder
    )
    assert [one.name for one in study.cells] == ["MyLayer(width=8)", "width=2", "lr=0.003"]  # conv is not a layer's
    assert study.base.mixer is not None
    assert study.plugins[0].digest.startswith(study.base.mixer.digest)
    assert "no negative control shows what the model does without its memory: a layer of your own takes none" in str(
        confounds(study)
    )
    what = "no module 'h_beside' on Python's path: if h_beside.py lies beside the study, add `plugins: [h_beside]`"
    assert what in problem(base, folder)


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        ("base: {mixer: h_pkg.layers.MyLayr}", "base.mixer: site/h_pkg/layers.py has no class 'MyLayr' (did you mean"),
        ("base: {mixer: {module: h_pkg.layer.MyLayer}}", "base.mixer.module: no module 'h_pkg.layer' on Python's path"),
        ("base: {mixer: {args: {}}}", "base.mixer: 'module' is missing: the class's path"),
        ("base: {mixer: MyLayer}", "base.mixer: 'MyLayer' names no class: write module and class"),
        ("base: {mixer: h pkg}", "base.mixer: 'h pkg' is not a class's path, as in my_layers.MyLayer"),
        ("base: {mixer: h_pkg.Gone}", "base.mixer: site/h_pkg/layers.py has no class 'Gone'"),
        (
            "base: {mixer: {module: h_pkg.Mine, args: {widht: 3}}}",
            "base.mixer.args.widht: Mine.__init__ has no such parameter (did you mean 'width'?)",
        ),
        ("base: {mixer: {module: h_pkg.Mine, args: {d_model: 3}}}", "base.mixer.args.d_model: a layer's width is the"),
        ("base: {mixer: {module: h_pkg.Mine, arg: {}}}", "base.mixer.arg: unknown key (did you mean 'args'?)"),
        ("base: {mixer: {module: h_pkg.Mine, args: 3}}", "base.mixer.args: expected a mapping of the constructor's"),
        (
            "base: {mixer: h_pkg.Mine, bias: l1}",
            "base.mixer: Mine takes the place of the whole memory layer, so bias would change nothing: drop it",
        ),
        ("base: {mixer: h_pkg.Mine}\nvary: {bias: [l1]}", "Mine takes the place of the whole memory layer, so bias"),
        ("base: {mixer: h_pkg.Mine}\ncontrols: [no_write]", "has no writes or keys that a control could take away"),
        ("base: {mixer: h_pkg.Mine}\nvary: {train.inner_step: [match_base]}", "a layer of your own has none"),
        ("base: delta_net\nvary: {mixer.args.width: [3]}", "the design has no layer of your own"),
    ],
)
def test_what_is_wrong_with_a_layer_is_told_at_its_place(folder: Path, rest: str, what: str) -> None:
    assert what in problem(rest + "\n", folder)


def test_checking_a_layer_of_a_package_runs_none_of_it_and_loads_no_torch(folder: Path) -> None:
    path = folder / "t.yaml"
    path.write_text(HEAD + "base: {mixer: h_pkg.Mine}\n")
    code = f"import sys; sys.path.insert(0, {str(folder / 'site')!r})\n"
    code += f"from miras_search.study.loader import load; load({str(path)!r})\n"
    code += "assert not {'torch', 'h_pkg'} & set(sys.modules), 'loaded'\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert load(path).cells[0].name == "Mine"
