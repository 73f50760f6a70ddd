"""Options of a user's own module: found, registered, hashed, put out of force again, and every way to be wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from miras_search.space import plugins
from miras_search.space.bias import BIAS
from miras_search.space.design import AXES, DesignPoint
from miras_search.space.option import Origin
from miras_search.study.loader import Study, StudyError, load

BIAS_MODULE = '''
from dataclasses import dataclass

from miras_search.space.bias import BIAS
from miras_search.space.fields import setting


@BIAS.register
@dataclass(frozen=True, slots=True)
class Cube:
    """The cube of the residual."""

    name = "cube"
    equation = "u = s r^3"

    s: float = setting(1.0, "a factor", named=True)

    def signal(self, p, v, threshold):
        return self.s * (p - v) ** 3
'''
HEAD = "name: t\ntask: mqar\nbase: delta_net\nplugins: [{}]\n"
VARY = "vary: {{bias: [{}]}}\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes `NAME.py` for every keyword beside a study, and the study; nothing of it outlives the test."""

    def make(study: str, **modules: str) -> Path:
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(source)
        path = tmp_path / "t.yaml"
        path.write_text(study)
        return path

    yield make
    plugins.use(())


def cells(study: Study) -> dict[str, str]:
    return {cell.name: cell.design.hash for cell in study.cells}


def lines(path: Path) -> list[str]:
    """What is wrong with a study, without the folder's name."""
    with pytest.raises(StudyError) as caught:
        load(path)
    return [line.replace(f"{path.parent}/", "") for line in str(caught.value).splitlines()]


def test_an_option_of_a_plugin_is_an_option_like_others(write: Write) -> None:
    path = write(HEAD.format("mine") + VARY.format("l2, cube, {cube: {s: 2.0}}"), mine=BIAS_MODULE)
    study = load(path)
    assert list(cells(study)) == ["l2", "cube(s=1)", "cube(s=2)"]
    (plugin,) = study.plugins
    assert (plugin.name, plugin.path, plugin.source) == ("mine", str(path.with_name("mine.py")), BIAS_MODULE)
    assert study.cells[1].design.origins == (Origin("mine", plugin.digest),)
    assert study.cells[0].design.origins == ()


def test_what_a_class_does_not_say_is_answered(write: Write) -> None:
    load(write(HEAD.format("mine"), mine=BIAS_MODULE))
    cube = BIAS.options["cube"]()
    assert (cube.slope, cube.triton, cube.couples_channels, cube.threshold_scopes) == (None, None, True, ())
    assert cube.loss(None, None, None) is None
    assert cube.canonical() is cube
    assert cube.source == "the module mine"


def test_the_plugins_of_the_last_study_are_in_force_and_no_others(write: Write) -> None:
    path = write(HEAD.format("mine") + VARY.format("cube"), mine=BIAS_MODULE)
    study = load(path)
    before = cells(study)
    cube = BIAS.options["cube"]
    other = write("name: u\ntask: mqar\nbase: delta_net\nvary: {bias: [cube]}\n")
    assert lines(other)[0].startswith("t.yaml:4:15: vary.bias.0: unknown bias 'cube'")
    assert "cube" not in BIAS.options
    assert cells(study) == before  # a study that was read keeps its designs
    load(write(HEAD.format("mine") + VARY.format("cube")))
    assert BIAS.options["cube"] is cube  # a module runs once in a process


def test_the_source_is_part_of_the_hash_of_the_designs_that_use_it_and_only_of_those(write: Write) -> None:
    text = HEAD.format("mine") + VARY.format("l2, dot, cube")
    before = load(write(text, mine=BIAS_MODULE))
    after = load(write(text, mine=BIAS_MODULE + "\n# another thought\n"))
    old, new = cells(before), cells(after)
    assert old["cube(s=1)"] != new["cube(s=1)"]
    assert {name: old[name] for name in ("l2", "dot")} == {name: new[name] for name in ("l2", "dot")}
    assert before.space_hash != after.space_hash
    assert before.config["plugins"] == {"mine": before.plugins[0].digest}
    again = load(write(text, mine=BIAS_MODULE.replace("\n", "\r\n")))  # as another system writes the same lines
    assert cells(again) == old


def test_a_plugin_that_no_cell_uses_changes_nothing(write: Write) -> None:
    with_it = load(write(HEAD.format("mine") + VARY.format("dot"), mine=BIAS_MODULE))
    without = load(write("name: t\ntask: mqar\nbase: delta_net\n" + VARY.format("dot")))
    assert with_it.config == without.config
    assert with_it.space_hash == without.space_hash


