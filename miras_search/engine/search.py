"""A search while it runs: what is asked of Optuna next, what it is told, and the confirmation at the end.

One trial of Optuna is one evaluation of a point. Points that are the same function, trained alike, are one trial of
ours with more seeds. The `ms_*` rows come first and are the truth about results; what the samplers and pruners know
lives in Optuna's tables of the same database, with the number of our trial among each trial's attributes, so that a run
that goes on finds both. A trial that Optuna has half asked for is asked on; one whose jobs are open trains them.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from miras_search.engine import points, samplers
from miras_search.engine.jobs import new_trial
from miras_search.engine.messages import Row
from miras_search.engine.optuna_ import PREFIX, close_storage, open_storage
from miras_search.engine.tpe import History
from miras_search.space.fields import SpecError
from miras_search.store import queries
from miras_search.store.ranked import Sought, candidates, chosen, mean
from miras_search.store.types import FINAL_STATES, JobRow, JobState, NewJob, ResultRow
from miras_search.store.writer import Writer
from miras_search.study.search import Search
from miras_search.study.study import Study

REFUSALS = 20  # refused trials for one that is trained, after which the limits leave too little to search

Key = tuple[str, int]  # task, seed
log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class _Evaluation:
    """A trial of Optuna whose jobs are not all done, or not yet told."""

    trial: optuna.Trial
    number: int
    """Of our trial."""
    keys: tuple[Key, ...]
    ended: dict[Key, tuple[JobState, Mapping[tuple[str, str], float]]] = dataclasses.field(default_factory=dict)
    given: set[Key] = dataclasses.field(default_factory=set)
    dropped: bool = False
    """Whether the pruner has ended it between two jobs."""


class SearchRun:
    """Gives the job loop its jobs, one decision at a time, and takes their results."""

    def __init__(self, writer: Writer, study_id: int, study: Study) -> None:
        assert study.search is not None, "only a search is searched"
        self.search: Search = study.search
        self.cells = points.Cells(study.cells[0], writer.db, study_id)
        alone = study.resources.model_copy(update={"pack": 1})  # the pruner ends a job, not its mates
        self.study = dataclasses.replace(study, cells=self.cells, resources=alone)
        """The study with the cells found so far: it grows."""
        self._writer, self._db, self._study_id = writer, writer.db, study_id
        self._sought: Sought = [(it.name, it.split, it.direction) for it in self.search.objectives]
        self._sequential = self.search.pruner != "none"
        self._numbers: dict[str, int] = {}  # a variant's key -> our trial
        self._evaluations: Counter[int] = Counter()  # by our trial
        self._active: list[_Evaluation] = []
        self._loose: list[JobRow] = []  # waiting jobs that no evaluation waits for
        self._begun = self._asked = self._refused = 0
        self._given_up = False
        self._refusal = ""
        self._batch, self._in_batch = 0, 0
        self._confirmed = False
        self._history = History()
        self._open()

    def resume(self, rows: Sequence[JobRow], *, ask: bool) -> None:
        """Take up what is stored. Without `ask` only the waiting rows are trained and nothing new is drawn."""
        for number, key in self.cells.stored():
            self._numbers.setdefault(key, number)
        if len(self.cells) == 1:
            self._enqueue()
        if not ask:
            self._asked, self._confirmed = self.search.trials, True
            self._loose = [row for row in rows if row.state == "waiting"]
            return
        trials = self._optuna.get_trials(deepcopy=False)
        open_ = {it.user_attrs["trial"] for it in trials if not it.state.is_finished() and "trial" in it.user_attrs}
        results = queries.results(self._db, self._study_id, open_)
        found = {(row.number, row.task, row.seed): row for row in results}
        half: list[FrozenTrial] = []
        for trial in trials:
            about = trial.user_attrs
            if trial.state == TrialState.WAITING:
                continue
            self._begun += 1
            if "refused" in about:
                self._count_refusal(about["refused"])
                if trial.state == TrialState.RUNNING:  # a crash kept it from being told
                    self._optuna.tell(trial.number, state=TrialState.PRUNED)
                continue
            if "trial" not in about:
                half += [trial] if trial.state == TrialState.RUNNING else []
                continue
            self._asked += 1
            self._evaluations[about["trial"]] += 1
            if about["batch"] != self._batch:
                self._batch, self._in_batch = about["batch"], 0
            self._in_batch += 1
            if trial.state == TrialState.RUNNING:
                self._go_on(trial, found)
        if not self._active and self._in_batch:  # all of it was told
            self._batch, self._in_batch = self._batch + 1, 0
        owned = {(it.number, *key) for it in self._active for key in it.keys}
        self._loose = [r for r in rows if r.state == "waiting" and (r.trial_number, r.task, r.seed) not in owned]
        for trial in half:
            self._begun -= 1
            self._take(self._trial(trial._trial_id, self._begun))
        if not self._evaluations[0] and not self._base_queued():
            self._loose += self._jobs(0, self._keys(0))  # the base is trained although it is not in the space

    def more(self) -> list[JobRow]:
        """The next jobs, when there is room for one; none while only running ones can lead on, or at the end."""
        while True:
            if self._loose:
                rows, self._loose = self._loose, []
                return rows
            for it in self._active:
                if keys := self._next(it):
                    it.given.update(keys)
                    if rows := self._jobs(it.number, keys):
                        return rows
            if self._may_ask():
                self._ask()
                continue
            if self._active:
                if self.search.batch is None or not all(map(self._done, self._active)):
                    return []
                self._tell_batch()
                continue
            if self._confirmed:
                return []
            self._confirmed = True
            self._loose = self._confirmation()

    @property
    def through(self) -> bool:
        """Whether all is asked for and all of that handed out."""
        return self._confirmed and not (self._loose or self._active)

    @property
    def watches(self) -> bool:
        """Whether the pruner looks at trainings on their way."""
        return self.search.pruner not in ("none", "wilcoxon")

    def points(self, job: JobRow, rows: Sequence[Row]) -> bool:
        """Whether the pruner ends the job after these points; it watches the first job of each trial."""
        it = self._owner(job)
        if it is None or not self.watches or (job.task, job.seed) != it.keys[0]:
            return False
        metric, split, _ = self._sought[0]
        train = self.cells[it.number].train
        for step, name, where, value in rows:
            if (name, where) != (metric, split) or step >= train.steps or not math.isfinite(value):
                continue
            if self._report(it, step // train.eval_every, value):
                return True
        return False

    def ended(self, job: JobRow, state: JobState) -> None:
        """A job has ended and its rows are committed."""
        it = self._owner(job)
        if it is None:
            return
        values = queries.job_values(self._db, job.id)
        it.ended[job.task, job.seed] = (state, values)
        found = values.get(self._sought[0][:2])
        if self.search.pruner == "wilcoxon" and state == "complete" and found is not None and not self._done(it):
            it.dropped = self._report(it, it.keys.index((job.task, job.seed)), found)
        if self.search.batch is None and self._done(it):
            self._tell(it)
            self._active.remove(it)

    def close(self) -> None:
        """Close Optuna's connections."""
        close_storage(self._storage)

    # Asking

    def _open(self) -> None:
        self._storage = open_storage(self._db.url)
        self._optuna = optuna.create_study(
            storage=self._storage,
            study_name=PREFIX + self.study.name,
            directions=[StudyDirection[direction.upper()] for _, _, direction in self._sought],
            sampler=optuna.samplers.RandomSampler(seed=0),  # replaced before each ask
            pruner=samplers.pruner(self.search, self.study.train),
            load_if_exists=True,
        )

    def _enqueue(self) -> None:
        for name, params in points.first_params(self.study):
            self._optuna.enqueue_trial(params, user_attrs={"cell": name}, skip_if_exists=True)

    def _base_queued(self) -> bool:
        """Whether the base is among the enqueued trials that are still to come."""
        waiting = self._optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return any(trial.user_attrs.get("cell") == self.cells[0].name for trial in waiting)

    def _may_ask(self) -> bool:
        """Whether one more trial may be drawn now: of a batch all are drawn before the first is told."""
        if self._asked >= self.search.trials or self._in_batch == self.search.batch:
            return False
        if self._refused > REFUSALS * (self._asked + 5):
            if not self._given_up:
                log.warning(
                    "%s: %d trials were refused by the limits: the search ends here; the last one: %s; widen them",
                    self.study.name,
                    self._refused,
                    self._refusal,
                )
            self._given_up = True
            return False
        return True

    def _ask(self) -> None:
        self._optuna.sampler = samplers.sampler(self.search, self._begun, self._history)
        self._begun += 1
        self._take(self._optuna.ask())

    def _trial(self, trial_id: int, place: int) -> optuna.Trial:
        """A trial that was begun before, as the sampler of its place has it."""
        self._optuna.sampler = samplers.sampler(self.search, place, self._history)
        self._begun = place + 1
        return optuna.Trial(self._optuna, trial_id)

    def _take(self, trial: optuna.Trial) -> None:
        """Draw the trial's point, store it, and take up its evaluation, or refuse it."""
        try:
            sample = self.search.space.suggest(trial)
            found = points.variant(self.study, sample)
        except SpecError as error:
            self._refuse(trial, None, {"settings": "; ".join(problem.what for problem in error.problems)}, {})
            return
        number = self._numbers.get(found.key)
        if number is None:
            number = len(self.cells)
            known_as = trial.user_attrs.get("cell")
            made = points.cell(number, found, sample.levels, known_as, self.cells.names)
        else:
            made = self.cells[number]
        limits = self.search.constraints
        refused = points.unfit(made)
        known = {} if refused else points.costs(self.study, made, limits)
        refused |= points.over(known, limits)
        if number == len(self.cells):
            self._writer.put_trials(self._study_id, [new_trial(self.study, made, refused)])
            self.cells.append(made)
            self._numbers[found.key] = number
        if refused:
            self._refuse(trial, number, refused, known)
            return
        keys = self._keys(self._evaluations[number])
        trial.set_user_attr("batch", self._batch)
        trial.set_user_attr("seeds", sorted({seed for _, seed in keys}))
        trial.set_user_attr("trial", number)  # last: with it the trial is taken up
        self._evaluations[number] += 1
        self._asked += 1
        self._in_batch += 1
        self._active.append(_Evaluation(trial, number, keys))

    def _refuse(
        self, trial: optuna.Trial, number: int | None, why: Mapping[str, str], known: Mapping[str, float]
    ) -> None:
        """Tell Optuna that the point is out of bounds; it costs no training and does not count as a trial."""
        self._count_refusal(why)
        if number is not None:
            trial.set_user_attr("refused_trial", number)
        trial.set_user_attr("refused", dict(why))
        self._bound(trial, known)
        if not known:
            trial.set_constraint("valid", 1.0)
        self._optuna.tell(trial, state=TrialState.PRUNED)
        if number == 0:
            self._loose += self._jobs(0, self._keys(0))  # the base is trained although the limits leave it out

    def _count_refusal(self, why: Mapping[str, str]) -> None:
        self._refused += 1
        self._refusal = ", ".join(f"{name} {what}" for name, what in why.items())

    def _bound(self, trial: optuna.Trial, known: Mapping[str, float]) -> None:
        """Tell how far costs are from their limits, each as a share of its own."""
        for name, limit in self.search.constraints.items():
            if math.isfinite(value := known.get(name, math.nan)):
                trial.set_constraint(name, value / limit - 1)

    # Jobs

    def _keys(self, times: int) -> tuple[Key, ...]:
        """The jobs of a point's next evaluation: on the study's seeds first, then on seeds that follow them."""
        seeds = self.study.seeds
        if times:
            first = max(seeds) + 1 + (times - 1) * len(seeds)
            seeds = tuple(range(first, first + len(seeds)))
        return tuple((task.name, seed) for seed in seeds for task in self.study.tasks)

    def _jobs(self, number: int, keys: Sequence[Key]) -> list[JobRow]:
        """The rows of those jobs of a trial, stored where they are not, without those that have ended."""
        self._writer.put_jobs(self._study_id, [NewJob(number, task, seed) for task, seed in keys])
        rows = queries.jobs(self._db, self._study_id, number)
        return [row for row in rows if (row.task, row.seed) in keys and row.state not in FINAL_STATES]

    def _next(self, it: _Evaluation) -> list[Key]:
        """What may be trained of an evaluation now: all of it, or with a pruner one job after the other."""
        left = [key for key in it.keys if key not in it.given and key not in it.ended]
        if not self._sequential or not left:
            return left
        return [] if self._done(it) or it.given - it.ended.keys() else left[:1]

    def _done(self, it: _Evaluation) -> bool:
        """Whether nothing more of an evaluation is trained."""
        bad = any(state != "complete" for state, _ in it.ended.values())
        return it.dropped or len(it.ended) == len(it.keys) or (self._sequential and bad)

    def _owner(self, job: JobRow) -> _Evaluation | None:
        key = (job.task, job.seed)
        return next((it for it in self._active if it.number == job.trial_number and key in it.keys), None)

    def _go_on(self, trial: FrozenTrial, found: Mapping[tuple[int, str, int], ResultRow]) -> None:
        """Take up an evaluation of an earlier run, with the results that are there."""
        number, seeds = trial.user_attrs["trial"], trial.user_attrs["seeds"]
        keys = tuple((task.name, seed) for seed in seeds for task in self.study.tasks)
        it = _Evaluation(self._trial(trial._trial_id, self._begun - 1), number, keys)
        rows = {key: found[number, *key] for key in keys if (number, *key) in found}
        it.ended = {key: (row.state, row.values) for key, row in rows.items() if row.state in FINAL_STATES}
        if self.search.batch is None and self._done(it):  # ended, and a crash kept it from being told
            self._tell(it)
        else:
            self._active.append(it)

    # Telling

    def _report(self, it: _Evaluation, step: int, value: float) -> bool:
        """Tell a value on the way; whether the pruner has seen enough."""
        known = self._optuna._storage.get_trial(it.trial._trial_id).intermediate_values
        if step not in known:  # a job that is made again reports what it did before
            it.trial.report(value, step)
        frozen = self._optuna._storage.get_trial(it.trial._trial_id)
        return samplers.judged(self._optuna, frozen, by_ended=self.search.batch is not None)

    def _tell_batch(self) -> None:
        """Tell a batch in the order in which it was asked for, whatever the order in which it ended."""
        for it in sorted(self._active, key=lambda it: it.trial.number):
            self._tell(it)
        self._active, self._batch, self._in_batch = [], self._batch + 1, 0

    def _tell(self, it: _Evaluation) -> None:
        """Tell Optuna what an evaluation found. Diverged and pruned ones rank behind all that came to an end."""
        states, jobs = zip(*it.ended.values(), strict=True)
        self._bound(it.trial, {name: mean(jobs, name, "") for name in self.search.constraints})
        values = [mean(jobs, metric, split) for metric, split, _ in self._sought]
        if "failed" in states or (set(states) == {"complete"} and not all(map(math.isfinite, values))):
            self._optuna.tell(it.trial, state=TrialState.FAIL)
        elif it.dropped or set(states) != {"complete"}:
            self._optuna.tell(it.trial, state=TrialState.PRUNED)
        else:
            self._optuna.tell(it.trial, values)

    # The end

    def _confirmation(self) -> list[JobRow]:
        """The jobs that are missing of the base and of the best, on seeds that the search has not seen."""
        if not self.search.confirm_seeds:
            return []
        found = candidates(queries.results(self._db, self._study_id), self._sought, self.search.constraints)
        best = chosen([it for it in found if it.number], self._sought, self.search.top)
        return list(self._fresh([0, *(it.number for it in best)])) if best else []

    def _fresh(self, numbers: Sequence[int]) -> Iterator[JobRow]:
        """Seeds outermost: a confirmation that stops early has complete pairs."""
        keys = [(task.name, seed) for seed in self.search.confirm_seeds for task in self.study.tasks]
        rows = {number: {(r.task, r.seed): r for r in self._jobs(number, keys)} for number in numbers}
        for key in keys:
            yield from (rows[number][key] for number in numbers if key in rows[number])
