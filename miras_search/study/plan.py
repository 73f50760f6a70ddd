"""What a study will cost and what it can show, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from miras_search.metrics import saturation
from miras_search.models import fit
from miras_search.seeds import smallest_p
from miras_search.space.control import NoControl
from miras_search.space.fields import Plain, flow, to_plain
from miras_search.study.designs import Array
from miras_search.study.drafts import Cell
from miras_search.study.levels import CONFIGS, text_at
from miras_search.study.study import Study
from miras_search.study.top_up import ALPHA, TopUp
from miras_search.tasks import task_from_spec

FINAL = ("complete", "pruned", "diverged", "failed")
ENOUGH_SEEDS = 6  # the first number whose smallest p is below 0.05
FEWEST_SEEDS = 3  # below, a spread is not an estimate


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a study, the limits of its test, and what would confound it."""

    cells: int
    """Rows of the table: base, cells and controls."""
    tasks: int
    seeds: int
    jobs: int
    """cells x tasks x seeds, and the tuning's."""
    tuning_jobs: int
    """Of them those that choose settings: cells x settings x tasks x the tuning's own seeds."""
    done: Mapping[str, int]
    """Jobs by state, of those that the store knows."""
    remaining: int
    """Jobs without a result."""
    smallest_p: float
    """The smallest p that joint sign flips over the seeds can reach: 2 / 2^n."""
    family: int
    """Comparisons to the base on one task that the p-values are corrected for."""
    design: str
    array: Array | None
    """Of a design with less than all combinations: what is proved of those it has."""
    confounds: tuple[str, ...]
    """What else could explain a difference, one sentence each with its cure."""
    estimate_seconds: float | None
    """Wall time of the remaining jobs; None until a job has been timed."""
    top_up: TopUp | None = None
    top_up_jobs: int = 0
    """At most: should no look decide anything."""

    @property
    def last_seeds(self) -> int:
        """The seeds of what is decided last."""
        return self.seeds if self.top_up is None else self.top_up.looks[-1]

    @property
    def last_level(self) -> float:
        """What may be erred then."""
        return ALPHA if self.top_up is None else self.top_up.levels[-1]

    def to_plain(self) -> dict[str, Plain]:
        """As plain data, for `--json`."""
        return {
            "cells": self.cells,
            "tasks": self.tasks,
            "seeds": self.seeds,
            "jobs": self.jobs,
            "tuning_jobs": self.tuning_jobs,
            "done": dict(self.done),
            "remaining": self.remaining,
            "smallest_p": self.smallest_p,
            "family": self.family,
            "design": self.design,
            "array": self.array.to_plain() if self.array else None,
            "confounds": list(self.confounds),
            "estimate_seconds": self.estimate_seconds,
            "top_up": None if self.top_up is None else {**self.top_up.to_plain(), "jobs": self.top_up_jobs},
        }


def plan(
    study: Study,
    done: Mapping[str, int] | None = None,
    *,
    seconds_per_job: float | None = None,
    slots: int = 1,
    base: Mapping[str, float] | None = None,
    params: Mapping[int, float] | None = None,
) -> Plan:
    """The plan of a study.

    `done` counts the stored jobs by state; `seconds_per_job` is the mean wall time of those that ran, `slots` how many
    run at once, `base` the base's accuracy by task where it is known, `params` the measured parameters by trial number,
    as a multiple of the base's. Jobs that finished, diverged or failed are not run again.
    """
    jobs = study.jobs
    counts = {state: number for state, number in (done or {}).items() if number}
    remaining = max(0, jobs - sum(counts.get(state, 0) for state in FINAL))
    return Plan(
        cells=len(study.cells),
        tasks=len(study.tasks),
        seeds=len(study.seeds),
        jobs=jobs,
        tuning_jobs=jobs - len(study.cells) * len(study.tasks) * len(study.seeds),
        done=counts,
        remaining=remaining,
        smallest_p=smallest_p(len(study.seeds)),
        family=sum(cell.role == "cell" for cell in study.cells),
        design=study.design,
        array=study.array,
        confounds=(*confounds(study, params), *_saturated(study, base or {})),
        estimate_seconds=None if seconds_per_job is None else seconds_per_job * remaining / max(1, slots),
        top_up=study.top_up,
        top_up_jobs=_top_up_jobs(study),
    )


def _top_up_jobs(study: Study) -> int:
    """Trainings of the base and of all cells on the seeds that only top-ups train."""
    if study.top_up is None:
        return 0
    return len(study.top_up.extra) * sum(cell.role != "control" for cell in study.cells) * len(study.tasks)


