"""An evaluation of a checkpoint: the training's score on its own task, another one elsewhere, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from miras_search.errors import MirasError
from miras_search.models import budget
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.training.checkpoint import save_checkpoint
from miras_search.training.config import TrainConfig
from miras_search.training.job import Cancelled, Job, Outcome
from miras_search.training.run import train
from miras_search.training.start import new_model
from miras_search.training.trained import evaluate_trained

TASK = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}
MODEL = ModelConfig(layers=1, d_model=8, heads=1)


def job(task: dict[str, object] = TASK, **settings: object) -> Job:
    values = {"steps": 3, "batch": 4, "eval_examples": 9, "eval_batch": 4, **settings}
    return Job(DesignPoint.parse("delta_net"), MODEL, task, TrainConfig(**values), seed=3)


def measured(outcome: Outcome) -> dict[tuple[str, str], float]:
    return {(final.name, final.split): final.value for final in outcome.finals}


def checkpoint(folder: Path, one: Job) -> tuple[Outcome, bytes]:
    path = folder / "model.safetensors"
    outcome = train(one, device="cpu", checkpoint=path)
    return outcome, path.read_bytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_its_own_task_gives_the_training_its_own_score_to_the_bit(tmp_path: Path, precision: str) -> None:
    one = job(precision=precision)
    trained, parameters = checkpoint(tmp_path, one)
    found = evaluate_trained(one, parameters, device="cpu")
    theirs = measured(trained)
    same = [("accuracy", "test"), ("loss", "test"), ("params", ""), ("state_bytes", ""), ("flops_per_token", "")]
    assert {key: measured(found)[key] for key in same} == {key: theirs[key] for key in same}
    assert measured(found).keys() == {*same, ("peak_memory_bytes", ""), ("wall_seconds", "")}
    assert (found.state, found.last_step, found.note) == ("complete", 3, "")


def test_another_length_is_scored_on_its_own_sequences_the_same_each_time(tmp_path: Path) -> None:
    trained, parameters = checkpoint(tmp_path, job())
    longer = job({**TASK, "length": 32, "pairs": 4}, eval_examples=64)
    found, again = (measured(evaluate_trained(longer, parameters, device="cpu")) for _ in range(2))
    assert found["loss", "test"] == again["loss", "test"] != measured(trained)["loss", "test"]
    assert found["flops_per_token", ""] == budget.flops_per_token(new_model(longer), 32)


def test_a_score_that_is_no_number_is_a_divergence(tmp_path: Path) -> None:
    model = new_model(job())
    with torch.no_grad():
        model.norm.fill_(torch.nan)
    save_checkpoint(tmp_path / "nan.safetensors", job(), model, 3)
    found = evaluate_trained(job(), (tmp_path / "nan.safetensors").read_bytes(), device="cpu")
    assert (found.state, found.note) == ("diverged", "test loss nan")
    assert not {name for name, split in measured(found) if split}


def test_what_is_not_this_training_or_not_its_tokens_is_refused(tmp_path: Path) -> None:
    _, parameters = checkpoint(tmp_path, job())
    for other in (dataclasses.replace(job(), seed=4), job(lr=0.5), dataclasses.replace(job(), model=ModelConfig())):
        with pytest.raises(MirasError, match="the checkpoint is of another training"):
            evaluate_trained(other, parameters, device="cpu")
    with pytest.raises(MirasError, match="task: it has 32 tokens and the model 16: evaluate on a task of 16 tokens"):
        evaluate_trained(job({**TASK, "vocab": 32}), parameters, device="cpu")
    with pytest.raises(MirasError, match="the checkpoint: not a checkpoint"):
        evaluate_trained(job(), parameters[:40], device="cpu")


def test_it_can_be_stopped_between_batches(tmp_path: Path) -> None:
    _, parameters = checkpoint(tmp_path, job())
    calls: list[None] = []

    def alive() -> bool:
        calls.append(None)
        return len(calls) == 2

    with pytest.raises(Cancelled, match="amid an evaluation"):
        evaluate_trained(job(), parameters, device="cpu", alive=alive)
    assert len(calls) == 2
