"""One evaluation: a trained model on another task, length or noise, from its checkpoint to an outcome.

The test sequences are those that a training on that task with the same seed would be tested on: all cells of a seed see
the same ones, so that differences are paired, and on the training's own task the score is the training's own.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from miras_search.errors import MirasError
from miras_search.kernels import dispatch
from miras_search.tasks import EvaluationSplit, task_from_spec
from miras_search.training import findings
from miras_search.training.checkpoint import metadata, read_checkpoint
from miras_search.training.config import Seeds, TrainConfig
from miras_search.training.device import drawn_from, keep_freed_memory, peak_bytes, resolve, settled, start_peak
from miras_search.training.evaluate import Labelled, evaluate
from miras_search.training.job import Cancelled, Job, Kernels, Outcome

SPLIT: EvaluationSplit = "test"


def evaluate_trained(
    job: Job,
    parameters: bytes,
    *,
    device: str = "auto",
    alive: Callable[[], bool] = lambda: False,
    threads: int | None = None,
    kernels: Kernels = "auto",
) -> Outcome:
    """The outcome of testing a trained model on `job.task`: `job` is its training but for the task and how it is
    looked at, `parameters` are the bytes of its checkpoint.

    A score that is not finite is a divergence, as in training. `alive` is called between batches and returns whether to
    stop. Raises `Cancelled` where it says so, `MirasError` for bytes that are no checkpoint of this training or a model
    with other tokens than the task, and what a training raises for its device.
    """
    where = resolve(device)
    began = time.perf_counter()

    def between() -> None:
        if alive():
            raise Cancelled("cancelled amid an evaluation")

    with settled(where, threads), drawn_from(Seeds.of(job.seed).init, where), dispatch.allowed(kernels):
        keep_freed_memory()
        start_peak(where)
        trained, model = read_checkpoint(parameters, "the checkpoint")
        _check(job, trained)
        model.to(where)
        task = task_from_spec(job.task)
        data = Labelled.of(task.evaluation(SPLIT, Seeds.of(job.seed).eval, job.train.eval_examples), where)
        score = evaluate(model, data, job.train.eval_batch, job.train.precision, between=between)
        return findings.outcome(
            job.train,
            model,
            task.sequence_length,
            state="complete" if score.finite else "diverged",
            steps=int(metadata(parameters)["step"]),
            note="" if score.finite else f"{SPLIT} loss {score.loss}",
            losses=(),
            scores={SPLIT: score},
            step_scale=model.step_scale,
            mismatch=None,
            speed=None,
            wall=time.perf_counter() - began,
            peak=peak_bytes(where),
        )


def _check(job: Job, trained: Job) -> None:
    """Raise `MirasError` where the checkpoint is another training's, or the task's tokens are not the model's."""
    same = (
        trained.seed == job.seed
        and trained.design.hash == job.design.hash
        and trained.model.canonical() == job.model.canonical()
        and _how_trained(trained.train) == _how_trained(job.train)
    )
    if not same:
        raise MirasError("the checkpoint is of another training than the one to be evaluated: train that one again")
    theirs, ours = (task_from_spec(one.task).vocab_size for one in (job, trained))
    if theirs != ours:
        raise MirasError(f"task: it has {theirs} tokens and the model {ours}: evaluate on a task of {ours} tokens")


def _how_trained(config: TrainConfig) -> TrainConfig:
    """The settings without those that say how a training is looked at."""
    usual = TrainConfig()
    return dataclasses.replace(config, eval_examples=usual.eval_examples, eval_batch=usual.eval_batch)
