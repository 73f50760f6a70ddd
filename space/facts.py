"""Everything that is known of an option, as one object, for the command line, the documentation and the dashboard.

Names, equations and settings come from the option's class; couplings, the rules that can refuse it, from
`combinations`.
"""

from __future__ import annotations

import dataclasses
import types
import typing

from miras_search.space.combinations import choices, couplings
from miras_search.space.execution import Gradient
from miras_search.space.fields import Plain, field_types, help_of
from miras_search.space.gates import Gate
from miras_search.space.option import Facts, origin

WORDS: dict[object, str] = {
    float: "number",
    int: "whole number",
    bool: "true or false",
    str: "word",
    Gate: "gate",
    Gradient: "exact | frozen | {refined: n}",
}


@dataclasses.dataclass(frozen=True, slots=True)
class SettingFacts:
    """One setting of an option."""

    name: str
    type: str
    """In words: `number`, `whole number`, `true or false`, `gate`, or the choices as `half | full`."""
    choices: tuple[Plain, ...]
    """The values that it can have, where they can be listed."""
    default: Plain
    help: str

    def to_plain(self) -> dict[str, Plain]:
        """As JSON data, without the name."""
        return {"type": self.type, "choices": list(self.choices), "default": self.default, "help": self.help}


@dataclasses.dataclass(frozen=True, slots=True)
class OptionFacts:
    """An option of an axis."""

    name: str
    axis: str
    summary: str
    equation: str
    source: str
    """Where it was published."""
    settings: tuple[SettingFacts, ...]
    module: str
    """The module that registers it."""
    plugin: str | None
    """That module again where it is a user's own, not this package's."""

    @property
    def couplings(self) -> tuple[str, ...]:
        """Reasons of the rules that can refuse it because of what it is combined with; found when first asked for."""
        return couplings().get((self.axis, self.name), ())

    def to_plain(self) -> dict[str, Plain]:
        """As JSON data; settings by name."""
        return {
            "name": self.name,
            "axis": self.axis,
            "summary": self.summary,
            "equation": self.equation,
            "source": self.source,
            "settings": {setting.name: setting.to_plain() for setting in self.settings},
            "couplings": list(self.couplings),
            "module": self.module,
            "plugin": self.plugin,
        }


def option_facts(axis: str, cls: type[Facts]) -> OptionFacts:
    """The facts of an option's class."""
    came_from = origin(cls)
    return OptionFacts(
        name=cls.name,
        axis=axis,
        summary=(cls.__doc__ or "").strip().partition("\n")[0],
        equation=cls.equation,
        source=cls.source,
        settings=settings_of(cls),
        module=cls.__module__,
        plugin=None if came_from is None else came_from.module,
    )


def settings_of(cls: type) -> tuple[SettingFacts, ...]:
    """The settings of an option's class, or of any other dataclass whose fields are `setting`s."""
    hints, helps = field_types(cls), help_of(cls)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    return tuple(
        SettingFacts(name, type_text(hint), choices(hint) or (), _plain(defaults[name]), helps[name])
        for name, hint in hints.items()
    )


def type_text(hint: object) -> str:
    """A setting's type in words."""
    origin_, args = typing.get_origin(hint), typing.get_args(hint)
    if origin_ is typing.Literal:
        return " | ".join(map(str, args))
    if origin_ in (typing.Union, types.UnionType):
        return " | ".join("none" if arg is types.NoneType else type_text(arg) for arg in args)
    if origin_ is tuple:
        return f"list of {type_text(args[0])}"
    return WORDS.get(hint) or str(getattr(hint, "__name__", hint))


def _plain(default: object) -> Plain:
    if hasattr(default, "to_plain"):
        return typing.cast(Plain, default.to_plain())
    return list(default) if isinstance(default, tuple) else typing.cast(Plain, default)
