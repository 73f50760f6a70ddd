"""`check`, `plan` and `space`: what is said before anything is trained, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_check_says_ok_for_each_study(cli, study_file: Path) -> None:
    result = cli("check", "small.yaml")
    assert (result.code, result.err) == (0, "")
    assert result.out == "small.yaml: ok (4 cells, 12 jobs)\n"


def test_check_reports_each_bad_study_at_its_place_and_goes_on(cli, here: Path, study_file: Path) -> None:
    Path("bad.yaml").write_text(study_file.read_text().replace("steps: 2", "stps: 2"))
    result = cli("check", "bad.yaml", "small.yaml", "nowhere.yaml")
    assert result.code == 2
    assert result.out.startswith("small.yaml: ok")
    assert "bad.yaml:5:9: train.stps: unknown setting (did you mean 'steps'?)\n" in result.err
    assert "nowhere.yaml: no such file" in result.err


def test_check_json_has_the_problems(cli, study_file: Path) -> None:
    result = cli("check", "small.yaml", "--set", "train.stps=2", "--json")
    assert (result.code, result.err) == (2, "")
    (study,) = result.json["studies"]
    assert study["ok"] is False
    assert study["problems"][0]["what"].startswith("unknown setting")
    good = cli("check", "small.yaml", "--json")
    assert good.json["studies"][0]["jobs"] == 12


def test_a_shipped_study_is_found_by_name_and_that_is_said(cli) -> None:
    result = cli("check", "bias")
    assert result.code == 0
    assert "ships with miras-search" in result.err


def test_plan_tells_cells_jobs_and_confounds(cli, study_file: Path) -> None:
    result = cli("plan", "small.yaml")
    assert result.code == 0
    assert "12 = 4 cells x 1 task x 3 seeds" in result.out
    assert "nothing stored yet; 12 to train" in result.out
    assert "3 seeds" in result.out.split("confounds")[1]
    assert not Path("miras.db").exists()


def test_plan_counts_what_the_database_has(cli, stored: Path) -> None:
    plan = cli("plan", "small.yaml", "--json").json
    assert plan["done"] == {"complete": 9, "diverged": 1, "failed": 1, "waiting": 1}
    assert plan["remaining"] == 1
    assert plan["estimate_seconds"] is not None
    assert plan["conflict"] is False


def test_plan_warns_of_another_study_under_the_same_name(cli, stored: Path) -> None:
    result = cli("plan", "small.yaml", "--set", "train.steps=3", "--json")
    assert "--as small-2" in result.err
    assert result.json["conflict"] is True
    assert result.json["remaining"] == 12
    assert cli("plan", "small.yaml", "--set", "seeds=5", "--json").json["conflict"] is False
    assert cli("plan", "small.yaml", "--set", "train.steps=3", "--as", "other", "--json").json["conflict"] is False


def test_a_dry_run_prints_the_plan_and_touches_nothing(cli, study_file: Path) -> None:
    assert cli("run", "small.yaml", "--dry-run").out == cli("plan", "small.yaml").out
    assert sorted(path.name for path in Path().iterdir()) == ["small.yaml"]


@pytest.mark.parametrize(
    "words",
    [["check", "bias"], ["plan", "bias"], ["space"], ["space", "--preset", "yaad"], ["space", "--tasks"]],
    ids=" ".join,
)
def test_no_torch(words: list[str], here: Path) -> None:
    program = f"""
import sys
from miras_search.cli import main
assert main({words!r}) == 0
found = [name for name in ("torch", "triton", "ray", "optuna", "sqlalchemy") if name in sys.modules]
sys.exit(f"loaded: {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_space_tells_every_option_with_its_equation(cli) -> None:
    from miras_search.space.design import AXES

    text, document = cli("space").out, cli("space", "--json").json
    for name, axis in AXES.items():
        assert f"{name}: {axis.chooses}" in text
        listed = {option["name"]: option for option in document["axes"][name]["options"]}
        assert list(listed) == list(axis.options)
        for option in axis.options.values():
            assert option.equation in text
            assert listed[option.name]["source"] == option.source


def test_a_preset_spelled_out_is_the_same_design(cli, study_file: Path) -> None:
    from miras_search.space.design import DesignPoint
    from miras_search.space.presets import preset

    document = cli("space", "--preset", "titans_lmm", "--json").json
    assert DesignPoint.parse(document["design"]).hash == preset("titans_lmm").hash == document["hash"]
    text = cli("space", "--preset", "titans_lmm").out
    base = text[text.rindex("    base:\n") :]
    study = "\n".join(
        line for line in study_file.read_text().splitlines() if not line.startswith(("base", "vary", "exec", "model"))
    )
    study_file.write_text(study + "\n" + "\n".join(line[4:] for line in base.splitlines()) + "\n")
    loaded = cli("check", "small.yaml")
    assert loaded.code == 0, loaded.err
    from miras_search.study.levels import preset_model
    from miras_search.study.loader import load

    spelled = load(study_file)
    assert spelled.base.hash == preset("titans_lmm").hash
    assert spelled.model == preset_model("titans_lmm", {}, ())


def test_an_unknown_preset_names_the_nearest(cli) -> None:
    result = cli("space", "--preset", "yadd")
    assert (result.code, result.out) == (2, "")
    assert result.err == "unknown preset 'yadd' (did you mean 'yaad'?)\n"
    assert cli("space", "--preset", "yaad", "--tasks").code == 2


def test_the_tasks_and_their_settings(cli) -> None:
    from miras_search.tasks import TASKS

    tasks = {task["name"]: task for task in cli("space", "--tasks", "--json").json["tasks"]}
    assert set(tasks) == set(TASKS)
    assert tasks["mqar"]["settings"]["pairs"]["default"] == 8
    assert "pairs = 8" in cli("space", "--tasks").out


def test_kernels_tells_what_runs_each_preset_and_why_not_a_faster_one(cli) -> None:
    from miras_search.space.presets import PRESETS

    found = cli("space", "--kernels", "--json").json["implementations"]
    presets = {one["option"]: one["choices"] for one in found if one["axis"] == "preset"}
    assert set(presets) == set(PRESETS)
    cpu, _ = presets["yaad"]
    assert (cpu["device"], cpu["name"]) == ("cpu", "chunkwise")
    assert cpu["passed_over"][0][0] == "triton"
    text = cli("space", "--kernels").out
    assert "algorithm momentum" in text
    assert "not triton on cuda: " in text


def test_kernels_without_torch_is_one_line(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "miras_search.commands.implementations", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = cli("space", "--kernels")
    assert (result.code, result.out) == (3, "")
    assert result.err == "space --kernels: torch is not installed: pip install torch\n"


def test_json_is_one_document(cli) -> None:
    assert json.loads(cli("space", "--json").out)["rules"]
