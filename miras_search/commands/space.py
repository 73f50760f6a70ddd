"""`space`: what can be chosen. Axes, options, presets and tasks, with equations and settings; nothing here loads torch.

Only `--kernels` does, because which kernel runs a point depends on the device, and a plugin that imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miras_search.commands.common import JsonOption, emit, grid, inline, many, say
from miras_search.commands.entries import option_text, task_text, wrapped
from miras_search.errors import EnvironmentProblem, MirasError

if TYPE_CHECKING:
    from miras_search.models.config import ModelConfig
    from miras_search.space.design import DesignPoint


def space(
    choices: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME | PATH=VALUE]...",
            help="Names, as in bias or huber or train: what is known of them. Or choices, as in memory=mlp "
            "bias.delta=0.5: the design that they make, or why there is none.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="One published model, spelled out; choices refine it.")
    ] = None,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--plugins", metavar="MODULE", help="A module of your own with options, in this folder. Repeatable."
        ),
    ] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="The tasks and their settings.")] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Which implementation runs each preset and option, and why not a faster one."),
    ] = False,
    study: Annotated[
        bool, typer.Option("--study", help="The keys of a study file, and the settings of model and training.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The space, or with --study the study file, as a page of Markdown.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What can be chosen: axes, options, presets, tasks, and what a study file may say.

    Each with its equation, source and settings. With names: these alone. With choices: the design that they make, or
    each reason against it.
    """
    if sum((preset is not None or bool(choices), tasks, kernels, study or markdown)) > 1:
        raise MirasError(
            "space: --tasks, --kernels, --study, --markdown, and names or a design show different things: give one"
        )
    if markdown and as_json:
        raise MirasError("space: --markdown and --json are two forms of one answer: give one")
    from miras_search.space import plugins as own

    own.use(own.find(plugins or (), Path()))
    if choices and preset is None and not any("=" in one for one in choices):
        from miras_search.commands import space_names

        space_names.show(choices, as_json)
    elif choices:
        _show_design(choices, preset, as_json)
    elif preset is not None:
        _show_preset(preset, as_json)
    elif tasks:
        _show_tasks(as_json)
    elif kernels:
        _show_kernels(as_json)
    elif study:
        from miras_search.commands import study_page

        if markdown:
            say(study_page.page())
        else:
            study_page.show(as_json)
    elif markdown:
        from miras_search.commands.space_page import page

        say(page())
    else:
        _show_axes(as_json)


def _show_axes(as_json: bool) -> None:
    from miras_search.space.combinations import count
    from miras_search.space.design import AXES
    from miras_search.space.facts import option_facts
    from miras_search.space.presets import PRESETS
    from miras_search.space.rules import RULES

    facts = {name: [option_facts(name, option) for option in axis.options.values()] for name, axis in AXES.items()}
    rules = [{"where": ".".join(map(str, rule.where)), "reason": rule.reason} for rule in RULES]
    presets = [{"name": one.name, "equation": one.equation, "source": one.source} for one in PRESETS.values()]
    combinations = count()
    if as_json:
        axes = {
            name: {"chooses": axis.chooses, "options": [one.to_plain() for one in facts[name]]}
            for name, axis in AXES.items()
        }
        emit({"axes": axes, "rules": rules, "presets": presets, "combinations": combinations})
        return
    for name, axis in AXES.items():
        say(f"{name}: {axis.chooses}")
        for option in facts[name]:
            say(option_text(option))
        say("")
    say("presets (spelled out by --preset NAME)")
    say(grid([[one["name"], one["equation"]] for one in presets], indent="  "))
    say("\nrules: which combinations are refused")
    for rule in rules:
        say(wrapped(f"{rule['where']}: {rule['reason']}", "  ", "    "))
    say(
        f"\ncombinations\n  {combinations.valid:,} are valid of {combinations.written:,} structural ones, "
        f"{combinations.different:,} of them different functions"
    )
    about = "structural: an option on each axis, its settings that are words or true or false, and where gradients "
    say(wrapped(f"{about}are taken; numbers, gates and controls at their defaults", "  ", "  "))


