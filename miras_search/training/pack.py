"""Several trainings in one process: jobs of one shape as a stack of models that take their steps together.

Each model has the starting weights, the batches, the rates, the clipping, the curve and the evaluations of its job
trained alone, so a pack finds what solo trainings find, up to the rounding of sums that are taken in another order.
Mates do not enter: a model's row of every operator is its own.

Time is shared: a job's `wall_seconds` is the pack's divided by its jobs, and `tokens_per_second` what all of them train
on together. `peak_memory_bytes` is the process's, as ever.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from miras_search.kernels import dispatch
from miras_search.space.fields import SpecError
from miras_search.tasks import task_from_spec
from miras_search.training import findings
from miras_search.training.checkpoint import save_checkpoint
from miras_search.training.config import Seeds
from miras_search.training.device import keep_freed_memory, peak_bytes, resolve, settled, start_peak
from miras_search.training.evaluate import Labelled, Score
from miras_search.training.first_steps import FirstSteps
from miras_search.training.job import Cancelled, Job, Kernels, Outcome, Point, State
from miras_search.training.run import windows
from miras_search.training.shape import shape, unpackable
from miras_search.training.stack import Stack, stacked
from miras_search.training.stack_optimiser import StackOptimiser
from miras_search.training.stack_step import step_of
from miras_search.training.start import new_model

BEAT = 2.0  # seconds between reports: each is a message and a transaction for every job of the pack

PackReport = Callable[[Sequence[Sequence[Point]]], bool]
"""Takes the curve points of each job since the last call, perhaps none at all. Returns whether to stop."""


def train_pack(
    jobs: Sequence[Job],
    *,
    device: str = "auto",
    report: PackReport | None = None,
    checkpoints: Sequence[Path | None] | None = None,
    threads: int | None = None,
    kernels: Kernels = "auto",
) -> list[Outcome]:
    """Train jobs of one shape together; an outcome a job, in their order.

    A job that diverges stands still from that step on and is recorded so; its mates go on. `checkpoints` name a file a
    job, written where it completes. Raises what `train` raises, and `SpecError` for jobs that do not fit together.
    """
    if not jobs:
        return []
    for job in jobs:
        if reason := unpackable(job):
            raise SpecError.at(("pack",), reason)
    if any(shape(job) != shape(jobs[0]) for job in jobs):
        raise SpecError.at(("pack",), "jobs of different shapes cannot be trained as one: start them apart")
    where = resolve(device)
    with settled(where, threads), dispatch.allowed(kernels):
        return Pack(jobs, where, report, kernels).run(checkpoints or [None] * len(jobs))


class _Member:
    """What is kept for one job of a pack."""

    def __init__(self, job: Job) -> None:
        self.job, self.seeds = job, Seeds.of(job.seed)
        self.losses: list[float] = []
        self.pending: list[Point] = []
        self.scores: dict[str, Score] = {}
        self.state: State = "complete"
        self.steps = job.train.steps
        self.note = ""

    @property
    def alive(self) -> bool:
        return self.state == "complete"

    def diverge(self, steps: int, note: str) -> None:
        """Not finite, or far off, after so many good steps."""
        self.state, self.steps, self.note = "diverged", steps, note


class Pack:
    """The state of a pack; `run` does it all, `step` is one step of it for a benchmark."""

    def __init__(
        self, jobs: Sequence[Job], device: torch.device, report: PackReport | None, kernels: Kernels = "auto"
    ) -> None:
        self.began = self.beat = time.perf_counter()
        keep_freed_memory()
        start_peak(device)
        first = jobs[0]
        self.config, self.task, self.device, self.report = first.train, task_from_spec(first.task), device, report
        self.members = [_Member(job) for job in jobs]
        compiled_as = shape(first) if kernels == "compiled" else None
        self.stack = Stack([new_model(job) for job in jobs], device, self.config.precision, compiled_as)
        self.optimiser = StackOptimiser(self.stack.rows, self.stack.decayed, [job.train for job in jobs])
        # in the precision of the losses, so that host and device agree on which model is over it
        self.limit = float(torch.tensor(findings.limit(self.task.vocab_size), dtype=torch.float32))
        self.first = FirstSteps(str(first.design), self.config.precision)
        self._step, self.mask = step_of(self.stack, self.optimiser, self.limit, self.first)
        self.validation, self.test = (
            stacked(
                [self.task.evaluation(split, one.seeds.eval, self.config.eval_examples) for one in self.members], device
            )
            for split in ("validation", "test")
        )
        self.seconds: list[float] = []  # of a step of the whole pack, by window

    def run(self, checkpoints: Sequence[Path | None]) -> list[Outcome]:
        """Train until every job has come to its end."""
        every = self.config.eval_every
        for first, last in windows(self.config.steps, every):
            self._window(first, last)
            if last == self.config.steps or (every and last % every == 0):
                self._look("validation", self.validation, last)
            if not any(one.alive for one in self.members):
                break
        else:
            self._look("test", self.test, self.config.steps)
        for index, (one, path) in enumerate(zip(self.members, checkpoints, strict=True)):
            if one.alive and path is not None:
                save_checkpoint(path, one.job, self.stack.model(index), self.config.steps)
        return self._outcomes()

    def step(self, step: int) -> torch.Tensor:
        """Step number `step`, from 0, of every model; [P, 2] losses and gradient norms, on the device."""
        drawn = [self.task.train_batch(one.seeds.data, step, self.config.batch) for one in self.members]
        scalars = self.optimiser.scalars(step)
        if self.device.type == "cuda":
            scalars = scalars.pin_memory().to(self.device, non_blocking=True)
        return self._step(stacked(drawn, self.device), scalars)

    def _window(self, first: int, last: int) -> None:
        """Steps `first` to `last` - 1."""
        start, seen = time.perf_counter(), []
        for step in range(first, last):
            seen.append(self.step(step))
            self._beat()
        values = torch.stack(seen).tolist()  # the device's only wait
        self.seconds.append((time.perf_counter() - start) / len(values))
        for index, one in enumerate(self.members):
            if not one.alive:
                continue
            for step, row in enumerate(values, first):
                loss, norm = row[index]
                if problem := findings.problem(loss, norm, self.limit):
                    one.diverge(step, f"{problem} at step {step + 1}")
                    break
                one.losses.append(loss)
            else:
                one.pending.append(Point(last, "loss", "train", statistics.fmean(one.losses[first:last])))

    def _look(self, name: str, data: Labelled, step: int) -> None:
        """Score a split after `step` steps and report at once."""
        sums = torch.zeros(len(self.members), 3, device=self.device)
        for part in _parts(data, self.config.eval_batch):
            sums += self.stack.score(part)
        right, loss, labels = sums.unbind(1)
        for index, (accuracy, mean) in enumerate(torch.stack([right / labels, loss / labels], 1).tolist()):
            one, score = self.members[index], Score(accuracy=accuracy, loss=mean)
            if not one.alive:
                continue
            if not score.finite:
                one.diverge(step, f"{name} loss {score.loss} after step {step}")
                self.mask[index] = False
                continue
            one.scores[name] = score
            one.pending += [Point(step, "accuracy", name, score.accuracy), Point(step, "loss", name, score.loss)]
        self._beat(due=True)

    def _beat(self, due: bool = False) -> None:
        """Hand over the points found since the last time, if it is time to. Raises `Cancelled`."""
        if self.report is None or not (due or time.perf_counter() - self.beat > BEAT):
            return
        self.beat = time.perf_counter()
        if self.report(self._pending()):
            taken = max(len(one.losses) for one in self.members)
            raise Cancelled(f"cancelled after {taken} of {self.config.steps} steps")

    def _pending(self) -> list[Sequence[Point]]:
        points: list[Sequence[Point]] = []
        for one in self.members:
            points.append(tuple(one.pending))
            one.pending = []
        return points

    def _outcomes(self) -> list[Outcome]:
        if self.report is not None and any(one.pending for one in self.members):
            self.report(self._pending())  # too late to cancel
        shared, peak = (time.perf_counter() - self.began) / len(self.members), peak_bytes(self.device)
        length = self.task.sequence_length
        # a job's own tokens over its share of the time
        speed = findings.speed(self.seconds, len(self.members) * self.config.batch * length)
        return [
            findings.outcome(
                one.job.train,
                self.stack.template,
                length,
                state=one.state,
                steps=one.steps,
                note=one.note,
                losses=one.losses,
                scores=one.scores,
                step_scale=self.stack.scales[index],
                mismatch=self.first.worst,
                speed=speed if one.losses else None,
                wall=shared,
                peak=peak,
            )
            for index, one in enumerate(self.members)
        ]


def _parts(data: Labelled, size: int) -> list[Labelled]:
    """Parts of at most `size` sequences of each model."""
    whole = (data.tokens, data.positions, data.targets)
    return [Labelled(*part) for part in zip(*(torch.split(x, size, dim=1) for x in whole), strict=True)]
