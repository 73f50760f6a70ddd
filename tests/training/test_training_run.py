"""Whole trainings on tiny sizes: learning, repeatability, divergence, cancelling, what is reported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import islice

import pytest
import torch

from miras_search.errors import EnvironmentProblem
from miras_search.metrics import METRICS
from miras_search.models import budget
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.training.config import TrainConfig
from miras_search.training.job import Cancelled, Job, Outcome, Point
from miras_search.training.run import train, windows
from miras_search.training.start import new_model

COSTS = {"params", "state_bytes", "flops_per_token", "tokens_per_second", "peak_memory_bytes", "wall_seconds"}


def job(seed: int = 0, design: object = "delta_net", pairs: int = 2, **settings: object) -> Job:
    task = {"name": "mqar", "vocab": 16, "length": 16, "pairs": pairs}
    config = TrainConfig.from_plain({"steps": 12, "batch": 8, "eval_examples": 16, "eval_every": 5, **settings})
    return Job(DesignPoint.parse(design), ModelConfig(layers=1, d_model=16, heads=2), task, config, seed)


def measured(outcome: Outcome) -> dict[tuple[str, str], float]:
    """The finals that repeat: everything but time and memory."""
    timed = {"tokens_per_second", "peak_memory_bytes", "wall_seconds"}
    return {(f.name, f.split): f.value for f in outcome.finals if f.name not in timed}


class Curve:
    """A report that keeps every point."""

    def __init__(self) -> None:
        self.calls: list[tuple[Point, ...]] = []

    def __call__(self, points: Sequence[Point]) -> bool:
        self.calls.append(tuple(points))
        return False

    @property
    def points(self) -> list[Point]:
        return [point for call in self.calls for point in call]


def test_delta_net_learns_to_recall() -> None:
    settings = {"steps": 200, "batch": 32, "lr": 2e-2, "eval_every": 0, "eval_examples": 128}
    curve = Curve()
    outcome = train(job(**settings), device="cpu", report=curve)
    losses = [p.value for p in curve.points if p.split == "train"]
    finals = measured(outcome)
    assert losses[0] > 2  # ln 16 = 2.8 nats: it starts from a blind guess
    assert finals["loss", "train"] < 0.5 * losses[0]
    assert finals["accuracy", "test"] > 0.7  # a guess among the two values of the context is right half the time


def test_same_job_gives_the_same_bits() -> None:
    one, two = Curve(), Curve()
    first = train(job(), device="cpu", report=one)
    torch.manual_seed(99)  # neither the caller's random state nor a worker's other jobs are anybody's business here
    train(job(design="linear_attention", steps=2), device="cpu")
    second = train(job(), device="cpu", report=two)
    assert measured(first) == measured(second)
    assert one.points == two.points


def test_training_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(job(), device="cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_seed_decides_weights_and_data() -> None:
    first, second = train(job(seed=0), device="cpu"), train(job(seed=1), device="cpu")
    assert measured(first) != measured(second)
    start, same, other = (dict(new_model(job(seed=seed)).named_parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(start[name], same[name]) for name in start)
    assert any(not torch.equal(start[name], other[name]) for name in start)


def test_evaluation_batch_is_memory_and_not_a_result() -> None:
    whole, parts = (train(job(eval_batch=size), device="cpu") for size in (16, 3))
    assert measured(whole) == pytest.approx(measured(parts), rel=1e-6)


def test_finals_of_a_complete_training() -> None:
    outcome = train(job(), device="cpu")
    keys = [(final.name, final.split) for final in outcome.finals]
    quality = {(name, split) for name in ("accuracy", "loss") for split in ("validation", "test")}
    assert set(keys) == quality | {("loss", "train")} | {(name, "") for name in COSTS}
    assert len(keys) == len(set(keys))
    assert all(math.isfinite(final.value) and final.name in METRICS for final in outcome.finals)
    assert (outcome.state, outcome.last_step, outcome.note) == ("complete", 12, "")
    values = {final.name: final.value for final in outcome.finals if not final.split}
    assert values["params"] == sum(p.numel() for p in new_model(job()).parameters())
    assert values["state_bytes"] == budget.state_bytes(new_model(job()))
    assert values["flops_per_token"] == budget.flops_per_token(new_model(job()), 16)
    assert values["peak_memory_bytes"] == outcome.peak_memory_bytes > 10_000_000  # a Python with torch in it
    assert values["wall_seconds"] == outcome.wall_seconds > 0
    assert values["tokens_per_second"] > 12 * 8 * 16 / outcome.wall_seconds * 0.5


def test_curve_has_train_windows_and_validation_looks() -> None:
    curve = Curve()
    outcome = train(job(steps=24, eval_every=10), device="cpu", report=curve)
    steps = {key: [p.step for p in curve.points if (p.name, p.split) == key] for key in CURVES}
    assert steps == {
        ("loss", "train"): [10, 20, 24],
        ("loss", "validation"): [10, 20, 24],
        ("accuracy", "validation"): [10, 20, 24],
        ("loss", "test"): [24],
        ("accuracy", "test"): [24],
    }
    last = {(p.name, p.split): p.value for p in curve.points}
    assert last["accuracy", "validation"] == measured(outcome)["accuracy", "validation"]


CURVES = [("loss", "train"), *((name, split) for split in ("validation", "test") for name in ("loss", "accuracy"))]


@pytest.mark.parametrize(
    ("steps", "every", "ends"),
    [(5, 0, [5]), (20, 0, [10, 20]), (25, 7, [7, 10, 14, 20, 21, 25]), (10, 100, [10]), (10, 5, [5, 10])],
)
def test_windows_cover_every_step_once(steps: int, every: int, ends: list[int]) -> None:
    ranges = list(windows(steps, every))
    assert [last for _, last in ranges] == ends
    assert [step for first, last in ranges for step in range(first, last)] == list(range(steps))


def test_a_long_training_does_not_list_its_windows() -> None:
    assert list(islice(windows(10**15, 25), 4)) == [(0, 10), (10, 20), (20, 25), (25, 30)]


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch says that a norm of two types takes its slower path
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_rate_that_blows_up_is_a_result(precision: str) -> None:
    curve = Curve()
    outcome = train(job(lr=1e6, warmup=0, steps=30, precision=precision), device="cpu", report=curve)
    assert outcome.state == "diverged"
    assert 0 < outcome.last_step < 30
    assert f"at step {outcome.last_step + 1}" in outcome.note
    names = {(final.name, final.split) for final in outcome.finals}
    assert {(name, "") for name in COSTS} <= names
    assert ("accuracy", "test") not in names
    assert all(math.isfinite(value.value) for value in (*outcome.finals, *curve.points))


def test_divergence_at_the_first_step_has_costs_but_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.training.findings.HUGE", 1e-3)  # every loss is far beyond
    outcome = train(job(), device="cpu")
    assert (outcome.state, outcome.last_step) == ("diverged", 0)
    assert {final.name for final in outcome.finals} == COSTS - {"tokens_per_second"}
    assert "at step 1" in outcome.note


def test_weights_ruined_by_the_last_step_are_found_by_the_evaluation() -> None:
    outcome = train(job(steps=1, lr=3e38, warmup=0), device="cpu")
    assert (outcome.state, outcome.last_step) == ("diverged", 1)
    assert outcome.note.startswith("validation loss") and outcome.note.endswith("after step 1")
    assert {(f.name, f.split) for f in outcome.finals} == {("loss", "train"), *((name, "") for name in COSTS)}


def test_cancelling_stops_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.training.run.BEAT", math.inf)  # no report but that of the look at step 5
    calls = []

    def stop(points: Sequence[Point]) -> bool:
        calls.append(points)
        return True

    with pytest.raises(Cancelled, match=r"after 5 of 12 steps"):
        train(job(), device="cpu", report=stop)
    assert len(calls) == 1


def test_slow_steps_still_show_that_they_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.training.run.BEAT", 0.0)  # as if every step took longer than a beat
    curve = Curve()
    train(job(steps=4, eval_every=0), device="cpu", report=curve)
    assert len([call for call in curve.calls if not call]) == 4
    assert {(p.name, p.split) for p in curve.points} == set(CURVES)


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def look(points: Sequence[Point]) -> bool:
        seen.append(torch.get_num_threads())
        return False

    train(job(), device="cpu", threads=before + 1, report=look)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "words"), [("gpu", "not a device"), ("meta", "not supported"), ("cuda:99", "not there")]
)
def test_device_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(EnvironmentProblem, match=words):
        train(job(), device=name)


def test_constant_memory_loses_to_one_that_writes() -> None:
    """The training is a fair judge: without writes nothing can be recalled."""
    settings = {"steps": 200, "batch": 32, "lr": 2e-2, "eval_every": 0, "eval_examples": 128}
    base = DesignPoint.parse("delta_net")
    control = job(design=dataclasses.replace(base).to_plain() | {"control": "no_write"}, **settings)
    accuracy = measured(train(control, device="cpu"))["accuracy", "test"]
    assert accuracy < 0.7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_finds_what_the_cpu_finds() -> None:
    cpu, gpu = (measured(train(job(), device=device)) for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, rel=1e-3, abs=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_finds_the_step_that_blew_up() -> None:
    cpu, gpu = (train(job(lr=1e6, warmup=0, steps=30), device=device) for device in ("cpu", "cuda"))
    assert (gpu.state, gpu.last_step) == (cpu.state, cpu.last_step)
