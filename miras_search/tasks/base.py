"""What a task is: seeded batches of tokens with labels at a few known positions, and the registry of tasks.

A task makes data and nothing else: it knows no model, no optimiser and no torch, so a study can be checked and planned
without loading any of them. Three rules hold for every task, and the tests of each one prove them:

* A batch is a pure function of (settings, seed, step, size). A training resumed at step 500 sees the batches that the
  uninterrupted one would have seen, and no draw of one task can disturb another: the global generator is never used.
* Train, validation and test come from different random streams (for text, from different files), so that a learning
  rate chosen on validation says nothing about the test split.
* The shapes of a task's batches are fixed: `labels` positions a sequence, those not needed padded with `IGNORE`.

Shapes: B sequences, T tokens, M labels a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from miras_search.space import plugins
from miras_search.space.fields import Path, Plain, SpecError, build, help_of, nearest, to_plain

IGNORE = -100
"""Target of a padded label slot (its position is 0): no loss, no accuracy. The value torch's cross-entropy skips."""

Split = Literal["train", "validation", "test"]
EvaluationSplit = Literal["validation", "test"]

_STREAMS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Sequences and the tokens to be predicted in them.

    Labels are sparse: the logits are needed only at `positions`, which for a recall task is a small share of T. Where
    `targets` is `IGNORE` the slot is padding. Arrays are fresh, writable and contiguous.
    """

    tokens: NDArray[np.int64]
    """[B, T] inputs, in [0, vocab_size)."""
    positions: NDArray[np.int64]
    """[B, M] index in T at which a prediction is made."""
    targets: NDArray[np.int64]
    """[B, M] the token to predict there, or `IGNORE`."""


class Task(Protocol):
    """A generator of batches. Implementations are frozen, slotted dataclasses whose fields are their settings."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]

    @property
    def vocab_size(self) -> int:
        """Number of different tokens: inputs and targets are below it."""

    @property
    def sequence_length(self) -> int:
        """T, tokens in a sequence."""

    @property
    def labels(self) -> int:
        """M, label slots in a sequence, the padded ones included."""

    @property
    def chance(self) -> float:
        """Accuracy of a guess among the possible answers that has read nothing: where the range of results begins."""

    def train_batch(self, data_seed: int, step: int, size: int) -> Batch:
        """The training batch of a step: `size` sequences, always the same ones for the same arguments."""

    def evaluation(self, split: EvaluationSplit, eval_seed: int, examples: int) -> Batch:
        """`examples` held-out sequences of a split as one batch."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The best answer known that binds no value to a key: it may hold what it has read, and needs no keys."""

    accuracy: float
    how: str
    """What is answered, in words."""


TASKS: dict[str, type[Task]] = {}
"""Every registered task by the name used in study files."""

plugins.REGISTRIES["task"] = TASKS

HARDER: dict[type[Task], tuple[str, ...]] = {}
"""Task -> the settings that make it harder as they grow, the one to turn first first; none for a task without."""

_Kind = TypeVar("_Kind", bound=Task)


def register_task(name: str, harder: tuple[str, ...] = ()) -> Callable[[type[_Kind]], type[_Kind]]:
    """Class decorator: makes a task known under `name`, with the knobs of its difficulty. A name may be taken once."""

    def register(kind: type[_Kind]) -> type[_Kind]:
        if name in TASKS:
            raise ValueError(f"task name {name!r} is already taken by {TASKS[name].__qualname__}")
        kind.name = name
        TASKS[name], HARDER[kind] = kind, harder
        return kind

    return register


GUESSES = 20_000
"""Sequences on which a task measures a guess that no formula gives: to about 0.002."""


def task_from_spec(spec: Mapping[str, object], where: Path = ()) -> Task:
    """The task of a study file's mapping: `name` chooses it, the other keys are its settings.

    Raises `SpecError` with a problem at `where` extended by the key for an unknown task, an unknown setting, a value of
    the wrong type and a value out of range.
    """
    known = ", ".join(sorted(TASKS))
    if "name" not in spec:
        raise SpecError.at(where, f"'name' is missing: which task? (known: {known})")
    name = spec["name"]
    if not isinstance(name, str) or name not in TASKS:
        raise SpecError.at((*where, "name"), f"unknown task {name!r}{nearest(str(name), TASKS)}")
    return build(TASKS[name], {key: value for key, value in spec.items() if key != "name"}, where)


def task_to_spec(task: Task) -> dict[str, Plain]:
    """The task as plain data with every setting spelled out; `task_from_spec` gives an equal task back."""
    return {"name": task.name, **to_plain(task)}


def files_hash(task: Task) -> str | None:
    """A hash of the files that a task is made of, its `corpus_hash`; None where it is made of its settings alone.

    Reads the files. Raises MirasError as reading them does.
    """
    found: str | None = getattr(task, "corpus_hash", None)
    return found


def unbound(task: Task) -> Guess | None:
    """What can be had of a task without binding, its `unbound`; None for one that does not say, or has no keys."""
    found: Guess | None = getattr(task, "unbound", None)
    return found


@dataclass(frozen=True, slots=True)
class SettingFacts:
    """One setting of a task, for help and documentation."""

    name: str
    default: Plain
    help: str


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a user is told about a task."""

    name: str
    summary: str
    source: str
    settings: tuple[SettingFacts, ...]


def facts() -> tuple[TaskFacts, ...]:
    """Facts of every registered task, by name. Nothing is generated or read from disk."""
    return tuple(_facts(kind) for _, kind in sorted(TASKS.items()))


def _facts(kind: type[Task]) -> TaskFacts:
    defaults, helps = to_plain(build(kind, {})), help_of(kind)
    settings = tuple(SettingFacts(name, default, helps[name]) for name, default in defaults.items())
    return TaskFacts(kind.name, kind.summary, kind.source, settings)


def stream(seed: int, split: Split, step: int = 0) -> np.random.Generator:
    """The random generator of one batch; `seed` and `step` are non-negative, below 2**64 and 2**32.

    The entropy has a fixed layout of 32-bit words. `SeedSequence([seed, split, step])` would not do: numpy splits a
    large seed into words and pads with zeros, so that two different triples can become one stream.
    """
    if not (0 <= seed < 2**64 and 0 <= step < 2**32):
        raise ValueError(f"seed {seed} and step {step} must be whole numbers from 0, below 2**64 and 2**32")
    words = [seed % 2**32, seed // 2**32, _STREAMS[split], step]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