def test_an_option_that_is_canonically_another_has_the_hash_of_that_one(write: Write) -> None:
    module = BIAS_MODULE.replace("import BIAS\n", "import BIAS, L2\n") + (
        "\n    def canonical(self):\n        return L2() if self.s == 0 else self\n"
    )
    load(write(HEAD.format("mine"), mine=module))
    point = DesignPoint.parse({"bias": {"cube": {"s": 0.0}}})
    assert point.hash == DesignPoint().hash
    assert point.canonical().origins == ()


def test_a_plugin_that_another_one_imports_counts_in_its_hash(write: Write) -> None:
    user = BIAS_MODULE.replace("from dataclasses", "from helper import POWER\nfrom dataclasses").replace("3", "POWER")
    text = HEAD.format("helper, mine") + VARY.format("cube")
    three = load(write(text, helper="POWER = 3\n", mine=user))
    five = load(write(text, helper="POWER = 5\n", mine=user))
    assert cells(three)["cube(s=1)"] != cells(five)["cube(s=1)"]
    assert five.plugins[1].source == three.plugins[1].source
    assert BIAS.options["cube"]().signal(2.0, 0.0, None) == 32.0


def test_what_a_plugin_prints_does_not_mix_with_results(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    load(write(HEAD.format("mine"), mine="print('hello')\n"))
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_may_lie_on_the_path(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.py").write_text(BIAS_MODULE)
    monkeypatch.syspath_prepend(elsewhere)
    path = write(HEAD.format("mine") + VARY.format("cube"))
    assert load(path).plugins[0].path == str(elsewhere / "mine.py")
    write("", mine=BIAS_MODULE)
    assert lines(write(HEAD.format("mine"))) == [
        "t.yaml:4:11: plugins.0: two modules are called 'mine': mine.py and elsewhere/mine.py: rename yours"
    ]


@pytest.mark.parametrize(
    ("listed", "line"),
    [
        (
            "mime",
            "4:11: plugins.0: no module 'mime': no file mime.py, and nothing on Python's path (did you mean 'mine'?)",
        ),
        ("mine.py", "4:11: plugins.0: 'mine.py' is not the name of a module that is one file: write 'mine'"),
        (
            "a.b",
            "4:11: plugins.0: 'a.b' is not the name of a module that is one file: write a file of its own "
            "beside the study",
        ),
        ("mine, mine", "4:17: plugins.1: 'mine' is listed twice: drop one"),
        ("json", "4:11: plugins.0: 'json' is a module of Python's own or of miras-search: give yours another name"),
        (
            "miras_search",
            "4:11: plugins.0: 'miras_search' is a module of Python's own or of miras-search: give yours another name",
        ),
        ("1", "4:1: plugins: expected a list of modules' names, as in [my_module], got [1]"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_one_is_told_at_its_place(write: Write, listed: str, line: str) -> None:
    assert lines(write(HEAD.format(listed), mine=BIAS_MODULE)) == [f"t.yaml:{line}"]


def test_a_package_is_no_plugin(write: Write) -> None:
    (line,) = lines(write(HEAD.format("numpy")))
    assert line.startswith("t.yaml:4:11: plugins.0: 'numpy' is ")
    assert line.endswith("__init__.py: a plugin is a single file of Python source")


GATE = "from miras_search.space.gates import Gate, fixed\n"
RETENTION_MODULE = """
from dataclasses import dataclass
from miras_search.space.fields import setting
from miras_search.space.retention import RETENTION, Dual

@RETENTION.register
@dataclass(frozen=True, slots=True)
class Still(Dual):
    name = "still"
    equation = "W = Z"
"""
ALGORITHM_MODULE = """
from dataclasses import dataclass
from miras_search.space.fields import setting
from miras_search.space.algorithm import ALGORITHM, Descent

@ALGORITHM.register
@dataclass(frozen=True, slots=True)
class Slow(Descent):
    name = "slow"
    equation = "Z"
"""


def changed(old: str, new: str) -> str:
    assert old in BIAS_MODULE
    return BIAS_MODULE.replace(old, new)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("x = 1\ny = 1 / 0\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "mine.py:1: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)\n", "mine.py:1: SystemExit: 3"),
        ("import nowhere_at_all\n", "mine.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        (
            "import beside\n",
            "mine.py:1: ModuleNotFoundError: No module named 'beside': "
            "list 'beside' under plugins too, before the one that imports it",
        ),
        (
            changed('"cube"', '"l2"'),
            "mine.py:8: bias: an option named 'l2' is already registered by miras_search.space.bias.l2: "
            "give yours another name",
        ),
        (
            changed("    name = ", "    title = "),
            "mine.py:8: bias: the class Cube has no name: give it a `name: ClassVar[str]`",
        ),
        (
            changed("def signal", "def signl"),
            "mine.py: the bias 'cube' (class Cube) is incomplete: it lacks 'signal': u = dl/dp, [..., V], "
            "differentiable.",
        ),
        (
            "from __future__ import annotations\n" + changed("    s: float", "    s: Flaot"),
            "mine.py: NameError: name 'Flaot' is not defined",
        ),
        (
            changed("    equation =", "    equashun ="),
            "mine.py: the bias 'cube' (class Cube) is incomplete: it lacks 'equation'",
        ),
        (
            changed("p, v, threshold", "p, v"),
            "mine.py: the bias 'cube' (class Cube) is incomplete: its signal(self, p, v) is called as "
            "signal(self, p, v, threshold)",
        ),
        (
            changed("frozen=True, ", ""),
            "mine.py: the bias 'cube' (class Cube) is incomplete: its dataclass can be changed: write "
            "@dataclass(frozen=True)",
        ),
        (
            changed("@dataclass(frozen=True, slots=True)\n", ""),
            "mine.py: the bias 'cube' (class Cube) is incomplete: it is no dataclass: write "
            "@dataclass(frozen=True, slots=True) below the line that registers it",
        ),
        (
            changed('setting(1.0, "a factor", named=True)', "1.0"),
            "mine.py: the bias 'cube' (class Cube) is incomplete: its setting 's' has no default with help: write "
            "setting(default, help)",
        ),
        (
            GATE
            + changed('s: float = setting(1.0, "a factor", named=True)', 'radius: Gate = setting(fixed(1.0), "r")'),
            "mine.py: the bias 'cube' (class Cube) is incomplete: its gate 'radius' would not reach it: the gates of a "
            "bias are 'delta'",
        ),
        (
            GATE + RETENTION_MODULE + '    other: Gate = setting(fixed(1.0), "o")\n',
            "mine.py: the retention 'still' (class Still) is incomplete: its gate 'other' would not reach it: the "
            "gates of a retention are 'keep'",
        ),
        (
            RETENTION_MODULE + "\n    def step(self, weights, keep, change, step, static):\n        return weights\n",
            "mine.py: the retention 'still' (class Still) is incomplete: its step would not be taken, because its form "
            "is dual: derive it from Primal",
        ),
        (
            GATE + ALGORITHM_MODULE + '    keep: Gate = setting(fixed(1.0), "o")\n',
            "mine.py: the algorithm 'slow' (class Slow) is incomplete: its gate cannot be called 'keep': that is a "
            "gate of others",
        ),
    ],
)
def test_a_plugin_that_is_wrong_is_told_at_its_place_and_leaves_nothing(write: Write, source: str, what: str) -> None:
    options = {name: dict(axis.options) for name, axis in AXES.items()}
    path = write(HEAD.format("mine"), mine=source, beside="")
    assert lines(path) == [f"t.yaml:4:11: plugins.0: {what}"]
    assert {name: dict(axis.options) for name, axis in AXES.items()} == options
    assert "mine" not in sys.modules
    assert list(cells(load(write(HEAD.format("mine") + VARY.format("cube"), mine=BIAS_MODULE)))) == ["l2", "cube(s=1)"]


def test_two_plugins_with_one_name_are_told_apart(write: Write) -> None:
    (line,) = lines(write(HEAD.format("mine, yours"), mine=BIAS_MODULE, yours=BIAS_MODULE))
    assert line == (
        "t.yaml:4:17: plugins.1: yours.py:8: bias: an option named 'cube' is already registered by mine: "
        "give yours another name"
    )
    assert "cube" not in BIAS.options


def test_a_plugin_may_be_given_by_an_override(write: Write) -> None:
    path = write("name: t\ntask: mqar\nbase: delta_net\n", mine=BIAS_MODULE)
    study = load(path, ["plugins=[mine]", "vary.bias=[cube]"])
    assert "cube(s=1)" in cells(study)
    with pytest.raises(StudyError, match=r"^--set plugins=\[mime\]: no module 'mime'"):
        load(path, ["plugins=[mime]"])
