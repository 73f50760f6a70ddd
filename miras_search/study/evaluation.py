"""What an evaluation looks at: the trainings of one study and task, and the tasks on which their models are tried.

    --set task.length=256 --set task.length=512 --set task.noise=0.2      two tasks: length 256 and 512, noise 0.2

A path that is set more than once has as many levels, and every combination of levels is a task of the evaluation. What
is not set is as in training; on a task of another kind the settings of the same name are (`vocab`, `length`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.errors import MirasError
from miras_search.space.fields import Plain, SpecError, flow, nearest
from miras_search.study.document import assignment
from miras_search.tasks import TASKS, task_from_spec, task_to_spec

LOOKED_AT = ("train.eval_examples", "train.eval_batch")
"""The settings of a training that say how it is looked at, not how it is trained."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The trainings whose models an evaluation tries, in place of training any."""

    study: str
    task: str
    """What they were trained on, by its name in that study's tables."""
    spec: Mapping[str, Plain]
    """The same with every setting."""
    trials: tuple[int, ...]
    """The trial of that study for each cell of the evaluation."""

    def to_plain(self) -> dict[str, Plain]:
        """Everything as plain data."""
        return {"study": self.study, "task": self.task, "spec": dict(self.spec), "trials": list(self.trials)}


@dataclass(frozen=True, slots=True)
class Level:
    """One task of an evaluation: its name in tables, `mqar(length=256)`, and all its settings."""

    name: str
    spec: Mapping[str, Plain]


@dataclass(frozen=True, slots=True)
class Settings:
    """The overrides of an evaluation, read."""

    task: Mapping[str, tuple[Plain, ...]]
    """Setting of the task -> its levels, in the order of the command line."""
    train: Mapping[str, Plain]
    """`eval_examples` and `eval_batch`, where they are given."""


def settings(overrides: Sequence[str]) -> Settings:
    """The overrides, each `PATH=VALUE` with a YAML value. Raises MirasError for what no evaluation can change."""
    task: dict[str, tuple[Plain, ...]] = {}
    train: dict[str, Plain] = {}
    for text in overrides:
        if not text.partition("=")[1]:
            raise MirasError(f"--set {text}: expected PATH=VALUE, as in task.length=256")
        path, value = assignment(text)
        head, _, key = path.partition(".")
        if head == "task" and key == "name":
            raise MirasError(f"--set {text}: another task is named by --task")
        if head == "task" and key:
            if value in task.get(key, ()):
                raise MirasError(f"--set {text}: it is given twice: leave one out")
            task[key] = (*task.get(key, ()), value)
        elif path not in LOOKED_AT:
            known = f"task.SETTING, {' and '.join(LOOKED_AT)}"
            raise MirasError(f"--set {text}: an evaluation trains nothing, so it can set {known} alone")
        elif key in train:
            raise MirasError(f"--set {text}: {path} is given twice: it is the same for all levels")
        else:
            train[key] = value
    return Settings(task, train)


def levels(trained: Mapping[str, Plain], names: Sequence[str], chosen: Mapping[str, tuple[Plain, ...]]) -> list[Level]:
    """The tasks to evaluate on: those of `names`, or the one that was trained on, at every combination of settings.

    `trained` has every setting of the task of the training. Raises MirasError for a task or setting that there is not,
    a value out of range, and tokens that are not the model's.
    """
    found: list[Level] = []
    for name in names or (str(trained["name"]),):
        if name not in TASKS:
            raise MirasError(f"--task {name}: there is no such task{nearest(name, TASKS)}")
        for values in itertools.product(*chosen.values()):
            level = _level(name, trained, dict(zip(chosen, values, strict=True)))
            if any(level.name == other.name for other in found):
                raise MirasError(f"--task {name}: it is given twice: leave one out")
            found.append(level)
    return found


def _level(name: str, trained: Mapping[str, Plain], given: Mapping[str, Plain]) -> Level:
    own = task_to_spec(TASKS[name]())
    spec = {key: value for key, value in trained.items() if key in own}
    try:
        spec = task_to_spec(task_from_spec({**spec, **given, "name": name}, ("task",)))
    except SpecError as error:
        problem = error.problems[0]
        raise MirasError(f"{_place(name, given, str(problem.where[-1]))}: {problem.what}") from error
    _check_tokens(spec, trained, given)
    text = ", ".join(f"{key}={flow(value)}" for key, value in given.items())
    return Level(f"{name}({text})" if text else name, spec)


def _place(task: str, given: Mapping[str, Plain], key: str) -> str:
    """Where on the command line a setting was written; the task where it was not."""
    return f"--set task.{key}={flow(given[key])}" if key in given else f"--task {task}, {key} as in training"


def _check_tokens(spec: Mapping[str, Plain], trained: Mapping[str, Plain], given: Mapping[str, Plain]) -> None:
    """Raise MirasError for a task whose tokens are not those that the model reads and predicts."""
    theirs, ours = task_from_spec(spec).vocab_size, task_from_spec(trained).vocab_size
    if theirs == ours:
        return
    where = _place(str(spec["name"]), given, "vocab") if "vocab" in given else f"--task {spec['name']}"
    if theirs > ours:
        what = f"it has {theirs} tokens and the model only {ours}: it has no embedding for the others"
    else:
        what = f"it has {theirs} tokens and the model predicts among {ours}: the same token is not the same thing"
    cure = f"set task.vocab={ours}" if "vocab" in spec else f"evaluate on a task of {ours} tokens"
    raise MirasError(f"{where}: {what}; {cure}")
