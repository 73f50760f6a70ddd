"""The top level of a study file: which keys there are, their types, and what this version does not run yet.

Only the top level is pydantic's. What lies below (designs, model, training, tasks) is built by the dataclasses that own
it, and both kinds of complaint become `Problem`s with the same wording.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from miras_search.metrics import METRICS, unfit
from miras_search.space.fields import Plain, Problem, SpecError, nearest
from miras_search.study.designs import Design
from miras_search.study.homes import meant_in_file
from miras_search.training.job import Kernels

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""Of a study."""
MAX_SEEDS = 1000
MAX_PACK = 1024
MAX_TRIALS = 100_000
SYNC_BATCH = 8
Sampler = Literal["tpe", "random", "nsga2", "nsga3", "gp", "qmc", "cmaes"]
Pruner = Literal["hyperband", "asha", "median", "wilcoxon", "none"]
MAX_SECONDS = 1000 * 86400.0
MAX_SEED = 2**31 - 1  # what an integer column of any database holds
WRITTEN = "written"
"""In a key's extra: its default as a file writes it, where that is not the value that is read from it."""

_OTHER_KIND = {
    "search": "belongs to kind: ablation; a search chooses by space, objectives and constraints",
    "ablation": "belongs to kind: search; an ablation lists its levels under vary",
}
_NEEDED = {
    "name": "'name' is missing: one word by which the database knows the study",
    "task": "'task' is missing: a task's name and settings, or a list of them",
    "base": "'base' is missing: a preset's name, or the four choices spelled out",
    "space": "'space' is missing: what may be chosen, as in `space: {bias: any, train.lr: [1e-3, 3e-3]}`",
}


