"""A training that is broken off and goes on from its snapshot: bit for bit what it finds undisturbed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from torch import Tensor

from miras_search.kernels import chunkwise, dispatch
from miras_search.kernels.state import State
from miras_search.models.config import ModelConfig
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.training.config import TrainConfig
from miras_search.training.job import Cancelled, Job, Keep, Outcome, Point
from miras_search.training.run import train

TIMED = {"tokens_per_second", "peak_memory_bytes", "wall_seconds"}


def job(seed: int = 0, design: object = "delta_net", matched: str | None = None, **settings: object) -> Job:
    task = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}
    config = TrainConfig.from_plain({"steps": 16, "batch": 4, "eval_examples": 8, "eval_every": 6, **settings})
    base = None if matched is None else DesignPoint.parse(matched)
    return Job(DesignPoint.parse(design), ModelConfig(layers=1, d_model=8, heads=1), task, config, seed, base)


def measured(outcome: Outcome) -> dict[tuple[str, str], float]:
    return {(final.name, final.split): final.value for final in outcome.finals if final.name not in TIMED}


class Try:
    """One try of a training, which is told to stop after so many reports."""

    def __init__(self, stop_after: int | None = None, resume: bytes | None = None, every: float = 1e9) -> None:
        self.saved: list[bytes] = []
        self.points: list[Point] = []
        self.left = stop_after
        self.keep = Keep(self.saved.append, every, resume)

    def report(self, points: Sequence[Point]) -> bool:
        self.points += points
        if self.left is None:
            return False
        self.left -= 1
        return self.left <= 0

    def train(self, one: Job, threads: int = 1) -> Outcome:
        return train(one, device="cpu", report=self.report, threads=threads, keep=self.keep)


@pytest.fixture(autouse=True)
def beats_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.training.run.BEAT", 0.0)


# within a window, at the look that ends one, and at the last look
@pytest.mark.parametrize("stop_after", [5, 7, 18])
def test_what_is_broken_off_anywhere_goes_on_to_the_same_bits(stop_after: int) -> None:
    whole, first = Try(), Try(stop_after)
    expected = whole.train(job())
    with pytest.raises(Cancelled):
        first.train(job())
    (snapshot,) = first.saved
    second = Try(resume=snapshot)
    outcome = second.train(job())
    assert measured(outcome) == measured(expected)
    assert second.points == whole.points, "the new attempt has the whole curve"
    assert not second.saved


def test_only_the_first_steps_are_compared_with_torch_whatever_the_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(point: DesignPoint, inputs: Inputs, *rest: object) -> tuple[Tensor, State]:
        y, state = chunkwise.run(point, inputs, *rest)
        return y * (1 + 1e-5), state

    near = dispatch.Implementation("near", run, lambda point, setting: None, compiled=True)
    monkeypatch.setattr(dispatch, "IMPLEMENTATIONS", (near, *dispatch.IMPLEMENTATIONS))
    expected = measured(Try().train(job()))
    assert expected["kernel_mismatch", ""] > 0
    first = Try(5)
    with pytest.raises(Cancelled):
        first.train(job())
    assert measured(Try(resume=first.saved[0]).train(job())) == expected


def test_a_training_may_be_broken_off_at_every_step() -> None:
    short = job(steps=5, eval_every=3)
    whole = Try()
    expected = whole.train(short)
    one, resume = Try(1), None
    for _ in range(10):
        one = Try(1, resume)
        try:
            outcome = one.train(short)
        except Cancelled:
            resume = one.saved[-1]
        else:
            break
    assert resume is not None
    assert measured(outcome) == measured(expected)
    assert one.points == whole.points


def test_a_design_with_moments_and_a_matched_step_goes_on_too() -> None:
    one = job(design="titans_lmm", matched="delta_net", inner_step="match_base", schedule="constant", steps=8)
    expected = Try().train(one)
    first = Try(4)
    with pytest.raises(Cancelled):
        first.train(one)
    assert measured(Try(resume=first.saved[0]).train(one)) == measured(expected)


def test_a_divergence_after_the_break_is_found_at_its_step() -> None:
    wild = job(lr=1e6, warmup=0, steps=30, eval_every=0)
    expected = Try().train(wild)
    assert expected.state == "diverged"
    first = Try(1)
    with pytest.raises(Cancelled):
        first.train(wild)
    again = Try(resume=first.saved[0]).train(wild)
    assert (again.state, again.last_step, again.note) == ("diverged", expected.last_step, expected.note)
    assert measured(again) == measured(expected)


def test_snapshots_are_taken_on_the_way_and_time_adds_up() -> None:
    one = Try(every=0.0)
    whole = one.train(job())
    assert len(one.saved) == 16, "one a step"
    again = Try(resume=one.saved[7]).train(job())
    assert measured(again) == measured(whole)
    assert again.wall_seconds > 0


@pytest.mark.parametrize("damage", ["cut", "other job", "other threads", "no snapshot"])
def test_what_is_no_snapshot_of_this_training_is_left_aside(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = Try().train(job())
    first = Try(4)
    with pytest.raises(Cancelled):
        first.train(job(seed=1) if damage == "other job" else job(), threads=2 if damage == "other threads" else 1)
    data = {"cut": first.saved[0][:-10], "no snapshot": b"nonsense"}.get(damage, first.saved[0])
    with caplog.at_level(logging.WARNING):
        assert measured(Try(resume=data).train(job())) == measured(expected)
    assert "starts over" in caplog.text
