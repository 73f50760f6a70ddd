"""First steps on compiled kernels: compared with torch, recorded, and a training that is as it would have been."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from memories import case
from torch import Tensor
from triton_device import DEVICE, RUNS

from miras_search.engine.messages import TRAINING, Failed, Task
from miras_search.engine.task import run_task
from miras_search.kernels import chunkwise, dispatch
from miras_search.kernels.dispatch import Implementation, Setting
from miras_search.kernels.state import State
from miras_search.models.config import ModelConfig
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.training import first_steps
from miras_search.training.config import TrainConfig
from miras_search.training.first_steps import LOSS, TOLERANCE, FirstSteps, Found, KernelMismatch, differences
from miras_search.training.job import Job, Outcome
from miras_search.training.pack import train_pack
from miras_search.training.run import train

TRITON = dispatch.IMPLEMENTATIONS[0]


def job(seed: int = 0, design: object = "delta_net", precision: str = "float32") -> Job:
    task = {"name": "mqar", "vocab": 8, "length": 8, "pairs": 2}
    train = TrainConfig.from_plain(
        {"steps": 1, "batch": 1, "eval_examples": 1, "eval_every": 0, "precision": precision}
    )
    return Job(DesignPoint.parse(design), ModelConfig(layers=1, d_model=8, heads=1, conv=0), task, train, seed)


def take(monkeypatch: pytest.MonkeyPatch, kernel: Implementation) -> None:
    monkeypatch.setattr(dispatch, "IMPLEMENTATIONS", (kernel, *dispatch.IMPLEMENTATIONS))


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's chunked kernel wherever it could run on a GPU, here in its interpreter."""

    def refuses(point: DesignPoint, setting: Setting) -> str | None:
        return TRITON.refuses(point, dataclasses.replace(setting, device="cuda"))

    take(monkeypatch, dataclasses.replace(TRITON, name="triton here", refuses=refuses))


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with the right outputs and, to half of it, the wrong gradient of the keys."""

    def run(point: DesignPoint, inputs: Inputs, *rest: object) -> tuple[Tensor, State]:
        halved = inputs._replace(k=inputs.k.detach() + (inputs.k - inputs.k.detach()) / 2)
        found: tuple[Tensor, State] = chunkwise.run(point, halved, *rest)
        return found

    take(monkeypatch, Implementation("wrong", run, lambda point, setting: None, compiled=True))


def mismatches(outcomes: Sequence[Outcome]) -> list[float]:
    return [final.value for one in outcomes for final in one.finals if final.name == "kernel_mismatch"]


def numbers(outcome: Outcome) -> dict[tuple[str, str], float]:
    left_out = {"tokens_per_second", "peak_memory_bytes", "wall_seconds", "kernel_mismatch"}
    return {(f.name, f.split): f.value for f in outcome.finals if f.name not in left_out}


@RUNS
@pytest.mark.usefixtures("on_triton")
def test_a_training_on_triton_is_compared_and_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for steps in (first_steps.STEPS, 0):
        monkeypatch.setattr(first_steps, "STEPS", steps)
        outcomes.append(train(job(design="linear_attention"), device=DEVICE))
    (share,) = mismatches(outcomes)  # of the first alone; 0 on a processor that rounds such small sums alike
    assert 0 <= share < TOLERANCE["float32"] / 10
    assert numbers(outcomes[0]) == numbers(outcomes[1])


@RUNS
@pytest.mark.usefixtures("on_triton")
def test_a_pack_and_other_precisions_are_compared() -> None:
    jobs = [job(seed, design="linear_attention", precision="bfloat16") for seed in (0, 1)]
    shares = mismatches(train_pack(jobs, device=DEVICE))
    assert len(shares) == 2
    assert all(0 <= share < TOLERANCE["bfloat16"] / 2 for share in shares)


@pytest.mark.usefixtures("wrong")
def test_a_wrong_kernel_ends_a_training_with_the_figures() -> None:
    with pytest.raises(KernelMismatch, match=r"'wrong' was taken for .*in step 1 the gradient of \S+ differs"):
        train(job(), device="cpu")
    with pytest.raises(
        KernelMismatch, match=r"where 0\.002 is allowed and rounding explains \S+: set resources\.kernels: torch$"
    ):
        train_pack([job(0), job(1)], device="cpu")


@pytest.mark.usefixtures("wrong")
def test_torch_alone_passes_a_wrong_kernel_by() -> None:
    outcomes = [train(job(), device="cpu", kernels="torch"), *train_pack([job(0)], device="cpu", kernels="torch")]
    assert [one.state for one in outcomes] == ["complete", "complete"]
    assert mismatches(outcomes) == []


@pytest.mark.usefixtures("wrong")
def test_a_worker_reports_a_failed_job_and_its_reason() -> None:
    task = Task(TRAINING, (job().to_plain(),), "cpu", 1, checkpoint=False)
    (ended,) = run_task(1, task, lambda messages: False)
    assert isinstance(ended, Failed)
    assert (ended.state, ended.error_type) == ("failed", "KernelMismatch")
    assert "differs from torch's by" in ended.error_text
    (ended,) = run_task(1, dataclasses.replace(task, kernels="torch"), lambda messages: False)
    assert not isinstance(ended, Failed)


def test_torch_alone_has_nothing_to_compare() -> None:
    assert mismatches([train(job(), device="cpu")]) == []


def test_differences_are_shares_of_what_torch_found() -> None:
    found = {LOSS: torch.tensor(2.2), "a": torch.tensor([3.0, 4.5]), "b": torch.tensor([0.0])}
    expected = {LOSS: torch.tensor(2.0), "a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0])}
    assert differences(found, expected) == pytest.approx({LOSS: 0.1, "a": 0.1, "b": 0.0})
    # a gradient that cancels is compared as a thousandth of the whole
    small = differences({**found, "b": torch.tensor([1e-5])}, {**expected, "b": torch.tensor([1e-9])})
    assert small["b"] == pytest.approx(1e-5 / (1e-3 * math.sqrt(25 / 3)), rel=1e-3)
    assert differences({**found, "b": torch.tensor([math.nan])}, expected)["b"] == math.inf
    assert differences(found, {**expected, "a": torch.tensor([math.inf, 0.0])}) == {}


def test_a_divergence_in_torch_is_no_mismatch() -> None:
    first = FirstSteps("a design", "float32")
    nothing = {LOSS: torch.tensor(math.nan), "a": torch.zeros(1)}
    first.compare([nothing], lambda: [nothing])
    assert first.worst is None


@pytest.mark.parametrize(("amplified", "raises"), [(1e4, False), (1.0, True)])
def test_what_rounding_explains_is_no_mismatch(amplified: float, raises: bool) -> None:
    """By a model of one parameter whose gradient follows a memory's read, amplified."""
    point = DesignPoint.parse("linear_attention")
    given = case(point, 4, seed=0)

    def again() -> list[Found]:
        y, _ = dispatch.run(point, given.inputs, given.start, given.static)
        return [{LOSS: torch.tensor(1.0), "a": 1 + amplified * (y - exact)}]

    exact, _ = dispatch.run(point, given.inputs, given.start, given.static)
    first = FirstSteps("a design", "float32")
    off = [{LOSS: torch.tensor(1.0), "a": torch.full_like(exact, 1.01)}]
    if raises:
        with pytest.raises(KernelMismatch, match=r"the gradient of a differs from torch's by 0\.01 of"):
            first.compare(off, again)
    else:
        first.compare(off, again)
    assert first.worst == pytest.approx(0.01)


