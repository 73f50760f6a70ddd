"""What a search study says beside its cells: the space, what is sought in it and within which limits, and how.

Trials are compared on the validation split; the best are trained again on fresh seeds before anyone compares them
(`confirm`), because the best of many is best partly by luck.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from miras_search.metrics import METRICS, unfit
from miras_search.models.config import ModelConfig
from miras_search.seeds import FIRST_CONFIRM_SEED
from miras_search.space.fields import Plain, Problem, SpecError, nearest
from miras_search.space.sampling import Space
from miras_search.study.levels import Variant
from miras_search.study.schema import Pruner, Sampler, SearchFile

KNOWN_BEFORE = ("params", "state_bytes", "flops_per_token")
"""Costs that a design has before it is trained: one over its limit is refused and costs nothing."""
LIMITED = (*KNOWN_BEFORE, "peak_memory_bytes", "wall_seconds")
FEWEST_RACES = 3  # jobs of a trial that the Wilcoxon pruner can say something after
FEWEST_LOOKS = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Objective:
    """One number that is sought, as a job records it."""

    name: str
    split: str
    direction: Literal["maximize", "minimize"]


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """The search of a study of `kind: search`."""

    space: Space
    written: Plain
    """The space as the file has it."""
    objectives: tuple[Objective, ...]
    constraints: Mapping[str, float]
    """Cost -> the most that it may be."""
    sampler: Sampler
    sampler_seed: int
    pruner: Pruner
    presets: bool
    """Whether published designs that lie in the space are tried first."""
    trials: int
    top: int
    confirm_seeds: tuple[int, ...]
    """None of a search's seeds is among them."""
    batch: int | None
    """How many trials are asked for at once, and told together; None: each as soon as there is room."""

    @property
    def paths(self) -> tuple[str, ...]:
        """What the space names."""
        return tuple(self.written) if isinstance(self.written, dict) else ()

    @property
    def compared(self) -> dict[str, Plain]:
        """What decides which trials there are, as plain data: all but how many, which may grow."""
        return {
            "space": self.written,
            "objectives": {it.name: it.direction for it in self.objectives},
            "constraints": dict(self.constraints),
            "sampler": self.sampler,
            "sampler_seed": self.sampler_seed,
            "pruner": self.pruner,
            "presets": self.presets,
            "batch": self.batch,
        }

    @property
    def extent(self) -> dict[str, Plain]:
        """How far it goes, as plain data."""
        return {"trials": self.trials, "top": self.top, "confirm_seeds": list(self.confirm_seeds)}


def search(file: SearchFile, base: Variant, tasks: int) -> Search:
    """The search that a file describes around its base. Raises `SpecError` with every problem."""
    problems: list[Problem] = []
    objectives = _objectives(file.objectives, problems)
    constraints = _constraints(file.constraints, problems)
    problems += _about_seeds(file.seeds)
    problems += _about_pruner(file, objectives, base, tasks)
    space: Space | None = None
    try:
        model: ModelConfig = base.model
        configs = {"model": model, "train": base.train}
        dims = ((model.memory_keys, model.values),)
        space = Space.parse(file.space, ("space",), base=base.design, configs=configs, dims=dims)
        problems += _about_sampler(file, objectives, space)
    except SpecError as error:
        problems += error.problems
    if problems or space is None:
        raise SpecError(problems)
    seeds = range(FIRST_CONFIRM_SEED, FIRST_CONFIRM_SEED + file.confirm.seeds)
    return Search(
        space=space,
        written=_plain(file.space),
        objectives=objectives,
        constraints=constraints,
        sampler=file.sampler,
        sampler_seed=file.sampler_seed,
        pruner=file.pruner,
        presets=file.presets,
        trials=file.trials,
        top=file.confirm.top,
        confirm_seeds=tuple(seeds) if file.confirm.top else (),
        batch=file.schedule,
    )


def _plain(value: object) -> Plain:
    """The file's own data, which is plain."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    assert value is None or isinstance(value, bool | int | float | str)
    return value


def _objectives(given: Mapping[str, object], problems: list[Problem]) -> tuple[Objective, ...]:
    found = []
    for name, direction in given.items():
        where = ("objectives", name)
        if name not in METRICS:
            problems.append(Problem(where, f"unknown metric{nearest(name, METRICS)}"))
        elif why := unfit(name):
            problems.append(Problem(where, why))
        elif direction != METRICS[name].direction:
            problems.append(Problem(where, f"{name} is better the other way: write {METRICS[name].direction}"))
        else:
            split = "validation" if METRICS[name].split else ""
            found.append(Objective(name, split, METRICS[name].direction))
    if not given:
        problems.append(Problem(("objectives",), "nothing is sought: name a metric, as in {accuracy: maximize}"))
    return tuple(found)


def _constraints(given: Mapping[str, object], problems: list[Problem]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, limit in given.items():
        where = ("constraints", name)
        if name not in LIMITED:
            problems.append(Problem(where, f"no cost that can be limited{nearest(name, LIMITED)}"))
        elif isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
            problems.append(Problem(where, f"expected the most that it may be, a number above 0, got {limit!r}"))
        else:
            found[name] = float(limit)
    return found


def _about_seeds(seeds: tuple[int, ...]) -> list[Problem]:
    if max(seeds) < FIRST_CONFIRM_SEED:
        return []
    what = f"seeds from {FIRST_CONFIRM_SEED} on are kept for the confirmation: take smaller ones"
    return [Problem(("seeds",), what)]


def _about_pruner(file: SearchFile, objectives: Sequence[Objective], base: Variant, tasks: int) -> list[Problem]:
    """Why the pruner could not work."""
    if file.pruner == "none":
        return []
    where = ("pruner",)
    if len(file.objectives) > 1:
        return [Problem(where, f"{file.pruner} ranks by one objective and there are {len(file.objectives)}: take none")]
    if objectives and not objectives[0].split:
        return [Problem(where, f"{objectives[0].name} has no curve to judge a trial by: take none")]
    if file.pruner == "wilcoxon":
        jobs = len(file.seeds) * tasks
        what = f"wilcoxon races seeds and tasks, and a trial has {jobs} of them: set seeds: {FEWEST_RACES} or more"
        return [Problem(where, what)] if jobs < FEWEST_RACES else []
    looks = base.train.steps // base.train.eval_every if base.train.eval_every else 0
    if looks < FEWEST_LOOKS:
        every = max(1, base.train.steps // 9)
        what = f"{file.pruner} judges by looks at the validation split on the way: set train.eval_every: {every}"
        return [Problem(where, what)]
    return []


def _about_sampler(file: SearchFile, objectives: Sequence[Objective], space: Space) -> list[Problem]:
    """Why the sampler could not draw from this space."""
    if file.sampler != "cmaes":
        return []
    where = ("sampler",)
    if len(objectives) > 1:
        return [Problem(where, "cmaes seeks one objective: take nsga2 or tpe for several")]
    asked = space.distributions()
    words = [name for name, it in asked.items() if type(it).__name__ == "CategoricalDistribution"]  # Optuna is not ours
    if words:
        what = f"cmaes draws numbers only, and {words[0]} is a choice: take tpe, or leave numbers alone in the space"
        return [Problem(where, what)]
    if len(asked) < 2:
        return [Problem(where, "cmaes needs at least two numbers to draw: take tpe or qmc")]
    return []
