"""The real entry: a tiny training through a worker process, its numbers, its checkpoint, and the same again."""

from __future__ import annotations

import pytest

from miras_search.engine.capacity import visible_gpus
from miras_search.engine.events import Progress
from miras_search.engine.messages import TRAINING
from miras_search.metrics import METRICS
from miras_search.store import queries
from miras_search.training.checkpoint import load_checkpoint

TINY = ("vary={}", "controls=[]", "seeds=1", "train.steps=4", "train.eval_every=2")


def test_a_training_arrives_whole_and_repeats(local) -> None:
    summary = local(overrides=TINY, entry=TRAINING)
    assert (summary.complete, summary.attempts) == (1, 1)
    (row,) = queries.results(local.db, local.study_id)
    assert {name for name, _ in row.values} == set(METRICS) - {"inner_step_scale", "kernel_mismatch"}
    assert {split for name, split in row.values if name == "loss"} == {"train", "validation", "test"}
    steps = [point.step for point in queries.curves(local.db, local.study_id, "accuracy", "validation")]
    assert steps == [2, 4]
    assert all(event.steps == 4 for event in local.told(Progress))

    (artifact,) = queries.artifacts(local.db, local.study_id)
    job, model = load_checkpoint(local.folder / artifact.uri)
    assert job.seed == 0 and job.train.steps == 4
    assert sum(parameter.numel() for parameter in model.parameters()) == row.values["params", ""]

    local(overrides=TINY, entry=TRAINING, trial=0)
    (again,) = queries.results(local.db, local.study_id)
    for key in (("loss", "train"), ("loss", "test"), ("accuracy", "validation")):
        assert again.values[key] == row.values[key]


@pytest.mark.gpu
def test_fractions_of_a_gpu_train_beside_each_other(local) -> None:
    if not visible_gpus():
        pytest.skip("no GPU here")
    overrides = ("seeds=2", "train.steps=4", "resources.gpus=0.25")
    assert local(overrides=overrides, entry=TRAINING, workers=4).complete == 6
    assert {row.device for number in range(3) for row in queries.attempts(local.db, local.study_id, number)} == {"cuda"}