def _seeds(value: object) -> tuple[int, ...]:
    """A count (0 .. n-1) or a list of different seeds."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SEEDS:
            raise PydanticCustomError("seeds", f"{value} is not a number of seeds between 1 and {MAX_SEEDS}")
        return tuple(range(value))
    good = isinstance(value, list) and all(isinstance(s, int) and not isinstance(s, bool) for s in value)
    if not good or not value:
        raise PydanticCustomError("seeds", f"expected how many seeds, or a list of whole numbers, got {value!r}")
    seeds = cast(list[int], value)
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise PydanticCustomError("seeds", f"{seed} is not a seed between 0 and {MAX_SEED}")
        if seeds.count(seed) > 1:
            raise PydanticCustomError("seeds", f"{seed} is there twice: the same training would count as two")
    if len(seeds) > MAX_SEEDS:
        raise PydanticCustomError("seeds", f"{len(seeds)} seeds are more than {MAX_SEEDS}")
    return tuple(seeds)


def _metric(value: object) -> str:
    if not isinstance(value, str) or value not in METRICS:
        raise PydanticCustomError("metric", f"unknown metric {value!r}{nearest(str(value), METRICS)}")
    if why := unfit(value):
        raise PydanticCustomError("metric", why)
    return value


def _schedule(value: object) -> int | None:
    """None for async, else how many trials are asked for at once."""
    if value == "async":
        return None
    if value == "sync":
        return SYNC_BATCH
    batch = value["sync"] if isinstance(value, dict) and list(value) == ["sync"] else None
    if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= MAX_SEEDS:
        what = f"expected async, sync, or sync with how many trials at once, 1 to {MAX_SEEDS}, got {value!r}"
        raise PydanticCustomError("schedule", what)
    return batch


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


def _pack(value: object) -> int | Literal["auto"]:
    """auto, off (1), or how many jobs are trained in a process at most."""
    if value == "auto":
        return "auto"
    if value == "off" or value is False:  # YAML 1.1's off
        return 1
    if isinstance(value, int) and value is not True and 1 <= value <= MAX_PACK:
        return value
    raise PydanticCustomError("pack", f"{value!r} is none of auto, off, and a number of jobs between 1 and {MAX_PACK}")


_DURATION = re.compile(" ?".join(rf"(?:(\d+(?:\.\d+)?) ?{unit})?" for unit in ("d", "h", "min", "s")))


def _duration(value: object) -> float:
    """Seconds of a duration as a person writes it: `90 s`, `10 min`, `2 h 30 min`, `1 d`."""
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    counts = found.groups(default="0") if found else ("0",) * 4
    seconds = sum(float(count) * unit for count, unit in zip(counts, (86400, 3600, 60, 1), strict=True))
    if not 0 < seconds <= MAX_SECONDS:
        what = f"{value!r} is no duration up to 1000 d: write it as 90 s, 10 min, 2 h 30 min or 1 d"
        raise PydanticCustomError("duration", what)
    return seconds


def _saving(value: object) -> float | None:
    """Seconds between snapshots, None for none."""
    return None if value == "off" or value is False else _duration(value)


class Resources(_Model):
    """What one process is given, and how far a run may go: what a job finds differs by rounding at most (`kernels`)."""

    cpus: int = Field(
        default=1, ge=1, le=1024, description="threads of a process, so that a run has cores / cpus of them"
    )
    gpus: float = Field(default=0.0, ge=0, le=64, description="GPUs of a process; 0.25 puts four on one")
    pack: Annotated[int | Literal["auto"], PlainValidator(_pack)] = Field(
        default="auto",
        description="how many jobs of one shape a process trains at once: auto, off or a number; auto packs on a GPU",
    )
    kernels: Kernels = Field(
        default="auto",
        description="auto: Triton's on a GPU, torch's operators on a CPU; torch: never Triton; compiled: operators "
        "made into machine code for the CPU",
    )
    gpu_hours: float | None = Field(default=None, ge=0.001, description="what the study may spend in all its runs")
    wall: Annotated[float | None, PlainValidator(_duration)] = Field(
        default=None, description="how long one run may take: 90 s, 10 min, 2 h 30 min, 1 d"
    )
    save_every: Annotated[float | None, PlainValidator(_saving)] = Field(
        default=600.0,
        json_schema_extra={WRITTEN: "10 min"},
        description="time between snapshots, from which a training goes on that was interrupted; off: none",
    )
    silence: Annotated[float, PlainValidator(_duration)] = Field(
        default=1800.0,
        json_schema_extra={WRITTEN: "30 min"},
        description="time without a word after which a worker counts as hanging; enough to compile and tune kernels",
    )

    @model_validator(mode="after")
    def _spendable(self) -> Resources:
        if self.gpu_hours is not None and not self.gpus:
            raise PydanticCustomError("gpu_hours", "a study without GPUs spends no gpu_hours: set gpus, or limit wall")
        return self

    @model_validator(mode="after")
    def _compilable(self) -> Resources:
        if self.kernels == "compiled" and self.gpus:
            raise PydanticCustomError("kernels", "kernels: compiled is code for a CPU: take auto where there are gpus")
        return self


class _Shared(_Model):
    """The keys of every study. Values typed `object` are read by the room that owns them."""

    name: str = Field(pattern=NAME, description="one word by which the database knows the study")
    question: str = Field(default="", description="what it asks, as a sentence; shown wherever the study is")
    plugins: list[str] = Field(default=[], description="modules of your own with options or tasks (extending.md)")
    task: object = Field(description="a task's name and settings, or a list of them: each cell is trained on each")
    model: dict[str, object] = Field(
        default={}, description="settings of the model around the memory, the same for all cells"
    )
    train: dict[str, object] = Field(default={}, description="settings of the training, the same for all cells")
    base: object = Field(description="what all is compared with: a preset, the four choices, or a preset refined")
    execution: object = Field(default=None, description="one execution held for every cell, whatever its preset says")
    resources: Resources = Field(default=Resources(), description="what a process is given, and how far a run may go")


class StudyFile(_Shared):
    """The keys of an ablation study."""

    kind: Literal["ablation"] = Field(default="ablation", description="a study of declared cells")
    vary: dict[str, object] = Field(
        default={}, description="dotted path -> list of levels; what becomes of them says design"
    )
    design: Design = Field(default="one_at_a_time", description="which combinations of levels are cells (designs.md)")
    resolution: int = Field(
        default=3, ge=3, le=5, description="of design: fractional; 4 clears main effects of interactions"
    )
    controls: list[object] = Field(default=[], description="negative controls, as rows under the table")
    controls_on: Literal["base", "cells"] = Field(default="base", description="cells: every cell under every control")
    tune: dict[str, object] = Field(
        default={},
        description="settings chosen for each cell alike, by validation on seeds that are not reported: paths with "
        "values, seeds, failed",
    )
    top_up: dict[str, object] = Field(
        default={}, description="more seeds for what is undecided, declared before: max_seeds, looks, spending, failed"
    )
    match: object = Field(
        default="none", description="cells resized to the base's cost: params, state, flops, or {params: {within: 0.1}}"
    )
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = Field(
        default=tuple(range(10)),
        json_schema_extra={WRITTEN: 10},
        description="how many, or a list of them; shared by all cells",
    )
    metric: Annotated[str, BeforeValidator(_metric)] = Field(
        default="accuracy", description="what cells are judged by: accuracy, loss, or a cost"
    )


class Confirm(_Model):
    """How many of the best are trained again, and on how many fresh seeds; none at all with `top: 0`."""

    top: int = Field(default=5, ge=0, le=100, description="how many of the best; 0: none, and no table")
    seeds: int = Field(default=10, ge=1, le=MAX_SEEDS, description="fresh seeds of each of them and of the base")


class SearchFile(_Shared):
    """The keys of a search."""

    kind: Literal["search"] = Field(description="designs drawn from a space")
    space: object = Field(description="path -> what may be chosen there")
    objectives: dict[str, object] = Field(
        default={"accuracy": "maximize"}, description="metric -> maximize or minimize; quality is read on validation"
    )
    constraints: dict[str, object] = Field(default={}, description="cost -> the most that it may be")
    sampler: Sampler = Field(default="tpe", description="Optuna's")
    sampler_seed: int = Field(default=0, ge=0, le=MAX_SEED, description="what the sampler draws with")
    pruner: Pruner = Field(default="none", description="Optuna's: which trials end early")
    presets: bool = Field(
        default=True, description="try published designs that lie in the space first, at most half of all"
    )
    trials: int = Field(
        default=100, ge=1, le=MAX_TRIALS, description="points to evaluate; raise it and run again to go on"
    )
    confirm: Confirm = Field(default=Confirm(), description="the best, trained again on fresh seeds")
    schedule: Annotated[int | None, BeforeValidator(_schedule)] = Field(
        default=None,
        json_schema_extra={WRITTEN: "async"},
        description="async; or sync, {sync: 8}: so many trials at once, repeatable",
    )
    rival: dict[str, object] = Field(
        default={}, description="the same search by other means: sampler, sampler_seed, pruner, presets, schedule"
    )
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = Field(
        default=(0,),
        json_schema_extra={WRITTEN: 1},
        description="how many a trial has in the search, or a list of them",
    )


AnyFile = StudyFile | SearchFile


def parse(data: Mapping[str, Plain]) -> AnyFile:
    """The top level of a study. Raises `SpecError` with every problem found in it."""
    cls: type[AnyFile]
    other: type[AnyFile]
    cls, other = (SearchFile, StudyFile) if data.get("kind") == "search" else (StudyFile, SearchFile)
    problems: list[Problem] = []
    if data.get("controls_on") == "cells" and not data.get("controls"):
        problems.append(Problem(("controls_on",), "there is no control for the cells: add `controls: [no_write]`"))
    if "resolution" in data and data.get("design") != "fractional":
        problems.append(Problem(("resolution",), "it belongs to design: fractional; drop it"))
    kind = "search" if cls is SearchFile else "ablation"
    problems += [
        Problem((key,), _OTHER_KIND[kind])
        for key in data
        if key in other.model_fields and key not in cls.model_fields and (key,) not in [it.where for it in problems]
    ]
    known = {key: value for key, value in data.items() if (key,) not in [problem.where for problem in problems]}
    try:
        parsed = cls.model_validate(known)
    except ValidationError as error:
        told = [_problem(one, cls) for one in error.errors(include_url=False)]
        raise SpecError([*problems, *told]) from error
    if problems:
        raise SpecError(problems)
    return parsed


def _problem(error: ErrorDetails, cls: type[AnyFile]) -> Problem:
    """A pydantic error in the project's wording."""
    where, kind, value = error["loc"], error["type"], error["input"]
    context = error.get("ctx", {})
    if kind == "missing":
        return Problem(where[:-1], _NEEDED.get(str(where[-1]), f"'{where[-1]}' is missing"))
    inner: dict[str, type[BaseModel]] = {"resources": Resources, "confirm": Confirm}
    fields = inner.get(str(where[0]), cls).model_fields if len(where) > 1 else cls.model_fields
    if kind == "extra_forbidden":
        key = str(where[-1])
        blocks = {block: model.model_fields for block, model in inner.items()}
        hint = meant_in_file(key, value, fields, blocks) if len(where) == 1 else nearest(key, fields)
        return Problem(where, f"unknown key{hint}")
    if kind == "literal_error":
        known = [str(word) for word in getattr(fields[str(where[-1])].annotation, "__args__", ())]
        known = ["ablation", "search"] if where == ("kind",) else known
        return Problem(where, f"unknown {where[-1]} {value!r}{nearest(str(value), known)}")
    if kind == "string_pattern_mismatch":
        what = "is not a name: use letters, digits, '.', '_' and '-', at most 100, beginning with a letter or digit"
        return Problem(where, f"{value!r} {what}")
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"at least {context['ge']:g}" if "ge" in context else f"at most {context['le']:g}"
        return Problem(where, f"{value!r} must be {bound}")
    expected = {
        "string_type": "a word",
        "int_type": "a whole number",
        "float_type": "a number",
        "list_type": "a list",
        "bool_type": "true or false",
        "dict_type": "a mapping of settings",
        "model_type": "a mapping of settings",
    }
    what = f"expected {expected[kind]}, got {value!r}" if kind in expected else error["msg"]
    return Problem(where, what)
