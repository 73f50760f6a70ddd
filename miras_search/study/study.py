"""A study, read and resolved: what is asked, which cells answer it, on which tasks and seeds; and its two hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Plain, to_plain
from miras_search.space.option import origin
from miras_search.space.plugins import Plugin
from miras_search.study.designs import Array
from miras_search.study.drafts import Cell
from miras_search.study.evaluation import Evaluated
from miras_search.study.match import Match
from miras_search.study.schema import Resources
from miras_search.study.search import Search
from miras_search.study.top_up import TopUp
from miras_search.study.tune import Tuning
from miras_search.tasks import TASKS
from miras_search.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class StudyTask:
    """A task of a study: its name in tables, and all its settings."""

    name: str
    """Short and unique in the study: `mqar`, `mqar(length=128)`."""
    spec: Mapping[str, Plain]
    """What `task_from_spec` reads, every setting spelled out."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A path that the study varies, or `control`: the base's level and every level in the cells, as text."""

    path: str
    base: str | None
    """None where the base has no such setting."""
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """A valid study. Every cell is trained on every task with every seed; the seeds are shared by the cells."""

    name: str
    question: str
    kind: str
    design: str
    """As in `miras_search.study.designs`, or search."""
    metric: str
    seeds: tuple[int, ...]
    tasks: tuple[StudyTask, ...]
    model: ModelConfig
    train: TrainConfig
    base: DesignPoint
    base_name: str
    cells: Sequence[Cell]
    """The base first, then cells, then controls; a cell's number is its index. Of a search the base alone."""
    axes: tuple[Axis, ...]
    controls: tuple[str, ...]
    """Names of the control cells."""
    resources: Resources
    execution: str
    """In words, for captions: the execution that all cells share, or that they do not share one."""
    mixed: bool
    """Whether designs run with executions of their own (`execution: own`)."""
    yaml: str
    """The file's text, overrides applied."""
    path: str
    shipped: bool = False
    """Whether the file came with the package because no such file was there."""
    plugins: tuple[Plugin, ...] = ()
    """The user's modules that its options may come from."""
    array: Array | None = None
    """Of a design with less than all combinations: what is proved of those it has."""
    search: Search | None = None
    """Of a study of kind search: what is sought where."""
    match: Match | None = None
    """Which cost of the cells is made that of the base."""
    tuning: Tuning | None = None
    """What is chosen for each cell before its seeds are trained."""
    rival: Study | None = None
    """Of a search: the same one by other means, a study of its own with which it is compared."""
    top_up: TopUp | None = None
    """When cells that are still undecided get more seeds."""
    evaluated: Evaluated | None = None
    """Of a study that trains nothing: the trainings whose models it tries."""

    @property
    def trials(self) -> Sequence[Cell]:
        """What the store has a trial of: the cells, or where they are tuned every setting of each."""
        return self.cells if self.tuning is None else self.tuning.trials

    @property
    def reported(self) -> tuple[int, ...]:
        """The seeds that its tables may show: its own, then those of its top-ups."""
        return self.seeds if self.top_up is None else self.top_up.seeds

    @property
    def grows(self) -> bool:
        """Whether some of its jobs follow from what others find."""
        return self.tuning is not None or self.top_up is not None

    @property
    def jobs(self) -> int:
        """Trainings that the study takes before any top-up, those of its tuning among them; of a search those of its
        base.
        """
        tuned = 0 if self.tuning is None else len(self.tuning.trials) * len(self.tuning.seeds)
        return (len(self.cells) * len(self.seeds) + tuned) * len(self.tasks)

    @property
    def config(self) -> dict[str, Plain]:
        """Everything resolved, as plain data."""
        return {
            "name": self.name,
            "question": self.question,
            "seeds": list(self.seeds),
            "resources": self._resources,
            **({"extent": self.search.extent} if self.search else {}),
            **({"rival": self.rival.name} if self.rival else {}),
            **self._compared,
        }

    @property
    def _resources(self) -> dict[str, Plain]:
        """As plain data; the rest only where it was chosen, so that hashes are what they were without those keys."""
        given = self.resources
        chosen: dict[str, Plain] = given.model_dump(exclude_defaults=True)
        return {"cpus": given.cpus, "gpus": given.gpus, **chosen}

    @property
    def _compared(self) -> dict[str, Plain]:
        """What is compared: everything that decides which job means what."""
        return {
            "kind": self.kind,
            "design": self.design,
            "metric": self.metric,
            "tasks": [{"name": task.name, "spec": dict(task.spec)} for task in self.tasks],
            "base": {
                "name": self.base_name,
                "design": self.base.to_plain(),
                "model": self.model.to_plain(),
                "train": to_plain(self.train),
            },
            "execution": self.execution,
            "cells": [cell.to_plain() for cell in self.cells],
            **({"plugins": self._used} if self._used else {}),
            **({"match": self.match.to_plain()} if self.match else {}),
            **({"tune": self.tuning.to_plain()} if self.tuning else {}),
            **({"top_up": self.top_up.to_plain()} if self.top_up else {}),
            **({"evaluated": self.evaluated.to_plain()} if self.evaluated else {}),
            **({"search": {**self.search.compared, "seeds": list(self.seeds)}} if self.search else {}),
        }

    @property
    def _used(self) -> dict[str, Plain]:
        """The plugins that some cell's function or a task's data depend on, with the hash of their source."""
        if self.search is not None:  # any of their options may be drawn
            return {plugin.name: plugin.digest for plugin in self.plugins}
        if not self.plugins:
            return {}
        tasks = (origin(TASKS[str(task.spec["name"])]) for task in self.tasks)
        designs = (one for cell in self.trials for one in cell.design.canonical().origins)
        return {one.module: one.digest for one in (*tasks, *designs) if one is not None}

    @property
    def config_hash(self) -> str:
        """Of `config`: 64 hexadecimal digits, the same for every spelling of the same study."""
        return _hash(self.config)

    @property
    def space_hash(self) -> str:
        """Of what is compared: unchanged by the name, the question, the resources and more seeds."""
        return _hash(self._compared)


def _hash(plain: Mapping[str, Plain]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
