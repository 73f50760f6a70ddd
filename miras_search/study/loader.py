"""Read a study file: from YAML text to a `Study`, or to every problem in it, one line each.

    bias.yaml:12:21: vary.bias.3.huber.detla: unknown setting (did you mean 'delta'?)

Nothing here imports torch, Ray, Optuna or SQLAlchemy, so that checking a study takes a fraction of a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TypeVar, cast

from miras_search.metrics import METRICS
from miras_search.models.config import ModelConfig
from miras_search.space import plugins
from miras_search.space.design import DesignPoint
from miras_search.space.execution import Execution
from miras_search.space.fields import Path, Plain, Problem, SpecError, build, nearest
from miras_search.space.plugins import Plugin
from miras_search.space.presets import PRESETS
from miras_search.study import cells, document, levels, match, rival, schema, shipped
from miras_search.study.document import Document
from miras_search.study.drafts import Cell, Grid
from miras_search.study.levels import Held, Variant
from miras_search.study.match import Resizer
from miras_search.study.problems import Located, Place, StudyError
from miras_search.study.schema import AnyFile, SearchFile, StudyFile
from miras_search.study.search import Search, search
from miras_search.study.study import Axis, Study, StudyTask
from miras_search.study.top_up import top_up
from miras_search.study.tune import tuning
from miras_search.tasks import task_from_spec, task_to_spec
from miras_search.training.config import TrainConfig

__all__ = ["Axis", "Cell", "Located", "Study", "StudyError", "StudyTask", "load", "loads"]

T = TypeVar("T")

LARGEST_FILE = 2**20


def load(path: str | FilePath, overrides: Sequence[str] = (), name: str | None = None) -> Study:
    """The study in a file.

    A bare name (`bias`) with no such file is looked up among the shipped studies; `Study.shipped` tells. Overrides are
    `train.steps=20` or `vary.bias=[dot, l2]`, with YAML values; `name` replaces the study's name.
    Raises `StudyError` with every problem at its file, line and column.
    """
    text, place, is_shipped = _text(str(path))
    return loads(text, place, overrides, name, shipped=is_shipped)


def loads(
    text: str, path: str, overrides: Sequence[str] = (), name: str | None = None, *, shipped: bool = False
) -> Study:
    """The study in a text; `path` is what error lines call it. Raises `StudyError`.

    Its plugins are looked for beside `path`, and are in force from here on, instead of those of another study.
    """
    source = document.read(text, path, overrides, name)
    try:
        found = plugins.find(_plugin_names(source.data.get(plugins.KEY, [])), FilePath(path).parent)
        plugins.use(found)  # before anything is parsed: it may be one of their options
    except SpecError as error:
        raise source.error(error.problems) from error
    parts = _Parts(source.data)
    try:
        file = schema.parse(source.data)
    except SpecError as error:
        raise source.error([*error.problems, *parts.problems]) from error
    if parts.problems:
        raise source.error(parts.problems)
    try:
        study = _study(file, parts, source, path, found, shipped)
        if not isinstance(file, SearchFile) or not file.rival:
            return study
        other = [*overrides, *rival.overrides(file.rival)]
        try:
            against = loads(text, path, other, rival.name(study.name), shipped=shipped)
        except StudyError as error:
            raise SpecError([Problem((rival.KEY,), one.what) for one in error.problems]) from error
        rival.check(study, against)
        return replace(study, rival=against)
    except SpecError as error:
        raise source.error(error.problems) from error


def _text(path: str) -> tuple[str, str, bool]:
    """The text of a study, the path that error lines call it by, and whether it is a shipped one."""
    file = FilePath(path)
    found = shipped.find(path)
    try:
        if not file.is_file() and found is not None:
            return found.read_text(encoding="utf-8"), str(found), True
        with file.open("rb") as opened:  # not to its end: it may have none
            content = opened.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise StudyError.at(Place(path), "larger than 1 MiB: name a study file")
        return content.decode("utf-8-sig"), path, False
    except FileNotFoundError as error:
        cure = nearest(file.name.removesuffix(".yaml"), shipped.names())
        what = f"no such file, and no study of that name ships with the package{cure}"
        raise StudyError.at(Place(path), what) from error
    except UnicodeDecodeError as error:
        raise StudyError.at(Place(path), f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise StudyError.at(Place(path), f"cannot be read: {error.strerror}; name a study file") from error


def _plugin_names(given: Plain) -> list[str]:
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return cast(list[str], given)
    raise SpecError.at((plugins.KEY,), f"expected a list of modules' names, as in [my_module], got {given!r}")


class _Parts:
    """The nested parts of a file, each built by the room that owns it; the problems of all of them."""

    def __init__(self, data: Mapping[str, Plain]) -> None:
        self.problems: list[Problem] = []
        given = data.get("model")
        self.written = given if isinstance(given, dict) else {}  # the schema tells of anything but a mapping
        self.preset = _preset_name(data.get("base"))
        self.model = self._try(lambda: levels.preset_model(self.preset, self.written, ("model",)), ModelConfig())
        self.train = self._try(lambda: _settings(TrainConfig, data, "train"), TrainConfig())
        # a missing task or base is told by the schema
        self.tasks: tuple[StudyTask, ...] = self._try(lambda: _tasks(data["task"]) if "task" in data else (), ())
        self.base = self._try(lambda: DesignPoint.parse(data.get("base", {}), ("base",)), DesignPoint())
        self.held: dict[str, Plain] = self._try(lambda: _held(data.get("execution")), {})

    def _try(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` gives; on a problem, a stand-in that nobody sees because the problem is raised."""
        try:
            return read()
        except SpecError as error:
            self.problems.extend(error.problems)
            return otherwise


