"""Axes and their options: registered by decorator, found everywhere by name.

An option is a frozen dataclass with its facts as class variables; its fields are its settings. In YAML and in plain
data it is written as its name (`l2`) or as one key with settings (`{huber: {form: norm, delta: 0.5}}`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from miras_search.space.fields import Path, Plain, SpecError, build, nearest, to_plain
from miras_search.space.gates import Gate


class Facts(Protocol):
    """What every option tells about itself; shown by the CLI, the docs and the dashboard."""

    name: ClassVar[str]
    equation: ClassVar[str]
    source: ClassVar[str]


O = TypeVar("O", bound=Facts)  # noqa: E741  # O for option, as B, H, K, V are used elsewhere
C = TypeVar("C", bound=type)


class RegistrationError(ValueError):
    """A class that cannot be an option of the axis it registers on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """The user's module that an option comes from, and the hash of its source."""

    module: str
    digest: str


ORIGINS: dict[type, Origin] = {}  # filled by `plugins`; the package's own options have none


def origin(cls: type) -> Origin | None:
    """Where an option's class comes from; None for the package's own."""
    return ORIGINS.get(cls)


@dataclasses.dataclass(frozen=True)
class Axis(Generic[O]):
    """One axis of the design space: its name, what it chooses, and the options registered on it."""

    name: str
    chooses: str
    options: dict[str, type[O]] = dataclasses.field(default_factory=dict)

    def register(self, cls: C) -> C:
        """Class decorator: make the option known by its `name`. Raises `RegistrationError`."""
        option = cast(type[O], cls)
        name: object = getattr(option, "name", None)
        if not isinstance(name, str):
            raise RegistrationError(
                f"{self.name}: the class {cls.__name__} has no name: give it a `name: ClassVar[str]`"
            )
        if name in self.options:
            owner = self.options[name].__module__
            taken = f"an option named '{name}' is already registered by {owner}"
            raise RegistrationError(f"{self.name}: {taken}: give yours another name")
        self.options[name] = option
        return cls

    def parse(self, spec: object, where: Path = ()) -> O:
        """The option that a name, or a mapping `{name: settings}`, spells.

        Raises `SpecError` naming the nearest option or setting.
        """
        name, settings = split(spec, where)
        if name not in self.options:
            raise SpecError.at(where, f"unknown {self.name} '{name}'{nearest(name, self.options)}")
        inner = (*where, name) if isinstance(spec, Mapping) else where
        return build(self.options[name], settings, inner)


def split(spec: object, where: Path = ()) -> tuple[str, Mapping[str, object]]:
    """Name and settings of an option's plain form."""
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, settings),) = spec.items()
        return str(name), {} if settings is None else cast(Mapping[str, object], settings)
    raise SpecError.at(where, f"expected a name, or one name with its settings, got {spec!r}")


def spell(option: Facts) -> dict[str, Plain]:
    """The option's full plain form, every setting spelled out."""
    return {option.name: to_plain(option)}


def short(option: Facts) -> str:
    """The option as text, with the settings that name it or differ from their defaults: `lp(p=1.5)`."""
    parts = []
    for field in dataclasses.fields(cast(Any, option)):
        value = getattr(option, field.name)
        if field.init and (value != field.default or field.metadata.get("named")):
            parts.append(f"{field.name}={value}")
    return f"{option.name}({', '.join(parts)})" if parts else option.name


def gates_of(option: Facts) -> dict[str, Gate]:
    """The option's gates by field name."""
    fields = dataclasses.fields(cast(Any, option))
    return {field.name: getattr(option, field.name) for field in fields if isinstance(field.default, Gate)}
