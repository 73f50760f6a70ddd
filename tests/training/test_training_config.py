"""Settings, seeds and jobs: plain data that refuse what cannot be trained."""

from __future__ import annotations

import json
import math

import pytest

from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.training.config import Seeds, TrainConfig
from miras_search.training.job import Final, Job, Outcome

TASK = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}


def job() -> Job:
    return Job(DesignPoint.parse("yaad"), ModelConfig(layers=1), TASK, TrainConfig(lr=3e-3, betas=(0.9, 0.99)), seed=7)


def test_seeds_are_the_same_for_ever() -> None:
    # stored results name only the study's seed: another derivation would make them irreproducible
    assert Seeds.of(0) == Seeds(init=5886017660624707856, data=7620060309423331307, eval=6410282598181348009)


def test_seeds_of_neighbours_and_roles_differ_and_fit_a_signed_word() -> None:
    numbers = [n for seed in range(-3, 50) for n in (Seeds.of(seed).init, Seeds.of(seed).data, Seeds.of(seed).eval)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= n < 2**63 for n in numbers)
    assert sum(n >= 2**62 for n in numbers) > len(numbers) // 4  # the high bits are drawn as well


def test_schedule_rises_linearly_then_falls_by_a_cosine() -> None:
    config = TrainConfig(steps=100, warmup=0.1, final_lr=0.2)
    shares = [config.share(step) for step in range(100)]
    assert shares[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert shares[55] == pytest.approx(0.2 + 0.8 * 0.5)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert 0.2 < shares[-1] < 0.21


def test_constant_schedule_and_no_warmup() -> None:
    config = TrainConfig(steps=10, warmup=0, schedule="constant")
    assert {config.share(step) for step in range(10)} == {1.0}


def test_warmup_of_every_step_ends_at_the_full_rate() -> None:
    assert TrainConfig(steps=7, warmup=1).share(6) == 1.0


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("steps", 0, "at least 1"),
        ("batch", 0, "at least 1"),
        ("lr", 0.0, "above 0"),
        ("lr", -1.0, "0 or more"),
        ("lr", math.inf, "finite"),
        ("lr", "fast", "expected a number"),
        ("clip", math.nan, "finite"),
        ("warmup", 1.5, "share"),
        ("final_lr", -0.1, "share"),
        ("betas", [0.9], "two numbers"),
        ("betas", [0.9, 1.0], "two numbers"),
        ("eval_every", -1, "or more"),
        ("eval_examples", 0, "at least 1"),
        ("schedule", "linear", "cosine, constant"),
        ("precision", "float16", "float32, bfloat16"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_at_their_place(setting: str, value: object, words: str) -> None:
    with pytest.raises(SpecError, match=words) as error:
        TrainConfig.from_plain({setting: value}, ("train",))
    assert error.value.problems[0].where == ("train", setting)


def test_unknown_setting_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"train.stps: unknown setting \(did you mean 'steps'\?\)"):
        TrainConfig.from_plain({"stps": 3}, ("train",))


def test_job_survives_json() -> None:
    assert Job.from_plain(json.loads(json.dumps(job().to_plain()))) == job()


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ({"seed": "7"}, ("seed",), "whole number"),
        ({"seed": True}, ("seed",), "whole number"),
        ({"task": "mqar"}, ("task",), "name and settings"),
        ({"task": {"name": "mqra"}}, ("task", "name"), "did you mean 'mqar'"),
        ({"train": {"steps": 0}}, ("train", "steps"), "at least 1"),
        ({"design": {"bias": "l3"}}, ("design", "bias"), "l3"),
        ({"model": {"layer": 2}}, ("model", "layer"), "did you mean 'layers'"),
        ({"device": "cpu"}, ("device",), "unknown part"),
    ],
)
def test_wrong_job_is_refused_at_its_place(change: dict[str, object], where: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words) as error:
        Job.from_plain({**job().to_plain(), **change})
    assert error.value.problems[0].where == where


def test_job_with_a_missing_part_is_refused() -> None:
    plain = job().to_plain()
    del plain["seed"]
    with pytest.raises(SpecError, match="'seed' is missing"):
        Job.from_plain(plain)


def test_outcome_survives_json() -> None:
    outcome = Outcome("diverged", (Final("loss", "train", 3.5), Final("params", "", 120)), 17, 1.5, 1 << 20, "loss nan")
    assert Outcome.from_plain(json.loads(json.dumps(outcome.to_plain()))) == outcome