def _settings(cls: type[T], data: Mapping[str, Plain], key: str) -> T:
    given = data.get(key)
    return build(cls, given if isinstance(given, dict) else {}, (key,))  # the schema tells of anything but a mapping


def _preset_name(base: Plain) -> str | None:
    """The preset that a base is, or is built on."""
    named = base.get("preset") if isinstance(base, dict) else base
    return named if isinstance(named, str) and named in PRESETS else None


def _held(given: Plain) -> dict[str, Plain]:
    """The settings of `execution:`, checked; none for `own`."""
    if given is None or given == "own":
        return {}
    if not isinstance(given, dict):
        raise SpecError.at(("execution",), f"expected settings that every cell keeps, or own, got {given!r}")
    build(Execution, given, ("execution",))
    return given


def _tasks(given: Plain) -> tuple[StudyTask, ...]:
    """The tasks with their names in tables: the task's name, with the settings given where two share it."""
    is_list = isinstance(given, list)
    entries = cast(list[Plain], given) if is_list else [given]
    problems: list[Problem] = []
    found: list[tuple[dict[str, Plain], dict[str, Plain]]] = []  # as written, in full
    for i, entry in enumerate(entries):
        where: Path = ("task", i) if is_list else ("task",)
        written: Plain = {"name": entry} if isinstance(entry, str) else entry
        try:
            if not isinstance(written, dict):
                raise SpecError.at(where, f"expected a task's name, or its name and settings, got {entry!r}")
            full = task_to_spec(task_from_spec(written, where))
            if full in [other for _, other in found]:
                raise SpecError.at(where, f"the task {full['name']!r} is listed twice with the same settings; drop one")
            found.append((written, full))
        except SpecError as error:
            problems.extend(error.problems)
    if not entries:
        problems.append(Problem(("task",), "the list is empty: name at least one task"))
    if problems:
        raise SpecError(problems)
    shared = Counter(str(full["name"]) for _, full in found)
    return tuple(StudyTask(_task_name(written, shared), full) for written, full in found)


def _task_name(written: Mapping[str, Plain], shared: Mapping[str, int]) -> str:
    name = str(written["name"])
    settings = ", ".join(f"{key}={value}" for key, value in written.items() if key != "name")
    return f"{name}({settings})" if shared[name] > 1 and settings else name


