"""Options, tasks and keys as indented entries for a terminal: name with summary, what is known of it, its settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from miras_search.commands.common import inline

if TYPE_CHECKING:
    from miras_search.space.facts import OptionFacts, SettingFacts
    from miras_search.study.keys import Key
    from miras_search.tasks.base import TaskFacts

WIDTH = 110
NOTHING: tuple[object, ...] = (None, "", [], {})  # defaults that tell nothing


def option_text(option: OptionFacts) -> str:
    """One option: name with summary, equation, source, settings, and what can refuse it."""
    plugin = [f"from the plugin {option.plugin}"] if option.plugin else []
    lines = _head(option.name, option.summary, [option.equation, option.source, *plugin])
    lines += settings_lines(option.settings)
    lines += [wrapped(f"! {reason}", "      ", "        ") for reason in option.couplings]
    return "\n".join(lines)


def task_text(task: TaskFacts) -> str:
    """One task: name with summary, source, settings."""
    lines = _head(task.name, task.summary, [task.source])
    return "\n".join([*lines, *(setting_line(one.name, one.default, one.help) for one in task.settings)])


def settings_lines(settings: Iterable[SettingFacts]) -> list[str]:
    """A line or more a setting: its default, what it is for, and its words where it is one of few."""
    lines = []
    for setting in settings:
        words = f" ({setting.type})" if setting.choices and setting.type != "true or false" else ""
        lines.append(setting_line(setting.name, setting.default, f"{setting.help}{words}"))
    return lines


def key_lines(keys: Iterable[Key]) -> list[str]:
    """A line or more a key of a study file; those of a block lie below it."""
    lines = []
    for key in keys:
        start = f"{key.name}:" if key.default in NOTHING else f"{key.name} = {inline(key.default)}:"
        words = f" ({key.words})" if "|" in key.words else ""
        lines.append(wrapped(f"{start} {key.help}{words}", "    " if "." in key.name else "  ", "        "))
    return lines


def default_text(default: object) -> str:
    """A setting's default as a file writes it; `none` and not YAML's null, which means the same there."""
    return "none" if default is None else inline(default)


def wrapped(text: str, first: str, rest: str) -> str:
    """A paragraph in lines of at most WIDTH characters, the first and the further ones with their own indent."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )


def _head(name: str, summary: str, about: Sequence[str]) -> list[str]:
    return [wrapped(f"{name}: {summary}", "  ", "      "), *(f"      {line}" for line in about if line)]


def setting_line(name: str, default: object, help: str) -> str:
    """One setting: its default and what it is for."""
    return wrapped(f"{name} = {default_text(default)}: {help}", "      ", "        ")
