"""Build frozen dataclasses from plain data, with errors that name the place, the value and the cure.

Every configurable object of the project (options, gates, execution, model, training, tasks) is a dataclass whose fields
carry their own documentation. This module turns a mapping into one of them and back, with plain typing only, because a
GPU worker may have no pydantic. Ranges are the dataclass's own business: its `__post_init__` raises `FieldError`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from miras_search.errors import MirasError

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Path = tuple[str | int, ...]

LARGEST: Final[dict[type, float]] = {int: 2**31 - 1, float: 3.4e38}  # what databases' columns and float32 hold
LONGEST: Final = 600  # letters of what an error line says
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a specification: where (path of keys) and what (value and cure)."""

    where: Path
    what: str

    def __post_init__(self) -> None:
        if len(self.what) > LONGEST:  # a value of thousands of letters; the cure stands at the end
            object.__setattr__(self, "what", f"{self.what[: LONGEST // 2]} ... {self.what[-LONGEST // 2 :]}")

    def __str__(self) -> str:
        place = ".".join(str(part) for part in self.where)
        return f"{place}: {self.what}" if place else self.what


class SpecError(MirasError):
    """A specification that cannot be built; carries every problem found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    @classmethod
    def at(cls, where: Path, what: str) -> SpecError:
        """An error with a single problem."""
        return cls([Problem(where, what)])

    def moved(self, place: Path, to: Path) -> SpecError:
        """The same problems, those at `place` and below it at `to`, as whoever wrote that place knows it."""
        length = len(place)
        return SpecError(
            Problem((*to, *one.where[length:]), one.what) if one.where[:length] == place else one
            for one in self.problems
        )


class FieldError(ValueError):
    """Raised by a dataclass's `__post_init__`: the field's name and what is wrong with its value."""

    def __init__(self, field: str, what: str) -> None:
        self.field = field
        self.what = what
        super().__init__(f"{field}: {what}")


def require(condition: bool, field: str, what: str) -> None:
    """Raise `FieldError(field, what)` unless the condition holds."""
    if not condition:
        raise FieldError(field, what)


def nearest(word: str, known: Iterable[str]) -> str:
    """A ' (did you mean ...?)' or ' (known: ...)' suffix for an unknown word."""
    names = sorted(known)
    if not names:
        return " (there are none)"
    near = difflib.get_close_matches(word, names, n=1)
    return f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(names)})"


_RESOLVED: dict[type, dict[str, object]] = {}  # resolving annotations costs more than all the rest of `build`


def field_types(cls: type) -> dict[str, object]:
    """Resolved annotations of a dataclass's fields that can be set."""
    if cls not in _RESOLVED:
        hints = typing.get_type_hints(cls)
        _RESOLVED[cls] = {f.name: hints[f.name] for f in _fields(cls) if f.init}
    return _RESOLVED[cls]


def _fields(of: Any) -> tuple[dataclasses.Field[Any], ...]:
    """Those of a dataclass or an instance: the type that the stub asks for has no public name."""
    return dataclasses.fields(of)


def build(cls: type[T], data: object, where: Path = ()) -> T:
    """An instance of the dataclass `cls` from a mapping of its fields.

    A field whose type has a classmethod `from_plain(data, where, default)` (a Gate, an option) is built by it;
    `default` is the field's default, which a partial specification refines.
    Raises `SpecError` with every problem found, each at its own path.
    """
    if not isinstance(data, Mapping):
        raise SpecError.at(where, f"expected a mapping of settings, got {data!r}")
    hints, problems, values = field_types(cls), [], {}
    defaults = {f.name: f.default for f in _fields(cls)}
    for key, value in data.items():
        if key not in hints:
            problems.append(Problem((*where, key), f"unknown setting{nearest(str(key), hints)}"))
            continue
        try:
            values[key] = _coerce(hints[key], value, (*where, key), defaults[key])
        except SpecError as error:
            problems.extend(error.problems)
    for field in _fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and required and field.name not in data:
            problems.append(Problem(where, f"'{field.name}' is missing"))
    if problems:
        raise SpecError(problems)
    try:
        return cls(**values)
    except FieldError as error:
        raise SpecError.at((*where, error.field), error.what) from error


def _coerce(hint: object, value: object, where: Path, default: object = dataclasses.MISSING) -> object:
    """`value` as the annotated type, or a SpecError saying what was expected."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if types.NoneType in args and (value is None or (value == "none" and str not in args)):  # as it is printed
            return None
        return _coerce(next(a for a in args if a is not types.NoneType), value, where, default)
    if origin is typing.Literal:
        if isinstance(value, bool) or value not in args:
            suffix = nearest(str(value), map(str, args))
            raise SpecError.at(where, f"{value!r} is not one of {', '.join(map(str, args))}{suffix}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(args[0], item, (*where, i)) for i, item in enumerate(value))
    if hasattr(hint, "from_plain"):
        return hint.from_plain(value, where, default)
    return _scalar(hint, value, where)


def _scalar(hint: object, value: object, where: Path) -> object:
    largest = LARGEST.get(typing.cast(type, hint))
    if largest is not None and isinstance(value, int | float) and largest < abs(value) != math.inf:
        kind = "a whole number" if hint is int else "a number"
        raise SpecError.at(where, f"{value!r}: {kind} here is at most {largest}")
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if hint is bool and isinstance(value, bool):
        return bool(value)
    if hint is str and isinstance(value, str):
        return str(value)
    expected = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
    raise SpecError.at(where, f"expected {expected.get(typing.cast(type, hint), 'a list')}, got {value!r}")


def flow(value: object) -> str:
    """Plain data in one line and few words, nearly YAML: `none`, `0.5`, `{refined: 2}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def to_plain(instance: object) -> dict[str, Plain]:
    """The dataclass's fields as plain data (nested dataclasses by their own `to_plain`)."""
    return {f.name: _plain(getattr(instance, f.name)) for f in _fields(instance) if f.init}


def _plain(value: object) -> Plain:
    if hasattr(value, "to_plain"):
        return typing.cast(Plain, value.to_plain())
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return typing.cast(Plain, value)


def help_of(cls: type) -> dict[str, str]:
    """Help text of each field, from its metadata."""
    return {f.name: str(f.metadata.get("help", "")) for f in dataclasses.fields(cls) if f.init}


def setting(default: object, help: str, *, named: bool = False) -> typing.Any:  # returns what dataclasses.field does
    """A dataclass field with a default and its help text; a `named` one is part of the option's name in a table."""
    return dataclasses.field(default=default, metadata={"help": help, "named": named})
