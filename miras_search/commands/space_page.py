"""The design space as a page of Markdown, from the facts of its options: `miras-search space --markdown`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from miras_search.commands.entries import default_text
from miras_search.space.combinations import count
from miras_search.space.design import AXES
from miras_search.space.facts import OptionFacts, SettingFacts, option_facts
from miras_search.space.presets import PRESETS
from miras_search.space.rules import RULES

HEAD = """\
# The design space

Every option of every axis, with its equation, its source and its settings. This page is written by
`miras-search space --markdown`; how to add an option is in [extending.md](extending.md).
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, _combinations()]
    for name, axis in AXES.items():
        parts.append(f"## {name}: {axis.chooses}\n")
        parts += [_option(option_facts(name, cls)) for cls in axis.options.values()]
    rows = [[f"`{one.name}`", _code(one.equation), one.source] for one in PRESETS.values()]
    parts.append("## Presets\n\n" + table(["preset", "recurrence", "source"], rows))
    rules = [f"- `{'.'.join(map(str, rule.where))}`: {rule.reason}" for rule in RULES]
    parts.append("## Rules: which combinations are refused\n\n" + "\n".join(rules) + "\n")
    return "\n".join(parts)


def _combinations() -> str:
    found = count()
    return (
        f"{found.valid:,} of {found.written:,} structural combinations are valid, {found.different:,} of them\n"
        "different functions. A structural combination is an option on each axis with those of its settings that are\n"
        "words or true or false, and where gradients are taken; numbers, gates and controls are at their defaults.\n"
    )


def _option(option: OptionFacts) -> str:
    lines = [f"### {option.axis} `{option.name}`\n", f"{option.summary}\n", f"    {option.equation}\n"]
    if option.source:
        lines.append(f"Source: {option.source}.\n")
    if option.settings:
        lines.append(settings_table(option.settings))
    if option.couplings:
        lines += ["Refused where it does not fit:\n", *(f"- {reason}" for reason in option.couplings), ""]
    return "\n".join(lines)


def settings_table(settings: Iterable[SettingFacts]) -> str:
    """Settings with type, default and help."""
    rows = [[f"`{one.name}`", one.type, f"`{default_text(one.default)}`", one.help] for one in settings]
    return table(["setting", "type", "default", ""], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _code(equation: str) -> str:
    return f"`{equation}`"
