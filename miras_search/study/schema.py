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

    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus: Annotated[float, Field(ge=0, le=64)] = 0.0
    pack: Annotated[int | Literal["auto"], PlainValidator(_pack)] = "auto"
    """How many jobs of one shape a process trains at once."""
    kernels: Kernels = "auto"
    """torch: no Triton, whatever the device; compiled: torch's operators made into machine code for the CPU."""
    gpu_hours: Annotated[float, Field(ge=0.001)] | None = None
    """What the study may spend in all its runs."""
    wall: Annotated[float | None, PlainValidator(_duration)] = None
    """Seconds that one run may take."""
    save_every: Annotated[float | None, PlainValidator(_saving)] = 600.0
    """Seconds between snapshots of a training that goes on."""
    silence: Annotated[float, PlainValidator(_duration)] = 1800.0
    """Seconds without a word after which a worker counts as hanging; time enough to compile and tune kernels."""

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

    name: Annotated[str, Field(pattern=NAME)]
    question: str = ""
    plugins: list[str] = []
    task: object
    model: dict[str, object] = {}
    train: dict[str, object] = {}
    base: object
    execution: object = None
    resources: Resources = Resources()


class StudyFile(_Shared):
    """The keys of an ablation study."""

    kind: Literal["ablation"] = "ablation"
    vary: dict[str, object] = {}
    design: Design = "one_at_a_time"
    resolution: Annotated[int, Field(ge=3, le=5)] = 3
    controls: list[object] = []
    controls_on: Literal["base", "cells"] = "base"
    tune: dict[str, object] = {}
    top_up: dict[str, object] = {}
    match: object = "none"
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = tuple(range(10))
    metric: Annotated[str, BeforeValidator(_metric)] = "accuracy"


class Confirm(_Model):
    """How many of the best are trained again, and on how many fresh seeds; none at all with `top: 0`."""

    top: Annotated[int, Field(ge=0, le=100)] = 5
    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = 10


class SearchFile(_Shared):
    """The keys of a search."""

    kind: Literal["search"]
    space: object
    objectives: dict[str, object] = {"accuracy": "maximize"}
    constraints: dict[str, object] = {}
    sampler: Sampler = "tpe"
    sampler_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    pruner: Pruner = "none"
    presets: bool = True
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 100
    confirm: Confirm = Confirm()
    schedule: Annotated[int | None, BeforeValidator(_schedule)] = None
    rival: dict[str, object] = {}
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = (0,)


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
        return Problem(where, f"unknown key{nearest(str(where[-1]), fields)}")
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
