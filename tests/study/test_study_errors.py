"""Error lines of a study file, word for word: a user sees nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from miras_search.study.loader import StudyError, load, loads

HEAD = "name: t\ntask: mqar\nbase: delta_net\n"
RESIDUAL = (
    "a residual memory adds its input to its output, so key and value dimensions must be equal: "
    "set residual: false or model.value_dim to model.key_dim"
)


def lines(text: str, *overrides: str, name: str | None = None) -> list[str]:
    with pytest.raises(StudyError) as caught:
        loads(text, "t.yaml", overrides, name)
    assert caught.value.exit_code == 2
    found = str(caught.value).splitlines()
    assert found == [str(problem) for problem in caught.value.problems]
    return found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("vry: {bias: [dot]}\n", "t.yaml:4:1: vry: unknown key (did you mean 'vary'?)"),
        ("train: {stps: 3}\n", "t.yaml:4:9: train.stps: unknown setting (did you mean 'steps'?)"),
        ("train: {lr: fast}\n", "t.yaml:4:9: train.lr: expected a number, got 'fast'"),
        (
            "resources: {kernels: fast}\n",
            "t.yaml:4:13: resources.kernels: unknown kernels 'fast' (known: auto, compiled, torch)",
        ),
        (
            "metric: kernel_mismatch\n",
            "t.yaml:4:1: metric: kernel_mismatch is no result that every training has: take accuracy, loss",
        ),
        ("train: 5\n", "t.yaml:4:1: train: expected a mapping of settings, got 5"),
        ("train: {lr: .inf}\n", "t.yaml:4:9: train.lr: the number is not finite"),
        ("model: {layers: 2.5}\n", "t.yaml:4:9: model.layers: expected a whole number, got 2.5"),
        (
            "vary:\n  bias: [dot, hubr]\n",
            "t.yaml:5:15: vary.bias.1: unknown bias 'hubr' (did you mean 'huber'?)",
        ),
        (
            "vary:\n  bias:\n    - dot\n    - huber: {detla: 1}\n",
            "t.yaml:7:15: vary.bias.1.huber.detla: unknown setting (did you mean 'delta'?)",
        ),
        ("lr: 0.1\n", "t.yaml:4:1: lr: unknown key (a setting: write train: {lr: 0.1})"),
        ("train.lr: 0.1\n", "t.yaml:4:1: train.lr: unknown key (a setting: write train: {lr: 0.1})"),
        ("train.lrr: 1\n", "t.yaml:4:1: train.lrr: unknown key: train has no setting 'lrr' (did you mean 'lr'?)"),
        ("resources.cpus: 1\n", "t.yaml:4:1: resources.cpus: unknown key (a setting: write resources: {cpus: 1})"),
        (
            "resources.cpu: 1\n",
            "t.yaml:4:1: resources.cpu: unknown key: resources has no setting 'cpu' (did you mean 'cpus'?)",
        ),
        ("name.x: 1\n", "t.yaml:4:1: name.x: unknown key (did you mean 'name'?)"),
        (
            "delta: 3\n",
            "t.yaml:4:1: delta: unknown key (a setting: write under base, as bias: {huber: {delta: 3}}, or vary "
            "bias.delta)",
        ),
        (
            "scope: head\n",
            "t.yaml:4:1: scope: unknown key (a setting: write in a gate under base, as step: {scope: head}, or vary "
            "step.scope)",
        ),
        (
            "bias: dot\n",
            "t.yaml:4:1: bias: unknown key (a choice of the design: write it under base, as bias: ..., or vary it)",
        ),
        ("vary: {bais: [dot]}\n", "t.yaml:4:8: vary.bais: unknown axis 'bais' (did you mean 'bias'?)"),
        ("vary: {bias: dot}\n", "t.yaml:4:8: vary.bias: expected a list of levels, got 'dot'"),
        ("vary: {bias: []}\n", "t.yaml:4:8: vary.bias: expected a list of levels, got []"),
        ("vary: {model: [1]}\n", "t.yaml:4:8: vary.model: name one setting, as in model.layers"),
        ("vary: {train.lrr: [1]}\n", "t.yaml:4:8: vary.train.lrr: train has no setting 'lrr' (did you mean 'lr'?)"),
        (
            "vary: {train.steps: [10, 0]}\n",
            "t.yaml:4:26: vary.train.steps.1: steps: 0 must be at least 1",
        ),
        (
            "vary: {task.length: [32]}\n",
            "t.yaml:4:8: vary.task.length: a task cannot be varied: list the tasks under task; "
            "every cell is trained on each",
        ),
        (
            "vary: {bias.delta: [1]}\n",
            "t.yaml:4:21: vary.bias.delta.0: the bias 'l2' has no setting 'delta': "
            "list whole options under vary.bias instead",
        ),
        ("vary: {preset: [yaada]}\n", "t.yaml:4:17: vary.preset.0: unknown preset 'yaada' (did you mean 'yaad'?)"),
        (
            "vary: {preset: [{memory: mlp}]}\n",
            "t.yaml:4:17: vary.preset.0: a design that is built on no preset has no name: add `name: ...`, or "
            "`preset: ...`",
        ),
        ("design: factorail\n", "t.yaml:4:1: design: unknown design 'factorail' (did you mean 'factorial'?)"),
        ("metric: acuracy\n", "t.yaml:4:1: metric: unknown metric 'acuracy' (did you mean 'accuracy'?)"),
        ("resources: {cpus: 0}\n", "t.yaml:4:13: resources.cpus: 0 must be at least 1"),
        (
            "resources: {wall: 8}\n",
            "t.yaml:4:13: resources.wall: 8 is no duration up to 1000 d: write it as 90 s, 10 min, 2 h 30 min or 1 d",
        ),
        (
            "resources: {gpu_hours: 2}\n",
            "t.yaml:4:1: resources: a study without GPUs spends no gpu_hours: set gpus, or limit wall",
        ),
        ("resources: {gpu: 1}\n", "t.yaml:4:13: resources.gpu: unknown key (did you mean 'gpus'?)"),
        ("controls: no_write\n", "t.yaml:4:1: controls: expected a list, got 'no_write'"),
        ("controls: [nowrite]\n", "t.yaml:4:12: controls.0: unknown control 'nowrite' (did you mean 'no_write'?)"),
        ("controls_on: cell\n", "t.yaml:4:1: controls_on: unknown controls_on 'cell' (did you mean 'cells'?)"),
        (
            "controls_on: cells\n",
            "t.yaml:4:1: controls_on: there is no control for the cells: add `controls: [no_write]`",
        ),
        ("seeds: 0\n", "t.yaml:4:1: seeds: 0 is not a number of seeds between 1 and 1000"),
        ("seeds: [1, -1]\n", "t.yaml:4:1: seeds: -1 is not a seed between 0 and 2147483647"),
        (
            "train: {steps: 1000000000000}\n",
            "t.yaml:4:9: train.steps: 1000000000000: a whole number here is at most 2147483647",
        ),
        ("train: {lr: 1e308}\n", "t.yaml:4:9: train.lr: 1e+308: a number here is at most 3.4e+38"),
        ("seeds: [4, 4]\n", "t.yaml:4:1: seeds: 4 is there twice: the same training would count as two"),
        ("seeds: true\n", "t.yaml:4:1: seeds: expected how many seeds, or a list of whole numbers, got True"),
        ("execution: exact\n", "t.yaml:4:1: execution: expected settings that every cell keeps, or own, got 'exact'"),
        (
            "execution: {gradient: frzen}\n",
            "t.yaml:4:13: execution.gradient: unknown gradient mode 'frzen' (did you mean 'frozen'?): "
            "write exact, frozen or {refined: n}",
        ),
    ],
)
def test_a_wrong_value_is_told_at_its_place(text: str, line: str) -> None:
    assert lines(HEAD + text) == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "t.yaml:1:1: the file is empty: a study needs at least name, task and base"),
        ("# nothing\n", "t.yaml:1:1: the file is empty: a study needs at least name, task and base"),
        ("- 1\n", "t.yaml:1:1: expected keys such as name, task and base, got a list"),
        ("bias\n", "t.yaml:1:1: expected keys such as name, task and base, got a single value"),
        (
            HEAD + "name: u\n",
            "t.yaml:4:1: the key 'name' is written twice in the mapping that begins in line 1: remove one",
        ),
        (HEAD + "vary:\n\tbias: [dot]\n", "t.yaml:5:1: a tab cannot indent YAML: use spaces"),
        (HEAD + "---\nname: u\n", "t.yaml:4:1: a second document begins here: one file is one study"),
        (
            HEAD + "seeds: [1\n",
            "t.yaml:5:1: not readable as YAML: while parsing a flow sequence: "
            "expected ',' or ']', but got '<stream end>'",
        ),
        (HEAD + "model: a: b\n", "t.yaml:4:9: not readable as YAML: mapping values are not allowed here"),
        (HEAD + "question: !x a\n", "t.yaml:4:1: question: the tag !x has no meaning in a study: remove it"),
        (HEAD + "question: 2024-01-01\n", "t.yaml:4:1: question: 2024-01-01 is read as a date: write it in quotes"),
        (HEAD + "1: 2\n", "t.yaml:4:1: keys are words, got 1: write it in quotes"),
        (
            f"&study\n{HEAD}vary: *study\n",
            "t.yaml:2:1: vary.vary.vary: too many values or levels: does an alias (*) contain itself?",
        ),
        (
            "name: t\ntask: mqar\n\0",
            "t.yaml:1:1: not readable as YAML: unacceptable character #x0000: special characters are not allowed",
        ),
        (
            HEAD + "model: {layers: !!int x}\n",
            "t.yaml:1:1: not readable as YAML: invalid literal for int() with base 10: 'x'",
        ),
    ],
)
def test_what_is_not_a_study_is_told_in_one_line(text: str, line: str) -> None:
    assert lines(text) == [line]


def test_a_short_text_with_a_million_values_is_refused() -> None:
    bomb = ["a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 7)]
    (line,) = lines("\n".join(bomb))
    assert line.endswith("too many values or levels: does an alias (*) contain itself?")


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    text = "task: {name: mqr}\nbase: {memory: matrx, bais: l2}\nmodel: {d_modle: 8}\ntrain: {steps: many}\nvry: 1\n"
    assert lines(text) == [
        "t.yaml:1:1: 'name' is missing: one word by which the database knows the study",
        "t.yaml:1:8: task.name: unknown task 'mqr' (did you mean 'mqar'?)",
        "t.yaml:2:8: base.memory: unknown memory 'matrx' (did you mean 'matrix'?)",
        "t.yaml:2:23: base.bais: unknown key (did you mean 'bias'?)",
        "t.yaml:3:9: model.d_modle: unknown setting (did you mean 'd_model'?)",
        "t.yaml:4:9: train.steps: expected a whole number, got 'many'",
        "t.yaml:5:1: vry: unknown key (did you mean 'vary'?)",
    ]


def test_required_keys_cannot_be_empty() -> None:
    assert lines("name:\ntask:\nbase:\n") == [
        "t.yaml:1:1: name: expected a word, got None",
        "t.yaml:2:1: task: expected a task's name, or its name and settings, got None",
        "t.yaml:3:1: base: expected a preset's name or the four choices, got None",
    ]
    assert lines("name: a b\ntask: []\nbase: delta_net\n") == [
        "t.yaml:1:1: name: 'a b' is not a name: use letters, digits, '.', '_' and '-', at most 100, "
        "beginning with a letter or digit",
        "t.yaml:2:1: task: the list is empty: name at least one task",
    ]


def test_an_invalid_combination_is_told_at_the_level_that_makes_it() -> None:
    text = HEAD + "model: {value_dim: 8}\nvary:\n  memory: [matrix, mlp, gated_mlp]\n"
    assert lines(text) == [
        f"t.yaml:6:20: vary.memory.1: memory: {RESIDUAL}",
        f"t.yaml:6:25: vary.memory.2: memory: {RESIDUAL}",
    ]
    text = HEAD.replace("delta_net", "{memory: mlp}") + "model: {value_dim: 8}\nvary: {bias: [dot, kl]}\n"
    assert lines(text) == [f"t.yaml:3:8: base.memory: {RESIDUAL}"]
    text = HEAD.replace("delta_net", "{memory: mlp}") + "vary: {model.value_dim: [8, 16]}\n"
    assert lines(text) == [f"t.yaml:4:26: vary.model.value_dim.0: memory: {RESIDUAL}"]


def test_an_invalid_combination_of_a_factorial_names_the_cell_and_the_level_at_fault() -> None:
    text = HEAD + "model: {value_dim: 8}\ndesign: factorial\nvary: {memory: [matrix, mlp], bias: [l2, kl]}\n"
    assert lines(text) == [f"t.yaml:6:25: vary.memory.1: memory: mlp / l2: {RESIDUAL}"]
    text = HEAD + (
        "design: factorial\n"
        "vary: {retention: [none, kl], execution.link_refresh: [token, chunk], execution.gradient: [exact, frozen]}\n"
    )
    (line,) = lines(text)  # neither level is wrong alone
    assert line.startswith(
        "t.yaml:5:63: vary.execution.link_refresh.1: execution.link_refresh: kl / link_refresh=chunk / gradient=exact: "
    )


def test_mixed_executions_are_refused_with_the_cure() -> None:
    vary = "vary: {preset: [delta_net, yaad]}\n"
    assert lines(HEAD + vary) == [
        "t.yaml:4:28: vary.preset.1: yaad runs as (frozen, chunk 16, previous) and delta_net as "
        "(exact, chunk 16, previous), so their difference would measure the execution too: hold one for every cell, "
        "as in `execution: {gradient: frozen}`, or opt in by `execution: own`"
    ]
    assert [c.name for c in loads(HEAD + vary + "execution: {gradient: frozen}\n", "t").cells] == ["delta_net", "yaad"]


def test_one_function_cannot_be_two_cells() -> None:
    text = HEAD + "vary: {bias: [{huber: {delta: 1}}, huber]}\ncontrols: [none, ascent, ascent]\n"
    same = "is the same function as"
    cure = "trained alike: one cell would count as two; drop one"
    assert lines(text) == [
        f"t.yaml:4:36: vary.bias.1: 'huber' {same} 'huber', {cure}",
        f"t.yaml:5:12: controls.0: 'l2 + none' {same} 'l2', {cure}",
        f"t.yaml:5:26: controls.2: 'l2 + ascent' {same} 'l2 + ascent', {cure}",
    ]
    twice = "vary: {bias: [l2, dot, l2], memory: [matrix]}\n"  # the base's own level is left out, once
    assert lines(HEAD + twice) == [f"t.yaml:4:24: vary.bias.2: 'l2' {same} 'delta_net', {cure}"]
    assert lines("name: t\ntask: [mqar, {name: mqar, length: 64}]\nbase: delta_net\n") == [
        "t.yaml:2:14: task.1: the task 'mqar' is listed twice with the same settings; drop one"
    ]


def test_a_factorial_that_explodes_is_refused() -> None:
    levels = ", ".join(str(0.01 * (i + 1)) for i in range(50))
    text = HEAD + f"design: factorial\nvary: {{train.lr: [{levels}], train.clip: [{levels}]}}\n"
    assert lines(text) == ["t.yaml:5:1: vary: 2500 cells are more than 2000: vary fewer levels"]


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("train.stps=20", "unknown setting (did you mean 'steps'?)"),
        ("train.steps=many", "expected a whole number, got 'many'"),
        ("train.steps=", "expected a whole number, got None"),
        ("tran.steps=20", "unknown key (did you mean 'train'?)"),
        ("vary.bias=[dot, hubr]", "unknown bias 'hubr' (did you mean 'huber'?)"),
        ("vary.bias.delta=[1]", "the bias 'l2' has no setting 'delta': list whole options under vary.bias instead"),
        ("name.first=x", "name is 't', which has no settings of its own"),
        ("task.1.length=32", "task is a list of 1: '1' is not a position in it (the first is 0)"),
        ("steps", "expected PATH=VALUE, as in train.steps=20"),
        ("=20", "expected PATH=VALUE, as in train.steps=20"),
        (
            "seeds=[1",
            "not readable as YAML: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'",
        ),
    ],
)
def test_a_bad_override_is_told_by_its_own_words(override: str, what: str) -> None:
    assert lines(HEAD.replace("mqar", "[mqar]"), override) == [f"--set {override}: {what}"]


def test_only_the_last_override_of_a_path_is_blamed() -> None:
    assert lines(HEAD, "train={stps: 1}", "train.steps=-1", "train.stps=2") == [
        "--set train.stps=2: unknown setting (did you mean 'steps'?)"
    ]


def test_a_bad_new_name_is_told_by_its_option() -> None:
    (line,) = lines(HEAD, name="a/b")
    assert line.startswith("--as a/b: 'a/b' is not a name")


def test_a_value_of_thousands_of_letters_is_not_told_whole() -> None:
    (line,) = lines(HEAD + f"metric: {'x' * 5000}")
    assert len(line) < 700 and line.startswith("t.yaml:4:1: metric: unknown metric 'xxx")


def test_missing_and_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("latin.yaml").write_bytes("question: Köln".encode("latin-1"))
    Path("large.yaml").write_bytes(b"#" * (2**20 + 1))
    for name, what in {
        "studies/bais.yaml": "no such file, and no study of that name ships with the package (did you mean 'bias'?)",
        "folder": "cannot be read: Is a directory; name a study file",
        "large.yaml": "larger than 1 MiB: name a study file",
        "latin.yaml": "not UTF-8 text: invalid start byte at byte 11",
    }.items():
        with pytest.raises(StudyError) as caught:
            load(name)
        assert str(caught.value) == f"{name}: {what}"
    with pytest.raises(StudyError, match=r"^zzzzz: no such file.*\(known: .*bias.*quickstart.*\)$"):
        load("zzzzz")