def _study(
    file: AnyFile, parts: _Parts, source: Document, path: str, modules: tuple[Plugin, ...], is_shipped: bool
) -> Study:
    base = levels.with_execution(parts.base, parts.held, ("execution",))
    refined = isinstance(file.base, dict) and list(file.base) != ["preset"]
    around = Variant(base, parts.model, parts.train)
    listed = file if isinstance(file, StudyFile) else None
    grid = Grid(
        base=around,
        preset=str(base.mixer) if base.mixer else None if refined else parts.preset,
        vary=listed.vary if listed else {},
        design=listed.design if listed else "one_at_a_time",
        resolution=listed.resolution if listed else 3,
        controls=listed.controls if listed else (),
        controls_on=listed.controls_on if listed else "base",
        held=Held(parts.held, parts.written),
        own_execution=file.execution == "own",
    )
    matched = match.parse(listed.match) if listed else None
    resizer = None
    if listed is not None and matched is not None:
        resizer = Resizer(matched, [task.spec for task in parts.tasks], frozenset({*listed.vary, *listed.tune}))
    found, array = cells.build(grid, resizer)
    tuned = tuning(listed.tune, found, grid, file.seeds, listed.metric) if listed else None
    own = tuned.seeds if tuned else ()
    sought: Search | None = search(file, around, len(parts.tasks)) if isinstance(file, SearchFile) else None
    return Study(
        name=file.name,
        question=" ".join(file.question.split()),
        kind=file.kind,
        design=listed.design if listed else "search",
        metric=listed.metric if listed else _sought_metric(sought),
        seeds=file.seeds,
        tasks=parts.tasks,
        model=found[0].model,
        train=found[0].train,
        base=found[0].design,
        base_name=found[0].name,
        cells=found,
        axes=_axes(found),
        controls=tuple(cell.name for cell in found if cell.role == "control"),
        resources=file.resources,
        execution=_execution(found) if sought is None else _searched_execution(sought, found[0]),
        mixed=grid.own_execution and levels.mixed_execution(cell.design for cell in found),
        yaml=source.text,
        path=path,
        shipped=is_shipped,
        plugins=modules,
        array=array,
        search=sought,
        match=matched,
        tuning=tuned,
        top_up=top_up(listed.top_up, file.seeds, listed.metric, own) if listed else None,
    )


def _sought_metric(sought: Search | None) -> str:
    """What tables of a search show: the first objective that tells how good a model is, else the first."""
    names = [it.name for it in sought.objectives] if sought else []
    return next((name for name in names if METRICS[name].split), names[0])


def _searched_execution(sought: Search, base: Cell) -> str:
    written = sought.written
    searched = isinstance(written, dict) and any(path.split(".")[0] == "execution" for path in written)
    return f"searched; the base {base.design.execution}" if searched else str(base.design.execution)


def _axes(found: Sequence[Cell]) -> tuple[Axis, ...]:
    paths = dict.fromkeys(path for cell in found for path in cell.levels)
    return tuple(
        Axis(
            path,
            found[0].levels.get(path),
            tuple(dict.fromkeys(cell.levels[path] for cell in found if path in cell.levels)),
        )
        for path in paths
    )


def _execution(found: Sequence[Cell]) -> str:
    """How the cells run, for a caption."""
    if len({cell.design.execution for cell in found}) == 1:
        return str(found[0].design.execution)
    if any(path.split(".")[0] == "execution" for cell in found for path in cell.changes):
        return f"varied; the base {found[0].design.execution}"
    if not levels.mixed_execution(cell.design for cell in found):
        shared = next(run for run in dict.fromkeys(cell.design.execution for cell in found) if _serves(run, found))
        return str(shared)
    return "mixed: each design its own"


def _serves(run: Execution, found: Sequence[Cell]) -> bool:
    """Whether every cell is what it is under this execution too."""
    return all(levels.with_execution(c.design, run.to_plain()).hash == c.design.hash for c in found)