@pytest.mark.parametrize(("telling", "asked"), [(1, 1), (3, 3), (None, first_steps.WAVES)])
def test_a_second_way_of_rounding_is_asked_for_where_the_first_says_too_little(telling: int | None, asked: int) -> None:
    """By a gradient that only one of the ways changes, as a few tokens may make the whole of it."""
    seen: list[int] = []

    def again() -> list[Found]:
        if wave := dispatch._shaking.get():
            seen.append(wave)
        changed = 1.01 if wave and wave == telling else 1.0
        return [{LOSS: torch.tensor(1.0), "a": torch.full((3,), changed)}]

    first = FirstSteps("a design", "float32")
    off = [{LOSS: torch.tensor(1.0), "a": torch.full((3,), 1.1)}]
    with contextlib.nullcontext() if telling else pytest.raises(KernelMismatch, match="rounding explains 0:"):
        first.compare(off, again)
    assert seen == list(range(1, asked + 1))


def test_each_way_of_rounding_changes_a_read_differently() -> None:
    point = DesignPoint.parse("linear_attention")
    given = case(point, 4, seed=0)
    exact, _ = dispatch.run(point, given.inputs, given.start, given.static)
    changes = []
    for wave in (1, 2, 1):
        with dispatch.shaken(wave):
            changes.append(dispatch.run(point, given.inputs, given.start, given.static)[0] - exact)
    assert 0 < float(changes[0].abs().max()) < 1e-4
    assert torch.equal(changes[0], changes[2])
    assert not torch.equal(changes[0], changes[1])
