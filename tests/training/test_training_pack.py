"""Packs: what a job finds beside others is what it finds alone, whoever the others are and however they end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import SpecError
from miras_search.training.checkpoint import load_checkpoint
from miras_search.training.config import TrainConfig
from miras_search.training.job import Cancelled, Job, Outcome, Point
from miras_search.training.pack import train_pack
from miras_search.training.run import train
from miras_search.training.shape import shape

TIMED = {"tokens_per_second", "peak_memory_bytes", "wall_seconds"}
DESIGNS: dict[str, object] = {
    "delta_net": "delta_net",
    "delta_net refined": {"preset": "delta_net", "execution": {"gradient": {"refined": 2}, "chunk": 8}},
    "lp refined": {"bias": {"lp": {"p": 1.5}}, "execution": {"gradient": {"refined": 2}, "chunk": 8}},
    "kl frozen": {"bias": "kl", "execution": {"gradient": "frozen", "chunk": 8}},
    "ascent": {"preset": "delta_net", "control": "ascent"},
    "mlp frozen with momentum": {"preset": "titans_lmm", "execution": {"gradient": "frozen", "chunk": 8}},
    "muon": {"preset": "atlas", "execution": {"chunk": 8}},
}

SIMPLER = ("lp refined", "ascent")  # than others that take the same way


def job(seed: int = 0, design: object = "delta_net", **settings: object) -> Job:
    task = {"name": "mqar", "vocab": 16, "length": 16, "pairs": 2}
    defaults = {"steps": 6, "batch": 4, "eval_examples": 10, "eval_batch": 4, "eval_every": 4}
    config = TrainConfig.from_plain(defaults | settings)
    return Job(DesignPoint.parse(design), ModelConfig(layers=1, d_model=16, heads=2), task, config, seed)


def measured(outcome: Outcome) -> dict[tuple[str, str], float]:
    """The finals that repeat: everything but time and memory."""
    return {(final.name, final.split): final.value for final in outcome.finals if final.name not in TIMED}


class Curves:
    """A report that keeps every point of every job."""

    def __init__(self, jobs: int) -> None:
        self.points: list[list[Point]] = [[] for _ in range(jobs)]

    def __call__(self, points: Sequence[Sequence[Point]]) -> bool:
        for kept, new in zip(self.points, points, strict=True):
            kept.extend(new)
        return False


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SIMPLER else name for name in DESIGNS]
)
def test_a_pack_finds_what_solo_trainings_find(name: str) -> None:
    """Seeds, rates, decays, schedules, moments and clipping differ inside one pack."""
    jobs = [
        job(0, DESIGNS[name]),
        job(1, DESIGNS[name], lr=3e-3, weight_decay=0.0, clip=0.0),
        job(1, DESIGNS[name], schedule="constant", warmup=0.5, betas=(0.8, 0.99), clip=0.1),
    ]
    curves = Curves(3)
    for i, (one, packed) in enumerate(zip(jobs, train_pack(jobs, device="cpu", report=curves), strict=True)):
        alone: list[Point] = []
        expected = train(one, device="cpu", report=lambda points, alone=alone: bool(alone.extend(points)))
        assert (packed.state, packed.last_step) == (expected.state, expected.last_step) == ("complete", 6)
        assert measured(packed) == pytest.approx(measured(expected), rel=2e-4)
        assert [(p.step, p.name, p.split) for p in curves.points[i]] == [(p.step, p.name, p.split) for p in alone]
        assert [p.value for p in curves.points[i]] == pytest.approx([p.value for p in alone], rel=2e-4)
    assert {final.name for final in packed.finals} >= TIMED


def test_mates_do_not_enter() -> None:
    """Bit for bit, as long as there are as many of them: not their seeds, rates, or ends."""
    first = measured(train_pack([job(0), job(1), job(2)], device="cpu")[0])
    assert first == measured(train_pack([job(0), job(7, lr=1e-4), job(8)], device="cpu")[0])
    ruined = train_pack([job(0), job(1, lr=1e9, warmup=0.0, clip=0.0), job(2)], device="cpu")
    assert [outcome.state for outcome in ruined] == ["complete", "diverged", "complete"]
    assert first == measured(ruined[0])


def test_a_divergence_is_recorded_where_the_solo_training_has_it() -> None:
    settings = {"lr": 1e6, "warmup": 0.0, "steps": 30, "eval_every": 0}
    bad, good = job(3, **settings), job(4, **settings | {"lr": 1e-2})
    curves = Curves(2)
    packed, mate = train_pack([bad, good], device="cpu", report=curves)
    alone = train(bad, device="cpu")
    assert (packed.state, packed.last_step) == (alone.state, alone.last_step)
    assert 0 < packed.last_step < 30 and f"at step {packed.last_step + 1}" in packed.note
    assert measured(packed) == pytest.approx(measured(alone), rel=1e-3)
    assert mate.state == "complete" and measured(mate).keys() > measured(packed).keys()
    assert all(math.isfinite(point.value) for points in curves.points for point in points)


def test_weights_ruined_by_the_last_step_are_found_by_the_evaluation() -> None:
    ruined, good = train_pack([job(steps=1, lr=3e38, warmup=0.0), job(1, steps=1)], device="cpu")
    assert (ruined.state, ruined.last_step, good.state) == ("diverged", 1, "complete")
    assert ruined.note.startswith("validation loss") and ruined.note.endswith("after step 1")


def test_a_pack_of_diverged_models_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.training.findings.HUGE", 1e-3)  # every loss is far beyond
    curves = Curves(2)
    outcomes = train_pack([job(0, steps=40), job(1, steps=40)], device="cpu", report=curves)
    assert [(one.state, one.last_step) for one in outcomes] == [("diverged", 0)] * 2
    assert curves.points == [[], []]


def test_matched_steps_are_each_model_s_own(tmp_path: Path) -> None:
    matched = TrainConfig.from_plain(job().train.to_plain() | {"inner_step": "match_base"})
    base = DesignPoint.parse("delta_net")
    jobs = [dataclasses.replace(job(seed, "linear_attention"), train=matched, base_design=base) for seed in (0, 1)]
    paths = [tmp_path / f"{seed}.safetensors" for seed in (0, 1)]
    packed = train_pack(jobs, device="cpu", checkpoints=paths)
    scales = []
    for one, outcome, path in zip(jobs, packed, paths, strict=True):
        assert measured(outcome) == pytest.approx(measured(train(one, device="cpu")), rel=2e-4)
        scales.append(measured(outcome)["inner_step_scale", ""])
        kept, model = load_checkpoint(path)
        assert kept.seed == one.seed and model.step_scale == pytest.approx(scales[-1])
    assert scales[0] != scales[1]


def test_checkpoints_hold_each_job_s_own_parameters(tmp_path: Path) -> None:
    jobs = [job(0), job(1), job(2, lr=1e9, warmup=0.0)]
    paths = [tmp_path / f"{index}.safetensors" for index in range(3)]
    train_pack(jobs, device="cpu", checkpoints=paths)
    assert [path.exists() for path in paths] == [True, True, False]  # a diverged model leaves none
    for one, path in zip(jobs[:2], paths[:2], strict=True):
        train(one, device="cpu", checkpoint=tmp_path / "solo.safetensors")
        (_, packed), (_, alone) = load_checkpoint(path), load_checkpoint(tmp_path / "solo.safetensors")
        for (name, left), right in zip(packed.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5, msg=name)


def test_bfloat16_is_packed_too() -> None:
    jobs = [job(seed, precision="bfloat16") for seed in (0, 1)]
    for one, packed in zip(jobs, train_pack(jobs, device="cpu"), strict=True):
        assert measured(packed)["loss", "test"] == pytest.approx(
            measured(train(one, device="cpu"))["loss", "test"], rel=2e-2
        )


def test_cancelling_ends_the_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miras_search.training.pack.BEAT", math.inf)  # no report but that of the look at step 4
    with pytest.raises(Cancelled, match="after 4 of 6 steps"):
        train_pack([job(0), job(1)], device="cpu", report=lambda points: True)


def test_jobs_of_different_shapes_are_refused() -> None:
    assert shape(job(0)) == shape(job(5, lr=1.0, weight_decay=0.3, clip=0.0))
    others = (job(steps=7), job(design="linear_attention"), job(batch=5), job(precision="bfloat16"))
    assert len({shape(job()), *map(shape, others)}) == 5
    with pytest.raises(SpecError, match="different shapes"):
        train_pack([job(0), job(1, steps=7)], device="cpu")
    assert train_pack([], device="cpu") == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", DESIGNS)
def test_a_graphed_pack_finds_what_the_eager_one_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(seed, DESIGNS[name], steps=12, lr=lr) for seed, lr in ((0, 1e-2), (1, 3e-3))]
    graphed = train_pack(jobs, device="cuda")
    monkeypatch.setattr("miras_search.training.stack_step.WARM_UP", 100)
    for one, packed, eager in zip(jobs, graphed, train_pack(jobs, device="cuda"), strict=True):
        assert measured(packed) == pytest.approx(measured(eager), rel=1e-3)
        alone = measured(train(one, device="cuda"))
        assert measured(packed)["loss", "train"] == pytest.approx(alone["loss", "train"], rel=1e-2)
