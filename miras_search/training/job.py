"""A job, what it reports while it runs, and what it leaves behind. Plain data: no torch.

A job is one cell x task x seed, trained once. It travels to a worker as JSON and comes back as an `Outcome`; the worker
needs nothing else, no database and no study file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, final

from miras_search.errors import MirasError
from miras_search.models.config import ModelConfig
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, Plain, Problem, SpecError, build, nearest, to_plain
from miras_search.tasks import task_from_spec
from miras_search.training.config import TrainConfig

State = Literal["complete", "diverged"]
Kernels = Literal["auto", "torch", "compiled"]
"""Whether a memory may run on a kernel that is compiled for the device, in torch alone, or in torch with the whole step
compiled for the CPU."""
KEYS = ("design", "model", "task", "train", "seed")
OPTIONAL = ("base_design",)
UNMATCHED = "match_base matches the writes of two memories, and a layer of your own has none that it knows: use as_is"


class Cancelled(MirasError):
    """A training that was told to stop before its last step. It has no outcome."""


@final
@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides the numbers of a training."""

    design: DesignPoint
    model: ModelConfig
    task: Mapping[str, Plain]
    """`name` and settings, as in a study file."""
    train: TrainConfig
    seed: int
    """The study's seed, shared by all its cells; `Seeds.of` derives the generators."""
    base_design: DesignPoint | None = None
    """The design whose inner step is matched, where `train.inner_step` says so."""

    def __post_init__(self) -> None:
        if self.train.inner_step == "match_base" and self.base_design is None:
            what = "match_base needs the design to be matched: give the job a base_design, or use as_is"
            raise SpecError.at(("train", "inner_step"), what)
        if self.train.inner_step == "match_base" and self.owned:
            raise SpecError.at(("train", "inner_step"), UNMATCHED)

    @property
    def owned(self) -> bool:
        """Whether the design, or the one that it is matched to, is a layer of the user's own."""
        return any(point is not None and point.mixer is not None for point in (self.design, self.base_design))

    def to_plain(self) -> dict[str, Plain]:
        """As JSON data, everything spelled out; `from_plain` gives an equal job back."""
        matched: dict[str, Plain] = {} if self.base_design is None else {"base_design": self.base_design.to_plain()}
        return {
            "design": self.design.to_plain(),
            "model": to_plain(self.model),
            "task": dict(self.task),
            "train": self.train.to_plain(),
            "seed": self.seed,
            **matched,
        }

    @classmethod
    def from_plain(cls, data: object, where: Path = ()) -> Job:
        """A job from JSON data. Raises `SpecError` with every problem found, each at its own path."""
        if not isinstance(data, Mapping):
            raise SpecError.at(where, f"expected a job ({', '.join(KEYS)}), got {data!r}")
        problems = [
            Problem((*where, key), f"unknown part of a job{nearest(str(key), (*KEYS, *OPTIONAL))}")
            for key in data
            if key not in (*KEYS, *OPTIONAL)
        ]
        problems += [Problem(where, f"'{key}' is missing") for key in KEYS if key not in data]
        if problems:
            raise SpecError(problems)
        task, seed = data["task"], data["seed"]
        if not isinstance(task, Mapping):
            raise SpecError.at((*where, "task"), f"expected a task's name and settings, got {task!r}")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise SpecError.at((*where, "seed"), f"expected a whole number, got {seed!r}")
        task_from_spec(task, (*where, "task"))  # a wrong task is refused here, not after the model is built
        base = data.get("base_design")
        return cls(
            design=DesignPoint.parse(data["design"], (*where, "design")),
            model=build(ModelConfig, data["model"], (*where, "model")),
            task=dict(task),
            train=TrainConfig.from_plain(data["train"], (*where, "train")),
            seed=seed,
            base_design=None if base is None else DesignPoint.parse(base, (*where, "base_design")),
        )


@final
@dataclass(frozen=True, slots=True)
class Keep:
    """How a training is saved on its way, and from where it goes on."""

    save: Callable[[bytes], None]
    """Takes a snapshot; each one stands for those before it."""
    every: float
    """Seconds between snapshots. One more is taken when the training is told to stop."""
    resume: bytes | None = None
    """The newest snapshot of an earlier try."""


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve: a metric of a split after `step` optimiser steps."""

    step: int
    name: str
    split: str
    value: float


@final
@dataclass(frozen=True, slots=True)
class Final:
    """One final number. `name` is in the metric registry; `split` is train, validation, test, or empty for a cost."""

    name: str
    split: str
    value: float

    @classmethod
    def from_plain(cls, data: object, where: Path = (), default: object = None) -> Final:
        """From `to_plain`'s data. Raises `SpecError`."""
        return build(cls, data, where)

    def to_plain(self) -> dict[str, Plain]:
        """As JSON data."""
        return to_plain(self)


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training found. A diverged one is a result as well: its finite numbers are here, the others are absent."""

    state: State
    finals: tuple[Final, ...]
    last_step: int
    """Steps taken; for a diverged training those before the step that was not finite."""
    wall_seconds: float
    peak_memory_bytes: int
    note: str = ""
    """Why it diverged, in words; empty for a complete training."""

    def to_plain(self) -> dict[str, Plain]:
        """As JSON data for the way back from a worker; `from_plain` gives an equal outcome."""
        return to_plain(self)

    @classmethod
    def from_plain(cls, data: object, where: Path = ()) -> Outcome:
        """An outcome from `to_plain`'s data. Raises `SpecError` with every problem found."""
        return build(cls, data, where)
