"""One training, from a job to its outcome.

The same job on the same kind of device, with the same number of threads, gives the same numbers: bit for bit on a
CPU. Every draw comes from a generator of its own (`Seeds`), so neither the caller's random state nor another training
in the process can change it.

The steps run in windows of ten. A window is what a curve's train point averages and what the speed is measured over.
On a GPU it is also how often the host waits for the device, so a step that is not finite is found at the end of its
window; on a CPU it is found at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from miras_search.kernels import dispatch
from miras_search.tasks import task_from_spec
from miras_search.training import findings, snapshot
from miras_search.training.checkpoint import save_checkpoint
from miras_search.training.config import Seeds
from miras_search.training.descent import descent_of, loss_of
from miras_search.training.device import drawn_from, keep_freed_memory, peak_bytes, resolve, settled, start_peak
from miras_search.training.evaluate import Labelled, Score, evaluate
from miras_search.training.first_steps import LOSS, FirstSteps, Found
from miras_search.training.job import Cancelled, Job, Keep, Kernels, Outcome, Point, State
from miras_search.training.optimiser import Optimiser
from miras_search.training.start import new_model

WINDOW = 10  # steps
BEAT = 0.5  # seconds between reports at most, unless there is a validation score to report

Report = Callable[[Sequence[Point]], bool]
"""Takes the curve points since the last call, perhaps none: it is called about every half second while steps are faster
than that, so that it also shows that the training is alive. Returns whether to stop."""


def train(
    job: Job,
    *,
    device: str = "auto",
    report: Report | None = None,
    checkpoint: Path | None = None,
    threads: int | None = None,
    keep: Keep | None = None,
    kernels: Kernels = "auto",
) -> Outcome:
    """Train a job and measure what it found.

    A loss or gradient that is not finite, or a loss far beyond a blind guess's, ends the training with the state
    `diverged` and whatever was measured so far; it is a result, not an error. `checkpoint` is written if the training
    completes. With `keep` it is saved on its way and goes on from an earlier snapshot, to the same result. `kernels`
    says whether compiled ones may run; where they do, the first steps are taken in torch as well and compared. Raises
    `Cancelled` when `report` says stop, `SpecError` for a task that does not exist, `KernelMismatch` for a kernel that
    is wrong, `EnvironmentProblem` for a device that is not there, and `torch.OutOfMemoryError` when a GPU is too small.
    """
    where = resolve(device)
    with settled(where, threads), drawn_from(Seeds.of(job.seed).init, where), dispatch.allowed(kernels):
        return Training(job, where, report, keep, kernels).run(checkpoint)


class _Diverged(Exception):
    """Not finite, or far off, after so many good steps."""

    def __init__(self, steps: int, note: str) -> None:
        self.steps = steps
        self.note = note
        super().__init__(note)


class Training:
    """The state of one training; `run` does it all, `step` is one step of it for a benchmark."""

    def __init__(
        self,
        job: Job,
        device: torch.device,
        report: Report | None,
        keep: Keep | None = None,
        kernels: Kernels = "auto",
    ) -> None:
        self.began = self.beat = self.saved = time.perf_counter()
        keep_freed_memory()
        start_peak(device)
        config, seeds = job.train, Seeds.of(job.seed)
        self.job, self.device, self.config = job, device, config
        self.report, self.keep, self.kernels, self.stopping = report, keep, kernels, False
        self.task = task_from_spec(job.task)
        self.data_seed = seeds.data
        self.model = new_model(job).to(device)
        self.optimiser = Optimiser(self.model, config)
        self._descend = descent_of(job, self.model, kernels)
        self.validation, self.test = (
            Labelled.of(self.task.evaluation(split, seeds.eval, config.eval_examples), device)
            for split in ("validation", "test")
        )
        self.limit = findings.limit(self.task.vocab_size)
        self.first = FirstSteps(str(job.design), config.precision)
        self._drawn: dict[int, Labelled] = {}  # batches of steps to come
        self.losses: list[float] = []
        self.seconds: list[float] = []  # of a step, by window
        self.seen: list[Tensor] = []  # [loss, gradient norm] of the steps of a window that is not over
        self.points: list[Point] = []
        self.pending: list[Point] = []  # those that are not reported yet
        self.scores: dict[str, Score] = {}

    @property
    def elapsed(self) -> float:
        """Seconds of training, earlier tries that this one goes on from included."""
        return time.perf_counter() - self.began

    def run(self, checkpoint: Path | None) -> Outcome:
        """Train to the end or to the first step that is not finite."""
        taken = snapshot.restore(self, self.keep.resume) if self.keep is not None and self.keep.resume else 0
        try:
            for first, last in windows(self.config.steps, self.config.eval_every):
                if last <= taken:
                    continue
                self._window(first, last)
                if last == self.config.steps or (self.config.eval_every and last % self.config.eval_every == 0):
                    self._look("validation", self.validation, last)
                self._pause(last)
            self._look("test", self.test, self.config.steps)
        except _Diverged as end:
            return self._outcome("diverged", end.steps, end.note)
        if checkpoint is not None:
            save_checkpoint(checkpoint, self.job, self.model, self.config.steps)
        return self._outcome("complete", self.config.steps, "")

    def _window(self, first: int, last: int) -> None:
        """Steps `first` to `last` - 1, less those that an earlier try has taken."""
        start, before = time.perf_counter(), len(self.seen)
        self._draw(range(first + before, last))
        for step in range(first + before, last):
            self.seen.append(self.step(step))
            if self.device.type == "cpu":
                loss, norm = self.seen[-1].tolist()
                if findings.problem(loss, norm, self.limit):
                    break
            self._beat()
            if step + 1 < last:  # else the window is closed first
                self._pause(step + 1)
        values = torch.stack(self.seen).tolist()  # the device's only wait
        self.seen = []
        self.seconds.append((time.perf_counter() - start) / (len(values) - before))
        for step, (loss, norm) in enumerate(values, first):
            if problem := findings.problem(loss, norm, self.limit):
                raise _Diverged(step, f"{problem} at step {step + 1}")
            self.losses.append(loss)
        self._found(Point(last, "loss", "train", statistics.fmean(self.losses[first:last])))

    def step(self, step: int) -> Tensor:
        """Optimiser step number `step`, from 0; [loss, gradient norm], still on the device."""
        batch = self._batch(step)
        with self.first.watching():
            loss, norm = self._descend(batch)
        if self.first.due:
            self._compare(loss, batch)
        return torch.stack([loss, self.optimiser.step(step, norm)])

    def _batch(self, step: int) -> Labelled:
        """A step's batch, drawn with those that follow it."""
        if step not in self._drawn:
            self._draw(range(step, step + WINDOW))
        return self._drawn.pop(step)

    def _draw(self, steps: range) -> None:
        """Draw a window's batches together: one amid work that fills the caches takes five times as long."""
        drawn = [self.task.train_batch(self.data_seed, step, self.config.batch) for step in steps]
        self._drawn = {step: Labelled.of(batch, self.device) for step, batch in zip(steps, drawn, strict=True)}

    def _compare(self, loss: Tensor, batch: Labelled) -> None:
        """Compare the loss and the gradients that kernels gave with torch's. Raises `KernelMismatch`."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named.items()}

        def again() -> list[Found]:
            # no memory draws numbers, but what a user's plugin computes beside it may
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                loss = loss_of(self.model, batch, self.config.precision)
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
            return [{LOSS: loss, **dict(zip(named, found, strict=True))}]

        self.first.compare([{LOSS: loss, **grads}], again)

    def _look(self, name: str, data: Labelled, step: int) -> None:
        """Score a split after `step` steps and report at once."""
        score = evaluate(self.model, data, self.config.eval_batch, self.config.precision)
        if not score.finite:
            raise _Diverged(step, f"{name} loss {score.loss} after step {step}")
        self.scores[name] = score
        self._found(Point(step, "accuracy", name, score.accuracy), Point(step, "loss", name, score.loss))
        self._beat(due=True)

    def _found(self, *points: Point) -> None:
        self.points += points
        self.pending += points

    def _beat(self, due: bool = False) -> None:
        """Hand over the points found since the last time, if it is time to; the reply may be to stop."""
        if self.report is None or not (due or time.perf_counter() - self.beat > BEAT):
            return
        points, self.pending, self.beat = tuple(self.pending), [], time.perf_counter()
        self.stopping |= self.report(points)

    def _pause(self, step: int) -> None:
        """Save where the training is after `step` steps, if it is time to or it is to stop. Raises `Cancelled`."""
        if self.keep is not None and (self.stopping or time.perf_counter() - self.saved > self.keep.every):
            self.keep.save(snapshot.dump(self, step))
            self.saved = time.perf_counter()
        if self.stopping:
            raise Cancelled(f"cancelled after {step} of {self.config.steps} steps")

    def _outcome(self, state: State, steps: int, note: str) -> Outcome:
        """The outcome, with every number that is finite."""
        if self.pending and self.report is not None:
            self.report(tuple(self.pending))  # too late to cancel
        wall, peak = self.elapsed, peak_bytes(self.device)
        length = self.task.sequence_length
        return findings.outcome(
            self.config,
            self.model,
            length,
            state=state,
            steps=steps,
            note=note,
            losses=self.losses,
            scores=self.scores,
            step_scale=self.model.step_scale,
            mismatch=self.first.worst,
            speed=findings.speed(self.seconds, self.config.batch * length) if self.losses else None,
            wall=wall,
            peak=peak,
        )


def windows(steps: int, eval_every: int) -> Iterator[tuple[int, int]]:
    """Ranges that cover 0 to `steps`, at most `WINDOW` long, ending wherever the validation split is looked at."""
    first = 0
    while first < steps:
        last = min(first - first % every + every for every in (WINDOW, eval_every or steps))
        yield first, min(last, steps)
        first = last
