"""Packs in the engine: which jobs go together, rows for each of them, and what becomes of a pack that ends badly."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from miras_search.engine.events import AttemptLost
from miras_search.engine.hardware import named
from miras_search.engine.messages import TRAINING
from miras_search.engine.packs import AUTO_ON_GPU, Packs, pack_size
from miras_search.errors import MirasError
from miras_search.store import queries
from miras_search.store.database import Database
from miras_search.store.types import JobRow
from miras_search.study.schema import Resources

CPU = named("cpu")
TINY = ("vary={bias: [dot, l2]}", "controls=[]", "seeds=2", "train.steps=4", "train.eval_every=2")


def rows(*keys: tuple[int, int]) -> list[JobRow]:
    """Waiting jobs of (trial, seed), whose id is their place."""
    return [JobRow(i, trial, trial, "", "mqar", seed, "waiting", 0) for i, (trial, seed) in enumerate(keys)]


def taken(packs: Packs) -> list[list[int]]:
    """The ids of the jobs that go together, until none is left."""
    found = []
    while packs:
        found.append([job.id for job in packs.take()])
    return found


def tasks(run) -> list[list[str]]:
    """What went to a worker together, in the order of the workers."""
    return [line.split() for line in (run.folder / "tasks").read_text().splitlines()]


def test_the_key_of_a_study_is_a_number_off_or_auto(tiny) -> None:
    assert pack_size(Resources()) == pack_size(tiny("resources={pack: off}").resources) == 1
    assert pack_size(tiny("resources={gpus: 1}").resources) == AUTO_ON_GPU
    assert pack_size(tiny("resources={gpus: 1, pack: off}").resources) == 1
    packed, plain = tiny("resources={pack: 4}"), tiny()
    assert pack_size(packed.resources) == 4
    assert packed.space_hash == plain.space_hash  # it says how jobs are run, not which
    assert plain.config["resources"] == {"cpus": 1, "gpus": 0.0}
    for wrong in ("0", "2000", "many", "1.5", "true"):
        with pytest.raises(MirasError, match="none of auto, off, and a number of jobs between 1 and 1024"):
            tiny(f"resources={{pack: {wrong}}}")


def test_mates_have_one_shape_and_the_others_keep_their_order(tiny) -> None:
    study = tiny("resources={pack: 3}", "vary={train.lr: [1e-2, 2e-2], bias: [dot, l2]}")  # trials 0 and 1 differ in lr
    shapes = [cell.name for cell in study.cells]
    queue = rows((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1))
    packs = Packs(study, 3)
    packs.put(queue)
    found = taken(packs)
    assert sorted(job for pack in found for job in pack) == list(range(6))
    trial_of = {job.id: study.cells[job.trial_number] for job in queue}
    for pack in found:
        assert len({trial_of[job].design.hash for job in pack}) == 1, shapes
    assert max(map(len, found)) == 3
    single = Packs(study, 1)
    single.put(queue)
    assert taken(single) == [[0], [1], [2], [3], [4], [5]]


@pytest.mark.parametrize(("state", "after"), [("oom", [[3, 2], [1, 0], [4]]), ("failed", [[3], [2], [1], [0], [4]])])
def test_a_pack_that_ended_badly_is_halved_and_one_that_raised_is_taken_apart(
    tiny, state: Literal["oom", "failed"], after: list[list[int]]
) -> None:
    packs = Packs(tiny(), 4)
    packs.put(rows(*((0, seed) for seed in range(5))))
    jobs = packs.take()
    for job in jobs:
        packs.split(job, len(jobs), state)
        packs.put_back(job)
    assert taken(packs) == after


def test_packed_jobs_have_rows_of_their_own(run) -> None:
    summary = run(overrides=("resources={pack: 2}",))
    assert (summary.complete, summary.attempts, summary.waiting) == (6, 6, 0)
    assert sorted(tasks(run)) == [[f"{bias}-0", f"{bias}-1"] for bias in ("control", "dot", "l2")]
    for number in range(3):
        for seed in (0, 1):
            (attempt,) = run.attempts(number, seed)
            assert (attempt.state, attempt.device, attempt.last_step) == ("complete", f"{CPU}, pack of 2", 20)
        assert run.attempts(number, 0)[0].pid == run.attempts(number, 1)[0].pid
    loss = queries.curves(run.db, run.study_id, "loss", "train")
    assert [(row.step, row.value) for row in loss] == [(10, 2.0), (20, 1.0)] * 6
    names = {artifact.uri for artifact in queries.artifacts(run.db, run.study_id)}
    assert len(names) == 6
    for artifact in queries.artifacts(run.db, run.study_id):
        seed = artifact.uri.split("-s")[1][0]
        assert (run.folder / artifact.uri).read_text().endswith(seed)
    assert run(overrides=("resources={pack: 2}",)).attempts == 0


def test_a_killed_pack_is_tried_again_in_halves(run) -> None:
    summary = run("kill_once=1.dot", overrides=("resources={pack: 2}",))
    assert (summary.complete, summary.failed, summary.attempts) == (6, 0, 8)
    assert (
        [row.state for row in run.attempts(1, 0)] == [row.state for row in run.attempts(1, 1)] == ["lost", "complete"]
    )
    assert [row.device for row in run.attempts(1, 1)] == [f"{CPU}, pack of 2", CPU]
    assert len(run.told(AttemptLost)) == 2


def test_a_poisoned_job_does_not_take_its_mates_with_it(local) -> None:
    summary = local("kill=1.dot+raise=0.control", overrides=("resources={pack: 2}",))
    assert (summary.complete, summary.failed) == (4, 2)
    assert [row.state for row in local.attempts(1, 0)] == ["lost", "complete"]
    assert [row.state for row in local.attempts(1, 1)] == ["lost"] * 4
    assert [row.state for row in local.attempts(2, 0)] == ["failed"] * 2
    assert [row.state for row in local.attempts(2, 1)] == ["failed", "complete"]


def test_a_pack_out_of_memory_is_halved(local) -> None:
    summary = local("oom_packed", overrides=("resources={pack: 4}", "seeds=4", "vary={}", "controls=[]"), workers=1)
    assert (summary.complete, summary.failed) == (4, 0)
    assert sorted(len(task) for task in tasks(local)) == [1, 1, 1, 1, 2, 2, 4]
    assert [row.state for row in local.attempts(0, 3)] == ["oom", "oom", "complete"]


def test_a_silent_pack_is_killed_as_one(local) -> None:
    summary = local("hang_once=1.dot", overrides=("resources={pack: 2, silence: 3 s}",))
    assert (summary.complete, summary.failed) == (6, 0)
    assert [row.state for row in local.attempts(1, 0)] == [row.state for row in local.attempts(1, 1)]
    assert [row.state for row in local.attempts(1, 1)] == ["timeout", "complete"]


def test_divergence_of_one_is_its_own_result(local) -> None:
    summary = local("diverge=1.dot", overrides=("resources={pack: 2}",))
    assert (summary.complete, summary.diverged, summary.attempts) == (5, 1, 6)
    assert local.results()["dot", 1][0] == "diverged" and local.results()["dot", 0][0] == "complete"


@pytest.mark.slow
def test_a_study_finds_packed_what_it_finds_unpacked(local, tmp_path: Path) -> None:
    study = (*TINY, "vary={bias: [dot, l2], train.lr: [1e-2, 2e-2]}")  # l2 with either rate is one shape
    (tmp_path / "packed").mkdir()
    with Database.open(str(tmp_path / "packed" / "miras.db"), create=True) as db:
        packed = type(local)(db, tmp_path / "packed", "local")
        for runner, more in ((local, ()), (packed, ("resources={pack: 3}",))):
            assert runner(overrides=(*study, *more), entry=TRAINING, workers=1).complete == 6
        devices = sorted(row.device for number in range(3) for row in queries.attempts(db, packed.study_id, number))
        assert devices == [CPU, *[f"{CPU}, pack of 2"] * 2, *[f"{CPU}, pack of 3"] * 3]
        timed = {"tokens_per_second", "peak_memory_bytes", "wall_seconds"}
        alone, found = local.results(), packed.results()
        assert alone.keys() == found.keys()
        for key, (state, values) in found.items():
            assert state == alone[key][0] == "complete"
            assert values.keys() == alone[key][1].keys()
            for what in values.keys() - {(name, "") for name in timed}:
                assert values[what] == pytest.approx(alone[key][1][what], rel=1e-4)
        for name, split in (("loss", "train"), ("accuracy", "validation")):
            curves = [
                sorted((p.cell, p.seed, p.step, p.value) for p in queries.curves(one.db, one.study_id, name, split))
                for one in (local, packed)
            ]
            assert [row[:3] for row in curves[0]] == [row[:3] for row in curves[1]]
            assert [row[3] for row in curves[0]] == pytest.approx([row[3] for row in curves[1]], rel=1e-4)
