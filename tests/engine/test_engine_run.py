"""What a run does with its jobs, on every executor: each once, lost ones again, failures and divergences on record."""

from __future__ import annotations

import pytest

from miras_search.engine.events import AttemptLost, JobFinished, Progress, StudyFinished, StudyStarted
from miras_search.engine.hardware import named
from miras_search.errors import EnvironmentProblem, MirasError
from miras_search.store import queries
from miras_search.store.types import StudyChanged

# on Ray by `make test-all`: the driver does the same there, and each study on it starts processes for seconds
RAY_TOO = pytest.mark.parametrize("run", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)


def test_every_job_is_trained_exactly_once(run) -> None:
    summary = run()
    assert (summary.complete, summary.attempts, summary.skipped, summary.waiting) == (6, 6, 0, 0)
    assert sorted(run.calls) == sorted((bias, seed) for bias in ("l2", "dot", "control") for seed in "01")
    assert {state for state, _ in run.results().values()} == {"complete"}
    assert [row.status for row in queries.runs(run.db, run.study_id)] == ["done"]
    for number in range(3):
        for seed in (0, 1):
            (attempt,) = run.attempts(number, seed)
            assert (attempt.state, attempt.last_step, attempt.peak_memory_bytes) == ("complete", 20, 100)
            assert attempt.pid > 0 and attempt.host and attempt.device == named("cpu")


def test_curves_finals_and_events_arrive(run) -> None:
    run()
    loss = queries.curves(run.db, run.study_id, "loss", "train")
    assert [(row.step, row.value) for row in loss] == [(10, 2.0), (20, 1.0)] * 6
    for state, values in run.results().values():
        assert (state, values["params", ""], values["loss", "train"]) == ("complete", 12.0, 1.0)
    assert isinstance(run.events[0], StudyStarted) and isinstance(run.events[-1], StudyFinished)
    assert (run.events[0].executor, run.events[0].slots, run.events[0].todo) == (run.executor, 2, 6)
    assert len(run.told(JobFinished)) == 6
    first = run.told(Progress)[0]
    assert (first.step, first.steps) == (10, 20)
    assert first.metrics == {"train/loss": 2.0, "validation/accuracy": 0.25}


@RAY_TOO
def test_a_second_run_trains_nothing(run) -> None:
    before = run().complete
    run.events.clear()
    summary = run("raise=0")  # would fail if anything were trained
    assert (summary.complete, summary.skipped, summary.attempts) == (before, 6, 0)
    assert run.events[0].executor == "none"


def test_a_killed_worker_costs_an_attempt_and_no_result(run) -> None:
    summary = run("kill_once=0")
    assert (summary.complete, summary.failed, summary.attempts) == (6, 0, 9)
    assert [row.state for row in run.attempts(0, 0)] == ["lost", "complete"]
    assert [row.attempt for row in run.attempts(0, 0)] == [1, 2]
    assert len(run.told(AttemptLost)) == 3
    assert run.attempts(0, 0)[0].error_text


@RAY_TOO
def test_a_poisoned_job_fails_and_the_study_goes_on(run) -> None:
    summary = run("kill=0.dot")
    assert (summary.complete, summary.failed) == (5, 1)
    assert [row.state for row in run.attempts(1, 0)] == ["lost"] * 3
    assert run.results()["dot", 0] == ("failed", {})
    assert run.results()["dot", 1][0] == "complete"


@RAY_TOO
def test_a_job_that_raises_fails_at_once_with_its_traceback(run) -> None:
    summary = run("raise=1")
    assert (summary.complete, summary.failed, summary.attempts) == (3, 3, 6)
    (attempt,) = run.attempts(0, 1)
    assert (attempt.state, attempt.error_type) == ("failed", "Unpicklable")
    assert "engine_entries.py" in attempt.error_text
    failed = [event for event in run.told(JobFinished) if event.state == "failed"]
    assert "cannot be rebuilt" in failed[0].error


@RAY_TOO
def test_a_divergence_is_a_result(run) -> None:
    summary = run("diverge=1.dot")
    assert (summary.complete, summary.diverged, summary.failed) == (5, 1, 0)
    state, values = run.results()["dot", 1]
    assert (state, values) == ("diverged", {("loss", "train"): 9.0})
    assert run.attempts(1, 1)[0].error_text == "loss nan at step 8"
    assert run("").attempts == 0


def test_out_of_memory_is_tried_once_more_alone(run) -> None:
    summary = run("oom_once=0.dot+oom=1.dot")
    assert (summary.complete, summary.failed) == (5, 1)
    assert [row.state for row in run.attempts(1, 0)] == ["oom", "complete"]
    assert [row.state for row in run.attempts(1, 1)] == ["oom", "oom"]
    second = run.attempts(1, 0)[1]
    others = [row for number in range(3) for seed in (0, 1) for row in run.attempts(number, seed) if row != second]
    assert all(row.ended_at <= second.started_at or row.started_at >= second.ended_at for row in others)