def _show_design(choices: Sequence[str], preset: str | None, as_json: bool) -> None:
    """The design of some choices. Raises `SpecError` with each problem and each rule that refuses it."""
    from miras_search.models import fit
    from miras_search.models.config import ModelConfig
    from miras_search.space.design import DesignPoint
    from miras_search.study import levels
    from miras_search.study.document import assignment
    from miras_search.training.config import TrainConfig

    given: dict[str, object] = {}
    for path, level in map(assignment, choices):
        if path in given:
            raise MirasError(f"{path}: it is given twice: leave one out")
        given[path] = level
    variant = levels.Variant(DesignPoint(), ModelConfig(), TrainConfig())
    if preset is not None:
        variant = levels.applied(variant, levels.PRESET, preset, levels.Held(), (levels.PRESET,))
    for path in given:
        levels.check_path(path, (path,))
    for path in levels.application_order(given):
        variant = levels.applied(variant, path, given[path], levels.Held(), (path,))
    fit.check(variant.design, variant.model)
    point, model = variant.design, variant.model
    if as_json:
        emit({"design": point.to_plain(), "hash": point.hash, "options": _facts_of(point)})
        return
    say(grid(_rows(point), indent="  "))
    say(f"\n  valid with {_heads(model)}")
    _spell_out(point, [], {})


def _heads(model: ModelConfig) -> str:
    return f"{many(model.memory_keys, 'key channel')} and {many(model.values, 'value channel')} a head"


def _facts_of(point: DesignPoint) -> dict[str, object]:
    from miras_search.space.design import CHOICES
    from miras_search.space.facts import option_facts

    if point.mixer is not None:
        return {}
    return {axis: option_facts(axis, type(getattr(point, axis))).to_plain() for axis in CHOICES}


def _rows(point: DesignPoint) -> list[list[str]]:
    from miras_search.space.design import CHOICES
    from miras_search.space.option import short

    if point.mixer is not None:
        return [["mixer", f"{point.mixer.module}", f"source {point.mixer.digest}"]]
    choices = {axis: getattr(point, axis) for axis in CHOICES}
    rows = [[axis, short(option), option.equation] for axis, option in choices.items()]
    return [*rows, ["step", str(point.step), ""], ["execution", str(point.execution), ""]]


def _spell_out(point: DesignPoint, shorter: Sequence[str], model: Mapping[str, object]) -> None:
    lines = [f"\n  design {point.hash}; in a study:\n", *(f"    {line}" for line in shorter)]
    say("\n".join([*lines, *(["\n  or spelled out:\n"] if shorter else []), "    base:"]))
    for key, value in point.to_plain().items():
        say(f"      {key}: {inline(value)}")
    if model:
        say(f"    model: {inline(dict(model))}")


def _show_preset(name: str, as_json: bool) -> None:
    from miras_search.space.presets import PRESETS, preset

    point, known = preset(name), PRESETS[name]
    if as_json:
        emit(
            {
                "name": name,
                "equation": known.equation,
                "source": known.source,
                "design": point.to_plain(),
                "model": dict(known.model),
                "hash": point.hash,
                "options": _facts_of(point),
            }
        )
        return
    say(f"{name}\n  {known.equation}\n  {known.source}\n")
    around = [["model", inline(dict(known.model)), "unless the study says otherwise"]] if known.model else []
    say(grid([*_rows(point), *around], indent="  "))
    _spell_out(point, [f"base: {name}"], known.model)


def _show_tasks(as_json: bool) -> None:
    from miras_search.tasks import facts

    tasks = [
        {
            "name": task.name,
            "summary": task.summary,
            "source": task.source,
            "settings": {one.name: {"default": one.default, "help": one.help} for one in task.settings},
        }
        for task in facts()
    ]
    if as_json:
        emit({"tasks": tasks})
        return
    for task in facts():
        say(task_text(task))


def _show_kernels(as_json: bool) -> None:
    try:
        from miras_search.commands.implementations import implementations
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EnvironmentProblem("space --kernels: torch is not installed: pip install torch") from None

    found = implementations()
    if as_json:
        emit({"implementations": found})
        return
    rows = [["", "cpu", "cuda"]]
    for one in found:
        names = {choice.device: choice.name for choice in one.choices}
        rows.append([f"{one.axis} {one.option}", names.get("cpu", "-"), names.get("cuda", "-")])
    say(grid(rows))
    reasons: dict[str, list[str]] = {}
    for one in found:
        label = f"{one.axis} {one.option}"
        if one.refused:
            reasons.setdefault(one.refused, []).append(label)
        for choice in one.choices:
            for name, reason in choice.passed_over:
                if choice.device == "cuda":
                    reasons.setdefault(f"not {name} on cuda: {reason}", []).append(label)
    say("")
    for reason, options in reasons.items():
        say(wrapped(f"{reason}: {', '.join(dict.fromkeys(options))}", "", "    "))
