"""The study as Optuna sees it: one trial a cell, in the same database, so that Optuna's own tools can read it.

The `ms_*` rows are the truth and are always committed first; this record follows. When it cannot follow (a finished
trial got more seeds or another try, and Optuna's finished trials do not change) it is written anew from the rows. Cells
are enumerated by the study and only enqueued here; nothing is sampled, nothing pruned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL

from miras_search.errors import EnvironmentProblem
from miras_search.metrics import METRICS
from miras_search.store.database import apply_pragmas, safe_url
from miras_search.study.drafts import Cell

FIXED = "fixed_params"  # the system attribute under which `Study.enqueue_trial` keeps a waiting trial's parameters
PREFIX = "miras-search/"  # our studies never meet a user's own ones in the same database

Verdict = float | Literal["failed"] | None
"""What the rows say of a trial: the mean of its metric, that it failed or diverged, or nothing yet."""


def verdict(states: Sequence[str], values: Sequence[float | None]) -> Verdict:
    """The verdict on a trial from its jobs' states and their values of the metric."""
    if not states or any(state in ("waiting", "running") for state in states):
        return None
    found = [value for value in values if value is not None]
    if any(state != "complete" for state in states) or len(found) < len(states):
        return "failed"
    mean = math.fsum(found) / len(found)
    return mean if math.isfinite(mean) else "failed"


def open_storage(url: URL) -> RDBStorage:
    """Optuna's tables in the database at `url`, created where they are missing.

    Raises EnvironmentProblem where another Optuna made them.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Optuna takes the address as a template, and the braces in it as its own
    address = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    try:
        storage = RDBStorage(address)
    except RuntimeError as error:  # whose cures are Optuna's own, and know nothing of this database's other tables
        what = f"its Optuna tables are not those of Optuna {optuna.__version__}, which is installed"
        cure = "install the Optuna that was used last, or name another database with --db"
        raise EnvironmentProblem(f"{safe_url(url)}: {what}: {cure}") from error
    apply_pragmas(storage.engine)
    return storage


def close_storage(storage: RDBStorage) -> None:
    """Close its connections."""
    storage.remove_session()
    storage.engine.dispose()


class OptunaRecord:
    """One study's record. Used by the driver alone: unpickling a storage would open the database elsewhere."""

    def __init__(self, url: URL, study: str, metric: str, cells: Sequence[Cell]) -> None:
        self._storage = open_storage(url)
        self._name = PREFIX + study
        self._direction = METRICS[metric].direction
        self._cells = cells
        paths = dict.fromkeys(path for cell in cells for path in cell.levels)
        self._choices = {
            path: tuple(dict.fromkeys(cell.levels[path] for cell in cells if path in cell.levels)) for path in paths
        }
        self._study = self._open()
        self._waiting: set[int] = set()

    def reconcile(self, verdicts: Mapping[int, Verdict]) -> None:
        """Bring the record up to the rows: tell what a crash kept from being told, or write it anew."""
        trials = self._study.get_trials(deepcopy=False)
        if not self._agrees(trials, verdicts):
            optuna.delete_study(study_name=self._name, storage=self._storage)
            self._study = self._open()
            self._study.add_trials([self._trial(cell, verdicts[cell.number]) for cell in self._cells])
            trials = self._study.get_trials(deepcopy=False)
        self._waiting = {trial.number for trial in trials if trial.state == TrialState.WAITING}
        for trial in trials:
            if not trial.state.is_finished():
                self.tell(trial.number, verdicts[trial.number])

    def begin(self, number: int) -> None:
        """Mark a trial as running. Not by `ask`, which reads the whole queue each time and keeps to its order."""
        if number not in self._waiting:
            return
        storage = self._study._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
        trial = optuna.Trial(self._study, trial_id)
        for path in self._cells[number].levels:
            trial.suggest_categorical(path, self._choices[path])  # the enqueued level: nothing is drawn
        self._waiting.discard(number)

    def tell(self, number: int, verdict: Verdict) -> None:
        """Finish a trial, if there is a verdict on it."""
        if verdict is None:
            return
        self.begin(number)
        if verdict == "failed":
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, verdict)

    def close(self) -> None:
        """Close the connections."""
        close_storage(self._storage)

    def _open(self) -> optuna.Study:
        return optuna.create_study(
            storage=self._storage,
            study_name=self._name,
            direction=self._direction,
            sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: every parameter is fixed
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )

    def _agrees(self, trials: Sequence[FrozenTrial], verdicts: Mapping[int, Verdict]) -> bool:
        """Whether the record can follow the rows as it is."""
        if len(trials) != len(self._cells) or self._study.direction.name.lower() != self._direction:
            return False
        for trial, cell in zip(trials, self._cells, strict=True):
            waiting = trial.state == TrialState.WAITING
            if (trial.system_attrs.get(FIXED) if waiting else trial.params) != dict(cell.levels):
                return False  # also a trial left half-asked by a crash
            if trial.state.is_finished() and not _same(trial, verdicts[cell.number]):
                return False
        return True

    def _trial(self, cell: Cell, verdict: Verdict) -> FrozenTrial:
        about = {"cell": cell.name, "role": cell.role, "design_hash": cell.design.hash}
        if verdict is None:
            return create_trial(state=TrialState.WAITING, system_attrs={FIXED: dict(cell.levels)}, user_attrs=about)
        return create_trial(
            state=TrialState.FAIL if verdict == "failed" else TrialState.COMPLETE,
            value=None if verdict == "failed" else verdict,
            params=dict(cell.levels),
            distributions={path: CategoricalDistribution(self._choices[path]) for path in cell.levels},
            user_attrs=about,
        )


def _same(trial: FrozenTrial, verdict: Verdict) -> bool:
    if trial.state == TrialState.FAIL:
        return verdict == "failed"
    return isinstance(verdict, float) and trial.value is not None and math.isclose(trial.value, verdict)
