"""`space NAME`: an axis, option, preset, task, metric, key of a study or setting, by its name or its path."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from miras_search.commands import study_page
from miras_search.commands.common import emit, say
from miras_search.commands.entries import key_lines, option_text, setting_line, settings_lines, task_text
from miras_search.errors import MirasError
from miras_search.metrics import METRICS
from miras_search.space.design import AXES
from miras_search.space.facts import option_facts, settings_of
from miras_search.space.fields import nearest
from miras_search.space.presets import PRESETS
from miras_search.study.homes import SETTINGS
from miras_search.study.keys import keys
from miras_search.tasks import facts as task_facts


@dataclass(frozen=True, slots=True)
class Named:
    """One thing of a name; several may share it (`l2` is a bias and a retention gate)."""

    kind: str
    lines: Sequence[str]
    data: object


def show(names: Sequence[str], as_json: bool) -> None:
    """Print what each name stands for. Raises `MirasError`, before anything is printed, for a name of nothing."""
    found = {name: [*_of_space(name), *_of_studies(name), *_settings(name)] for name in names}
    for name, things in found.items():
        if not things:
            raise MirasError(f"{name}: {_nothing(name)}")
    if as_json:
        emit({"named": {name: [{it.kind: it.data} for it in things] for name, things in found.items()}})
    else:
        say("\n\n".join("\n".join(it.lines) for things in found.values() for it in things))


def _of_space(name: str) -> Iterator[Named]:
    """Axes, options and presets of the name."""
    if name in AXES:
        options = [option_facts(name, cls) for cls in AXES[name].options.values()]
        data = {"name": name, "chooses": AXES[name].chooses, "options": [one.to_plain() for one in options]}
        yield Named("axis", [f"{name}: {AXES[name].chooses}", *map(option_text, options)], data)
    for axis in AXES.values():
        if name in axis.options:
            option = option_facts(axis.name, axis.options[name])
            yield Named("option", [axis.name, option_text(option)], option.to_plain())
    if name in PRESETS:
        known = PRESETS[name]
        lines = ["preset", f"  {name}: spelled out by `miras-search space --preset {name}`"]
        lines += [f"      {known.equation}", f"      {known.source}"]
        yield Named("preset", lines, {"name": name, "equation": known.equation, "source": known.source})


def _of_studies(name: str) -> Iterator[Named]:
    """Tasks, metrics, keys of a study file, and blocks of settings."""
    for task in task_facts():
        if task.name == name:
            yield Named("task", ["task", task_text(task)], task)
    if name in METRICS:
        metric = METRICS[name]
        about = ", ".join(filter(None, (metric.unit, f"to {metric.direction}", metric.split or "a cost")))
        yield Named("metric", ["metric", f"  {name}: {metric.help} ({about})"], metric)
    mine = [key for key in keys() if name in (key.name, key.name.rpartition(".")[2]) or key.name.startswith(f"{name}.")]
    for where in dict.fromkeys(key.where for key in mine):
        there = [key for key in mine if key.where == where]
        yield Named("key", [f"key of a study file, {where}", *key_lines(there)], [key.to_plain() for key in there])
    block = "gate" if name == "step" else name
    if block in SETTINGS:
        found = settings_of(SETTINGS[block])
        lines = [
            f"{name}, a gate: its settings" if block == "gate" else f"{name}: its settings",
            *settings_lines(found),
        ]
        yield Named("settings", lines, {one.name: one.to_plain() for one in found})


def _settings(name: str) -> Iterator[Named]:
    """Settings of options, of blocks and of tasks, by their name or the path at which they are set."""
    place, _, last = name.rpartition(".")
    owners = [(axis.name, option, cls) for axis in AXES.values() for option, cls in axis.options.items()]
    owners += [("step" if block == "gate" else block, "", cls) for block, cls in SETTINGS.items()]
    for block, option, cls in owners:
        for it in settings_of(cls):
            if it.name == last and place in ("", block):
                of = "a gate" if block == "step" else " ".join(filter(None, (block, option)))
                yield Named("setting", [f"{block}.{last}, a setting of {of}", *settings_lines([it])], it.to_plain())
    for task in task_facts():
        for known in task.settings:
            if known.name == name:
                lines = [f"{name}, a setting of the task {task.name}", setting_line(name, known.default, known.help)]
                yield Named("setting", lines, known)


def _nothing(name: str) -> str:
    """What to do about a name of nothing: it may be told elsewhere, or misspelled."""
    if re.search(rf"[`{{ ]{re.escape(name)}[`:]", study_page.page()):
        return "it is told on the page of the study file: see `miras-search space --study --markdown`"
    tasks = (task.name for task in task_facts())
    options = (option for axis in AXES.values() for option in axis.options)
    near = nearest(name, {*AXES, *options, *PRESETS, *tasks, *SETTINGS, *METRICS, *(key.name for key in keys())})
    cure = near if "did you mean" in near else "; `miras-search space` lists them"
    return f"neither PATH=VALUE, as in bias=dot, nor an axis, option, preset, task, metric, key or setting{cure}"