def confounds(study: Study, params: Mapping[int, float] | None = None) -> list[str]:
    """What besides the varied axes could explain, or hide, a difference; `params` as for `plan`."""
    cells = [cell for cell in study.cells if cell.role == "cell"]
    found = _about_seeds(len(study.seeds), study.metric) + _about_looks(study)
    own = _own_settings(cells, study)
    found += [
        f"{path} differs beside the design: {values}, so a difference is one of {path} too; tune every cell alike, on "
        f"seeds of its own"
        for path, values in own.items()
    ]
    found += _surroundings(cells, study)
    found += _steps(cells, study)
    tuned = study.tuning.values if study.tuning else ()
    if cells and "train.lr" not in (*own, *tuned) and not _varies_rate(study):
        found.append(
            f"the learning rate is not tuned: every cell trains at lr {study.train.lr:g}, so a ranking may be one of "
            f"rates; set `tune: {{train.lr: [1e-3, 3e-3, 1e-2, 3e-2]}}`"
        )
    if study.match is not None:
        found.append(
            f"only {study.match.by} are matched, within {study.match.within:.0%}: other costs may differ; compare "
            f"their columns"
        )
        if study.match.by == "flops":
            found.append(
                "flops are the matrix products of the way that runs: in chunks, by sweeps, or token by token under a "
                "link, which counts less and takes longer; compare tokens/s"
            )
        if study.match.by == "state":
            found.append(
                "state is all that a stream carries at the end of the sequence, so the copies of the weights that "
                "refined chunks keep count too (exact and frozen ones keep fewer), and attention's pairs"
            )
    unmatched = [
        f"{cell.name}{_ratio(params, cell.number)}" for cell in cells if _budget(cell) != _budget(study.cells[0])
    ]
    if unmatched and study.match is None:
        have = "has" if len(unmatched) == 1 else "have"
        found.append(
            f"budgets are not matched: {_some(unmatched)} {have} other parameters or state than {study.base_name}; "
            f"compare the params and state columns"
        )
    found += _all_seeing(cells, study)
    if not study.controls:
        cure = "a layer of your own takes none, so put it into vary.preset and a preset into base"
        cure = "add `controls: [no_write]`" if study.base.mixer is None else cure
        found.append(f"no negative control shows what the model does without its memory: {cure}")
    found += _uncontrolled(study)
    if study.design == "pairwise":
        found.append(
            "pairwise cells differ from the base on several axes at once, and unevenly: screen with them, and measure "
            "an effect by a factorial or a fraction"
        )
    if study.mixed:
        found.append(
            "executions are mixed: each design runs its own, so a difference measures that too; "
            "hold one by `execution:`"
        )
    return found


def _all_seeing(cells: Sequence[Cell], study: Study) -> list[str]:
    """Hybrids whose attention has all of a task's sequence in its window: what they recall needs no memory."""
    shortest = min(study.tasks, key=lambda task: task_from_spec(task.spec).sequence_length)
    length = task_from_spec(shortest.spec).sequence_length
    whole = [cell for cell in cells if cell.model.attention_every and cell.model.attention_window >= length]
    if not whole:
        return []
    have, window = ("has", whole[0]) if len(whole) == 1 else ("have", whole[0])
    return [
        f"{_some([cell.name for cell in whole])} {have} full attention: a window of {window.model.attention_window} "
        f"holds all {length} tokens of {shortest.name}; set model.attention_window"
    ]


def _uncontrolled(study: Study) -> list[str]:
    """Cells that have no row under a control that the base has, with the rule that refuses it."""
    found = []
    for text, number in study.cells[0].controls.items():
        control = study.cells[number].design.control
        for cell in study.cells:
            if cell.role == "cell" and text not in cell.controls and cell.design.control == NoControl():
                point = dataclasses.replace(cell.design, control=control)
                reason = next((broken.what for broken in fit.violations(point, cell.model)), "")
                found.append(f"{cell.name} has no row under {text}, which its effect would have to survive: {reason}")
    return found


def _about_seeds(seeds: int, metric: str) -> list[str]:
    least = f"the smallest p is {smallest_p(seeds):.2g}"
    if seeds < FEWEST_SEEDS:
        count = "one seed" if seeds == 1 else f"{seeds} seeds"
        return [f"{count}: the spread of {metric} is not estimated and {least}; use at least {ENOUGH_SEEDS}"]
    if seeds < ENOUGH_SEEDS:
        return [f"{seeds} seeds: {least}, so nothing can be called decided at 0.05; use at least {ENOUGH_SEEDS}"]
    return []