@RAY_TOO
def test_a_silent_worker_is_killed_and_its_job_tried_again(run) -> None:
    summary = run("hang_once=0.dot", overrides=("resources.silence=3 s",))
    assert (summary.complete, summary.failed) == (6, 0)
    assert [row.state for row in run.attempts(1, 0)] == ["timeout", "complete"]
    assert "said nothing for 3 s" in run.attempts(1, 0)[0].error_text
    pid = run.attempts(1, 0)[0].pid
    assert pid != run.attempts(1, 0)[1].pid


def test_seeds_are_outermost(local) -> None:
    local(workers=1)
    assert local.calls == [(bias, seed) for seed in "01" for bias in ("l2", "dot", "control")]


def test_max_jobs_stops_in_order_and_the_rest_follows(local) -> None:
    summary = local(max_jobs=2)
    assert (summary.complete, summary.waiting, summary.attempts) == (2, 4, 2)
    assert local(max_jobs=0).attempts == 0
    summary = local()
    assert (summary.complete, summary.skipped, summary.attempts) == (6, 2, 4)
    assert len(local.calls) == 6


def test_more_seeds_train_only_the_new_ones(local) -> None:
    local()
    summary = local(overrides=("seeds=3",))
    assert (summary.complete, summary.skipped, summary.attempts) == (9, 6, 3)
    assert {seed for _, seed in local.calls[6:]} == {"2"}
    fewer = local(overrides=("seeds=[1]",))
    assert (fewer.complete, fewer.skipped, fewer.attempts) == (3, 3, 0)


def test_retry_failed_trains_the_failed_jobs_only(local) -> None:
    local("raise=1.dot")
    assert local().attempts == 0
    summary = local(retry_failed=True)
    assert (summary.complete, summary.failed, summary.attempts) == (6, 0, 1)
    assert [row.state for row in local.attempts(1, 1)] == ["failed", "complete"]


def test_one_trial_is_trained_anew(local) -> None:
    local()
    before = local.results()
    summary = local(trial=1)
    assert (summary.complete, summary.attempts) == (6, 2)
    assert [(row.attempt, row.state) for row in local.attempts(1, 0)] == [(1, "complete"), (2, "complete")]
    assert len(local.attempts(0, 0)) == 1
    assert local.results() == before


def test_workers_are_used_again_but_not_after_a_failure(local) -> None:
    local("raise=0.dot", workers=1)
    pids = [line.split()[2] for line in (local.folder / "calls").read_text().splitlines()]
    assert pids[0] == pids[1] and pids[1] != pids[2]
    assert len(set(pids[2:])) == 1


@pytest.mark.slow
def test_ray_workers_are_used_again_unless_they_may_change_their_gpu(on_ray) -> None:
    run = on_ray
    assert run(max_jobs=4).complete == 4
    assert len({row.pid for number in range(3) for seed in (0, 1) for row in run.attempts(number, seed)}) < 4
    assert run(overrides=("resources.gpus=0.5", "resources.pack=off", "seeds=3")).complete == 9
    on_gpu = [row for number in range(3) for seed in (1, 2) for row in run.attempts(number, seed)][1:]
    assert {row.device for row in on_gpu} == {"cuda"}
    assert len({row.pid for row in on_gpu}) == len(on_gpu) == 5


def test_no_room_on_ray_is_one_line(on_ray) -> None:
    with pytest.raises(EnvironmentProblem, match="a job wants 64 CPUs and 0 GPUs, Ray has 2 CPUs and 2 GPUs"):
        on_ray(overrides=("resources.cpus=64",))


def test_a_dead_worker_s_last_words_are_kept(local) -> None:
    local("kill=0.dot")
    attempt = local.attempts(1, 0)[0]
    assert attempt.error_type == "WorkerDied"
    assert "SIGKILL" in attempt.error_text and "last words" in attempt.error_text


def test_a_changed_study_is_refused(local) -> None:
    local(max_jobs=1)
    with pytest.raises(StudyChanged, match="--as NAME"):
        local(overrides=("train.steps=21",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trial": 3}, "trial: 3: tiny has trials 0 to 2"),
        ({"executor": "slurm"}, "executor: unknown executor 'slurm': take auto, local, ray"),
        ({"max_jobs": -1}, "max_jobs: -1 is no whole number from 0 to 2147483647"),
        ({"workers": 10**11}, "workers: 100000000000 is no whole number from 1 to 1024"),
        ({"workers": 0}, "workers: 0 is no whole number from 1 to 1024"),
        ({"address": "head:6379"}, "address: 'head:6379' names a Ray cluster"),
    ],
)
def test_impossible_options_are_one_line(local, options: dict[str, object], message: str) -> None:
    with pytest.raises(MirasError) as caught:
        local(**options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
