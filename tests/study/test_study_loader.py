"""Reading studies: values, overrides, shipped files, hashes, and what is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from miras_search.space.fields import to_plain
from miras_search.study import shipped
from miras_search.study.loader import Study, load, loads
from miras_search.tasks import task_from_spec, task_to_spec

TEXT = """\
# a comment
name: t
question: Is it
  so?
task: {name: noisy_recall, length: 48}
model: {layers: 1, d_model: 16}
train: {steps: 20, lr: 1e-2}
base: delta_net
vary: {bias: [dot, l2]}  # another
controls: [no_write]
seeds: 3
resources: {cpus: 2, gpus: 0.5}
"""


def read(text: str = TEXT, *overrides: str, name: str | None = None) -> Study:
    return loads(text, "t.yaml", overrides, name)


def test_values_arrive_with_their_types_and_defaults() -> None:
    study = read()
    assert study.name == "t"
    assert study.question == "Is it so?"
    assert (study.kind, study.design, study.metric) == ("ablation", "one_at_a_time", "accuracy")
    assert study.train.lr == 0.01  # 1e-2 is a number in YAML 1.2
    assert (study.train.steps, study.train.batch) == (20, 32)
    assert (study.model.layers, study.model.d_model, study.model.heads) == (1, 16, 2)
    assert study.seeds == (0, 1, 2)
    assert (study.resources.cpus, study.resources.gpus) == (2, 0.5)
    assert study.path == "t.yaml"
    assert study.yaml == TEXT


def test_seeds_may_be_listed() -> None:
    assert read(TEXT.replace("seeds: 3", "seeds: [7, 3]")).seeds == (7, 3)


def test_tasks_are_complete_and_named_apart() -> None:
    (task,) = read().tasks
    assert task.name == "noisy_recall"
    assert task.spec["length"] == 48
    assert task_to_spec(task_from_spec(task.spec)) == task.spec
    listed = "[mqar, {name: noisy_recall, length: 48}, {name: noisy_recall, length: 64, noise: 0}]"
    study = read(TEXT.replace("{name: noisy_recall, length: 48}", listed))
    assert [t.name for t in study.tasks] == [
        "mqar",
        "noisy_recall(length=48)",
        "noisy_recall(length=64, noise=0)",
    ]


def test_overrides_replace_add_and_refine() -> None:
    study = read(
        TEXT,
        "train.steps=5",
        "vary.bias=[kl]",
        "vary.train.lr=[1e-3]",
        "base.retention=l2",
        "task.noise=0.1",
        "execution.chunk=8",
        "seeds=2",
    )
    assert study.train.steps == 5
    assert study.train.lr == 0.01
    assert [c.name for c in study.cells] == ["base", "kl", "lr=0.001", "base + no_write"]
    assert study.base.retention.name == "l2"
    assert study.tasks[0].spec["noise"] == 0.1
    assert study.tasks[0].spec["length"] == 48
    assert study.base.execution.chunk == 8
    assert study.seeds == (0, 1)


def test_a_later_override_wins_and_a_whole_mapping_can_be_given() -> None:
    assert read(TEXT, "train.steps=5", "train.steps=6").train.steps == 6
    assert read(TEXT, "train={steps: 7}").train.batch == 32
    assert read(TEXT, "controls=[ascent]").controls == ("l2 + ascent",)
    assert read(TEXT, "controls.0=ascent").controls == ("l2 + ascent",)


def test_the_text_of_an_overridden_study_reads_back_as_the_same_study() -> None:
    study = read(TEXT, "train.steps=5", "base.bias=kl", "vary.train.lr=[1e-3]", name="other")
    again = loads(study.yaml, "again.yaml")
    assert again.config == study.config
    assert "# a comment" in study.yaml


def test_another_name_is_the_same_space() -> None:
    study, other = read(), read(name="other")
    assert other.name == "other"
    assert other.config_hash != study.config_hash
    assert other.space_hash == study.space_hash


def test_hashes_do_not_see_spelling() -> None:
    reordered = """\