def _about_looks(study: Study) -> list[str]:
    """Looks that cannot decide anything, however large an effect is."""
    if study.top_up is None:
        return []
    pairs = list(zip(study.top_up.looks, study.top_up.levels, strict=True))
    vain = [f"{count} (smallest p {smallest_p(count):.2g}, level {level:.2g})" for count, level in pairs if
            smallest_p(count) >= level]  # fmt: skip
    if not vain:
        return []
    return [
        f"the look at {' and at '.join(vain)} seeds cannot decide anything, and spends its share of the error: begin "
        f"with more seeds, or take fewer looks"
    ]


def _saturated(study: Study, base: Mapping[str, float]) -> list[str]:
    """The tasks on which the base, as far as it is trained, leaves no room above it or below."""
    known = [(base[task.name], task_from_spec(task.spec).chance) for task in study.tasks if task.name in base]
    found = [saturation(study.base_name, accuracy, chance) for accuracy, chance in known]
    return [said for said in found if said is not None]


def _own_settings(cells: Sequence[Cell], study: Study) -> dict[str, str]:
    """Settings of model and training that levels of `preset` bring, and the study does not vary: path -> values."""
    varied = {axis.path for axis in study.axes}
    brought = dict.fromkeys(path for cell in cells for path in cell.changes if path.split(".")[0] in CONFIGS)
    found: dict[str, str] = {}
    for path in (path for path in brought if path not in varied):
        values = {cell.name: cell.changes[path] for cell in cells if path in cell.changes}
        base = text_at(study.cells[0].variant, path)
        told = [f"{value} in {name}" for name, value in values.items()]
        found[path] = f"{_some(told)}, {base} in {study.base_name}"
    return found


def _surroundings(cells: Sequence[Cell], study: Study) -> list[str]:
    """Cells whose preset brings another layer around the memory than the base's has."""
    base = to_plain(study.cells[0].model)
    told = []
    for cell in cells:
        known = {*cell.changes, *cell.levels, *cell.sizes}
        mine = to_plain(cell.model)
        differ = (name for name in base if mine[name] != base[name] and f"model.{name}" not in known)
        other = [f"{name} {flow(mine[name])}" for name in differ]
        told += [f"{cell.name} ({', '.join(other)})"] if other else []
    if not told:
        return []
    return [
        f"presets bring their own layer around the memory, so a difference is one of that too: {_some(told)}; what the "
        "study says under `model:` holds for all"
    ]


def _steps(cells: Sequence[Cell], study: Study) -> list[str]:
    """Biases write in steps of different sizes, which alone may rank them."""
    varied = {cell.name for cell in cells if cell.design.mixer is None and cell.design.bias != study.base.bias}
    as_is = study.base.mixer is None and all(cell.train.inner_step == "as_is" for cell in study.cells)
    if not varied or not as_is or not any(axis.path.startswith("bias") for axis in study.axes):
        return []
    return [
        "each bias writes in steps of its own size, so a difference may be one of the inner step; "
        "`train: {inner_step: match_base}` gives every cell's first writes the size of the base's"
    ]


def _varies_rate(study: Study) -> bool:
    """Whether each design meets each learning rate of the study."""
    varied = {axis.path for axis in study.axes if axis.path != "control"}
    return "train.lr" in varied and (study.design == "factorial" or varied == {"train.lr"})


def _budget(cell: Cell) -> tuple[object, ...]:
    """What decides parameters and state: equal for two cells whose budgets are equal."""
    design, model = cell.design, cell.model
    if design.mixer is not None:
        return (design.mixer, *sorted(to_plain(model.canonical()).items()))
    gates = sorted((slot, gate.source, gate.scope) for slot, gate in design.gates.items() if gate.source != "fixed")
    return (
        design.memory.layers(model.memory_keys, model.values),
        sorted(design.static(model.memory_keys, model.values)),
        gates,
        (design.algorithm.keys, design.algorithm.values, design.algorithm.window, design.algorithm.has_momentum),
        sorted(to_plain(model.canonical()).items()),
    )


def _ratio(params: Mapping[int, float] | None, number: int) -> str:
    """The measured parameters beside the base's; nothing before both have run."""
    found = (params or {}).get(number)
    return "" if found is None else f" ({found:.3g} x the parameters)"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
