"""`import miras_search` as a library: docs/api.md runs, frames have their types, the import costs nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import miras_search as ms
from miras_search.errors import MirasError

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAVY = ("torch", "ray", "streamlit", "pandas", "optuna", "sqlalchemy", "triton", "scipy", "matplotlib", "pydantic")


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / "api.md").read_text(), re.M | re.S)


def test_the_page_runs_in_the_order_in_which_it_stands(here: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks():
        exec(compile(block, "api.md", "exec"), names)
    table, curves = names["table"], names["curves"]
    assert isinstance(table, pd.DataFrame) and isinstance(curves, pd.DataFrame)
    assert table["cell"].tolist() == ["l2", "dot"]
    assert table["n"].tolist() == [3, 3]
    assert curves.groupby("cell")["step"].nunique().tolist() == [4, 4]
    assert ms.open().names() == ["first", "first.longer"]
    longer = ms.open().study("first.longer")
    assert longer.table()["cell"].tolist() == ["l2", "dot"] * 2
    assert set(longer.jobs()["state"]) == {"complete"}
    trained = ms.open().study("first").model(1, 1)
    assert trained.score() == names["trained"].score()  # type: ignore[attr-defined]  # a model of the page's
    told: list[str] = []
    overrides = ["task.length=60", "task.length=80"]
    study = ms.open().study("first")
    study.evaluate(
        overrides=overrides, name="first.longer", executor="local", on_event=lambda one: told.append(one.event)
    )
    assert told and "job_started" not in told, "all of it is there"
    with pytest.raises(MirasError, match="nowhere"):
        study.evaluate(cells=["nowhere"], executor="local")
    with pytest.raises(MirasError, match="workers"):
        study.evaluate(overrides=overrides, name="other", workers=0)
    assert ms.open().names() == ["first", "first.longer"]


def test_a_trained_model_comes_back_as_it_was(here: Path) -> None:
    """Its score on its own test sequences is the one that is stored, to the digit; what is not there is one line."""
    config = {
        "name": "models",
        "question": "Are they the same?",
        "task": [
            {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2},
            {"name": "mqar", "vocab": 16, "length": 12, "pairs": 2},
        ],
        "model": {"layers": 1, "d_model": 8, "heads": 1},
        "train": {"steps": 3, "batch": 4, "eval_examples": 32},
        "base": "delta_net",
        "vary": {"bias": ["dot"]},
        "tune": {"train.lr": [1e-3, 3e-3, 1e-2, 3e-2], "seeds": 1},
        "seeds": 2,
    }
    study = ms.run(config, executor="local", workers=1)
    task = "mqar(vocab=16, length=12, pairs=2)"
    jobs = study.jobs().query("task == @task and seed == 1")
    stored = {cell: jobs[jobs["cell"].str.startswith(cell)]["accuracy.test"].item() for cell in ("l2", "dot")}
    for cell in ("l2", "dot"):
        trained = study.model(cell, 1, trained_on=task)
        assert trained.score().accuracy == stored[cell]
        assert not trained.model.training
        assert trained.job.design.bias.name == cell
    assert trained.test(5).tokens.shape == (5, 12)
    assert (trained.test(5).tokens == trained.test().tokens[:5]).all()
    for words, said in (
        (("dot", 1), "models: it is trained on mqar(vocab=16, length=16, pairs=2), "),
        (("dott", 1, task), "models has no such cell: did you mean 'dot'?"),
        (("dot", 7, task), f"models: dot, {task}: not trained with seed 7; its seeds: "),
    ):
        with pytest.raises(MirasError, match=re.escape(said)):
            study.model(words[0], words[1], trained_on=words[2] if len(words) > 2 else None)
    for file in (here / "checkpoints").rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(MirasError, match="its checkpoint cannot be read"):
        study.model("dot", 1, trained_on=task)


def test_a_training_that_diverged_has_no_model(stored: Path) -> None:
    with pytest.raises(MirasError, match="its training is diverged: there is no model"):
        study = ms.open(stored).study("small")
        study.model("dot", int(study.jobs().query("cell == 'dot' and state == 'diverged'")["seed"].iloc[0]))


def test_the_notebook_is_the_page_with_what_it_printed() -> None:
    notebook = json.loads((DOCS / "api.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]) for cell in code] == [block.strip() for block in blocks()]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    shown = [output for cell in code[1:] for output in cell["outputs"]]
    assert len(shown) == len(code) - 1
    assert all("text/plain" in output["data"] for output in shown)


def test_frames_have_a_type_for_every_column(stored: Path) -> None:
    study = ms.open(stored).study("small")
    table = study.table().set_index("cell")
    assert table["failed"].dtype == "Int64" and table["mean"].dtype == "float64" and table["best"].dtype == bool
    assert table.loc["dot", "diverged"] == 1 and pd.isna(table.loc["l2", "difference"])
    assert study.table(metric="loss", split="train", against="dot")["base"].unique().tolist() == ["dot"]
    jobs = study.jobs()
    assert jobs["seed"].dtype == "int64" and set(jobs["state"]) == {"complete", "diverged", "failed", "waiting"}
    assert "object" not in {str(kind) for frame in (study.table(), jobs, study.trials()) for kind in frame.dtypes}
    assert study.curves("loss", "train")["value"].tolist() == [2.0] * 11
    assert len(study.curves("accuracy")) == 0
    assert "dot" in study._repr_html_() and "<!doctype html>" in study.report()


def test_mistakes_are_one_line_with_the_cure(stored: Path, here: Path) -> None:
    with pytest.raises(MirasError, match=r"did you mean 'small'\?"):
        ms.open(stored).study("smal")
    with pytest.raises(MirasError, match="no such database"):
        ms.open("nowhere.db")
    with pytest.raises(MirasError, match="'task' is missing"):
        ms.run({"name": "t", "base": "delta_net", "vary": {"bias": ["l2", "dot"]}})
    with pytest.raises(MirasError, match="give plain values"):
        ms.run({"name": object()})
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        getattr(ms, "opne")  # noqa: B009 - a bare attribute would be an expression without use


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": "2"}, "workers: '2' is no whole number from 1 to 1024"),
        ({"workers": 0}, "workers: 0 is no whole number from 1 to 1024"),
        ({"max_jobs": -1}, "max_jobs: -1 is no whole number from 0 to 2147483647"),
        ({"executor": "foo"}, "executor: unknown executor 'foo': take auto, local, ray"),
        ({"db": None}, "database: None is no path and no URL: write a path such as miras.db"),
    ],
)
def test_wrong_options_of_a_run_leave_nothing_behind(here: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(MirasError, match=re.escape(said)):
        ms.run("quickstart", **options)  # type: ignore[arg-type]  # that is the mistake
    assert [*here.iterdir()] == []


def test_what_is_no_name_is_a_mistake_too(stored: Path) -> None:
    study = ms.open(stored).study("small")
    with pytest.raises(MirasError, match="against: no cell is named 1; there are: l2"):
        study.table(against=1)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(MirasError, match="metric: 1 is not registered"):
        study.table(metric=1)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(MirasError, match="metric: 'foo' is not registered"):
        study.curves("foo")
    with pytest.raises(MirasError, match="curves: split 'foo' is none of train, validation, test"):
        study.curves("accuracy", "foo")


def test_the_import_loads_nothing_heavy() -> None:
    program = f"import sys, miras_search as ms; dir(ms); assert not {set(HEAVY)!r} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