train: {lr: 0.010, steps: 20}
vary:
  bias:
    - dot
    - {l2: {scale: half}}
seeds: [0, 1, 2]
base: {preset: delta_net}
question: "Is it so?"
name: t
task:
  length: 48
  name: noisy_recall
  noise: 0.4
controls: [no_write]
model: {d_model: 16, layers: 1, heads: 2}
resources: {gpus: 0.5, cpus: 2}
"""
    assert read(reordered).config == read().config
    assert read(reordered).config_hash == read().config_hash
    assert len(read().config_hash) == 64


@pytest.mark.parametrize(
    ("text", "seconds"), [("90 s", 90), ("10 min", 600), ("2h 30min", 9000), ("1 d", 86400), ("1.5 h", 5400)]
)
def test_durations_are_written_as_people_do(text: str, seconds: float) -> None:
    assert read(TEXT, f"resources.wall={text}").resources.wall == seconds


def test_saving_may_be_off_and_budgets_compare_nothing() -> None:
    study = read(TEXT, "resources={save_every: off, wall: 8 h, silence: 5 min}")
    assert (study.resources.save_every, study.resources.silence) == (None, 300)
    assert study.space_hash == read(TEXT, "resources={}").space_hash


def test_the_space_hash_sees_what_is_compared_and_nothing_else() -> None:
    study = read()
    for same in ("seeds=20", "question=Why?", "resources.cpus=4"):
        assert read(TEXT, same).space_hash == study.space_hash
        assert read(TEXT, same).config_hash != study.config_hash
    for different in (
        "train.lr=1e-3",
        "vary.bias=[kl]",
        "task.length=64",
        "metric=loss",
        "model.conv=0",
        "base.bias=kl",
    ):
        assert read(TEXT, different).space_hash != study.space_hash


def test_the_config_is_plain_data_with_everything_resolved() -> None:
    study = read()
    config = study.config
    assert json.loads(json.dumps(config)) == config
    base = config["base"]
    assert isinstance(base, dict)
    assert base["train"] == to_plain(study.train)
    cells = config["cells"]
    assert isinstance(cells, list)
    assert cells == [cell.to_plain() for cell in study.cells]


def test_a_bare_name_finds_a_shipped_study_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bias").mkdir()  # a folder of results by that name is no study
    study = load("bias", ["seeds=2"])
    assert study.shipped
    assert study.name == "bias"
    assert load("bias.yaml").shipped
    Path("bias.yaml").write_text(TEXT, encoding="utf-8-sig")
    mine = load(Path("bias.yaml"))
    assert not mine.shipped
    assert mine.name == "t"


def test_aliases_and_merge_keys_are_plain_yaml() -> None:
    text = TEXT.replace("model: {layers: 1, d_model: 16}", "model: &m {layers: 1, d_model: 16}").replace(
        "vary: {bias: [dot, l2]}", "vary: {train.clip: [&c 0.5, 2], train.warmup: [*c]}"
    )
    study = read(text)
    assert study.model.d_model == 16
    assert [c.name for c in study.cells[:4]] == ["delta_net", "clip=0.5", "clip=2", "warmup=0.5"]


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_study_is_valid_and_asks_something(name: str) -> None:
    study = load(name)
    assert study.name == name
    assert study.question.endswith("?")
    assert len(study.cells) > 1 or study.search is not None


def test_loading_and_planning_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from miras_search.study import loader, plan\n"
        "for name in ('bias', 'quickstart'):\n"
        "    study = loader.load(name)\n"
        "    plan.plan(study).to_plain(), study.config_hash, study.space_hash\n"
        "print(sorted({'torch', 'triton', 'ray', 'optuna', 'sqlalchemy', 'pandas', 'streamlit'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert found.stdout.strip() == "[]"
