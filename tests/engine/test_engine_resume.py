"""Real trainings that are broken off amid their steps: the next run, or the next attempt, finds the same numbers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from miras_search.engine.events import AttemptLost, Interrupted, Progress
from miras_search.engine.local import LocalExecutor
from miras_search.engine.messages import TRAINING, Task
from miras_search.engine.ray_ import RayExecutor
from miras_search.store import queries
from miras_search.store.database import Database

ONE = ("vary={}", "controls=[]", "seeds=1", "train.steps=400", "train.eval_every=150", "model.d_model=8")
TIMED = {"tokens_per_second", "peak_memory_bytes", "wall_seconds"}


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each task had a snapshot, in the order of their start."""
    found: list[bool] = []

    def spied(submit: Callable[..., None]) -> Callable[..., None]:
        def spy(self: object, ticket: int, task: Task, *, whole_device: bool = False) -> None:
            found.append(task.resume is not None)
            submit(self, ticket, task, whole_device=whole_device)

        return spy

    for executor in (LocalExecutor, RayExecutor):
        monkeypatch.setattr(executor, "submit", spied(executor.submit))
    return found


def measured(run) -> list[object]:
    """Finals that are no speed, and the curves of the attempt that counts."""
    (row,) = queries.results(run.db, run.study_id)
    finals = {key: value for key, value in row.values.items() if key[0] not in TIMED}
    curves = [(point.step, point.value) for point in queries.curves(run.db, run.study_id, "loss", "train")]
    return [row.state, finals, curves]


def undisturbed(run) -> list[object]:
    with Database.open(str(run.folder / "other.db"), create=True) as other:
        mine, run.db = run.db, other
        run(overrides=ONE, entry=TRAINING)
        found = measured(run)
    run.db = mine
    return found


@pytest.mark.parametrize("run", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_run_that_is_stopped_saves_its_trainings_and_goes_on_to_the_same_bits(run, resumed: list[bool]) -> None:
    def stop(event: object) -> None:
        if isinstance(event, Progress) and event.step < 400:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(overrides=ONE, entry=TRAINING, on_event=stop, grace=60.0)
    (attempt,) = run.attempts(0, 0)
    assert attempt.state == "lost" and "the run was stopped: cancelled after" in attempt.error_text
    (snapshot,) = (run.folder / "checkpoints/tiny").iterdir()
    assert snapshot.name == "000-mqar-s0.snapshot"
    assert run(overrides=ONE, entry=TRAINING).complete == 1
    assert resumed == [False, True]
    assert not snapshot.exists()
    assert measured(run) == undisturbed(run)


@pytest.mark.slow
def test_a_killed_worker_costs_what_came_after_its_last_snapshot(local, resumed: list[bool]) -> None:
    killed: list[int] = []

    def kill(event: object) -> None:
        saved = local.folder / "checkpoints/tiny/000-mqar-s0.snapshot"
        if isinstance(event, Progress) and saved.exists() and not killed:
            killed.append(local.attempts(0, 0)[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    often = (*ONE, "resources.save_every=0.05 s")
    assert local(overrides=often, entry=TRAINING, on_event=kill).complete == 1
    assert [event.state for event in local.told(AttemptLost)] == ["lost"]
    assert resumed == [False, True]
    assert measured(local) == undisturbed(local)


@pytest.mark.slow
def test_without_saving_a_stopped_training_starts_over(local, resumed: list[bool]) -> None:
    def stop(event: object) -> None:
        if isinstance(event, Progress) and event.step < 400:
            os.kill(os.getpid(), signal.SIGTERM)

    never = (*ONE, "resources.save_every=off")
    with pytest.raises(Interrupted):
        local(overrides=never, entry=TRAINING, on_event=stop, grace=60.0)
    assert local(overrides=never, entry=TRAINING).complete == 1
    assert resumed == [False, False]
