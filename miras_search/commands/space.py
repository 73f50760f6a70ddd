"""`space`: what can be chosen. Axes, options, presets and tasks, with equations and settings; nothing here loads torch.

Only `--kernels` does, because which kernel runs a point depends on the device.
"""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from miras_search.commands.common import Json, JsonOption, emit, grid, inline, mapping, say
from miras_search.errors import MirasError

WIDTH = 110


def space(
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="One published model, spelled out.")] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="The tasks and their settings.")] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Which implementation runs each preset and option, and why not a faster one."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What can be chosen: axes, options, presets, tasks.

    Each with its equation, source and settings.
    """
    if sum((preset is not None, tasks, kernels)) > 1:
        raise MirasError("space: --preset, --tasks and --kernels show different things: give one of them")
    if preset is not None:
        _show_preset(preset, as_json)
    elif tasks:
        _show_tasks(as_json)
    elif kernels:
        _show_kernels(as_json)
    else:
        _show_axes(as_json)


def _show_axes(as_json: bool) -> None:
    from miras_search.space.design import AXES
    from miras_search.space.option import describe
    from miras_search.space.presets import PRESETS
    from miras_search.space.rules import RULES

    axes = {
        name: {"chooses": axis.chooses, "options": [describe(option) for option in axis.options.values()]}
        for name, axis in AXES.items()
    }
    rules = [{"where": ".".join(map(str, rule.where)), "reason": rule.reason} for rule in RULES]
    presets = [{"name": one.name, "equation": one.equation, "source": one.source} for one in PRESETS.values()]
    if as_json:
        emit({"axes": axes, "rules": rules, "presets": presets})
        return
    for name, axis in axes.items():
        say(f"{name}: {axis['chooses']}")
        for option in axis["options"]:
            say(_option(mapping(option)))
        say("")
    say("presets (spelled out by --preset NAME)")
    say(grid([[one["name"], one["equation"]] for one in presets], indent="  "))
    say("\nrules: which combinations are refused")
    for rule in rules:
        say(_wrapped(f"{rule['where']}: {rule['reason']}", "  ", "    "))


def _option(facts: Json | object) -> str:
    """One option or task: name with summary, equation, source, settings."""
    option = mapping(facts)
    lines = [_wrapped(f"{option['name']}: {option['summary']}", "  ", "      ")]
    lines += [f"      {option[key]}" for key in ("equation", "source") if option.get(key)]
    for name, setting in mapping(option["settings"]).items():
        said = mapping(setting)
        lines.append(_wrapped(f"{name} = {inline(said['default'])}: {said['help']}", "      ", "        "))
    return "\n".join(lines)


def _show_preset(name: str, as_json: bool) -> None:
    from miras_search.space.design import CHOICES
    from miras_search.space.option import describe, short
    from miras_search.space.presets import PRESETS, preset

    point = preset(name)
    known = PRESETS[name]
    choices = {axis: getattr(point, axis) for axis in CHOICES}
    plain = point.to_plain()
    if as_json:
        emit(
            {
                "name": name,
                "equation": known.equation,
                "source": known.source,
                "design": plain,
                "hash": point.hash,
                "options": {axis: describe(type(option)) for axis, option in choices.items()},
            }
        )
        return
    say(f"{name}\n  {known.equation}\n  {known.source}\n")
    rows = [[axis, short(option), option.equation] for axis, option in choices.items()]
    rows += [["step", str(point.step), ""], ["execution", str(point.execution), ""]]
    say(grid(rows, indent="  "))
    say(f"\n  design {point.hash}; in a study:\n\n    base: {name}\n\n  or spelled out:\n\n    base:")
    for key, value in plain.items():
        say(f"      {key}: {inline(value)}")


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
    for task in tasks:
        say(_option(task))


def _show_kernels(as_json: bool) -> None:
    from miras_search.commands.implementations import implementations

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
        say(_wrapped(f"{reason}: {', '.join(dict.fromkeys(options))}", "", "    "))


def _wrapped(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )
