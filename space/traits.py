"""What makes a class an option of an axis: the members that kernels and rules ask for, and answers where it has none.

The package's own options spell their traits out, and mypy compares them with the axis' protocol. A class from a user's
module is completed here when the module is loaded, so that it says only what is special about it, and is told at once
what it lacks.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any, ClassVar, Protocol

from miras_search.space.algorithm import Algorithm, Descent
from miras_search.space.bias import Bias
from miras_search.space.control import Control, Unchanged
from miras_search.space.fields import FieldError, field_types
from miras_search.space.gates import Gate, fixed
from miras_search.space.jit import Jit
from miras_search.space.memory import Memory, Network
from miras_search.space.option import gates_of
from miras_search.space.retention import Dual, Retention


class _Loss:
    """The answers of a bias that promises nothing: a signal that only the general path can follow."""

    couples_channels: ClassVar[bool] = True
    slope: ClassVar[float | None] = None
    triton: ClassVar[Jit | None] = None

    @property
    def threshold_scopes(self) -> tuple[str, ...]:
        """One threshold a head, where there is one."""
        return ("head",) if gates_of(self) else ()  # type: ignore[arg-type]  # copied into a class with Facts

    def loss(self, p: object, v: object, threshold: object) -> None:
        """None is written down."""


class _Retained(Dual):
    """The answers of a dual gate that keeps everything and minimises nothing that is written down."""

    objective: ClassVar[str] = ""
    keep: ClassVar[Gate] = fixed(1.0)


AXIS_MEMBERS: dict[str, tuple[type, type]] = {
    "memory": (Memory, Network),
    "bias": (Bias, _Loss),
    "retention": (Retention, _Retained),
    "algorithm": (Algorithm, Descent),
    "control": (Control, Unchanged),
}
"""By axis its protocol, and a class with the answers for what an option need not say itself."""

PASSED: dict[str, tuple[str, ...]] = {"memory": (), "bias": ("delta",), "retention": ("keep",), "control": ()}
"""By axis the gates that options are given, by field name; algorithms are given all of theirs."""
TAKEN = ("step", "keep", "delta", "threshold")  # slots of others, which an algorithm's own gate cannot be called

_ABSENT = object()


def _canonical(self: object) -> object:
    """Itself."""
    return self


def members(axis: str) -> dict[str, str]:
    """The members that the axis' protocol asks for, each with what it is, in the order of the protocol."""
    found: dict[str, str] = {}
    for cls in reversed(AXIS_MEMBERS[axis][0].__mro__):
        if cls in (object, Protocol) or cls.__module__ == "typing":
            continue
        for name in (*inspect.get_annotations(cls), *vars(cls)):
            if not name.startswith("_"):
                found[name] = (getattr(vars(cls).get(name), "__doc__", None) or "").strip().partition("\n")[0]
    return found


def required(axis: str) -> list[str]:
    """The members that an option of the axis must have itself."""
    return [name for name in members(axis) if _answer(axis, name) is _ABSENT]


def complete(axis: str, cls: type[Any]) -> list[str]:
    """Give an option's class the answers that it lacks; what it must say itself and does not is returned, in words."""
    protocol, _ = AXIS_MEMBERS[axis]
    problems = _shape(cls) or _unheard(axis, cls)
    for name, about in members(axis).items():
        own = inspect.getattr_static(cls, name, _ABSENT)
        if own is not _ABSENT and own is not inspect.getattr_static(protocol, name, _ABSENT):
            problems += _mismatch(protocol, cls, name)
            continue
        answer = _answer(axis, name)
        if answer is _ABSENT:
            problems.append(f"it lacks '{name}'" + (f": {about}" if about else ""))
        else:
            setattr(cls, name, f"the module {cls.__module__}" if name == "source" else answer)
    return problems or _unusable(cls)


def _answer(axis: str, name: str) -> object:
    """What is filled in for a member, or `_ABSENT`."""
    everywhere = {"canonical": _canonical, "source": ""}
    return inspect.getattr_static(AXIS_MEMBERS[axis][1], name, everywhere.get(name, _ABSENT))


def _shape(cls: type[Any]) -> list[str]:
    """What is wrong with it as a dataclass of settings."""
    if "__dataclass_params__" not in vars(cls):
        return ["it is no dataclass: write @dataclass(frozen=True, slots=True) below the line that registers it"]
    problems = (
        [] if cls.__dataclass_params__.frozen else ["its dataclass can be changed: write @dataclass(frozen=True)"]
    )
    bare = [field.name for field in dataclasses.fields(cls) if field.init and "named" not in field.metadata]
    problems += [f"its setting '{name}' has no default with help: write setting(default, help)" for name in bare]
    return problems


def _unheard(axis: str, cls: type[Any]) -> list[str]:
    """What it has that nothing would ever ask for."""
    gates = [field.name for field in dataclasses.fields(cls) if isinstance(field.default, Gate)]
    problems = []
    if axis in PASSED:
        known = " or ".join(f"'{name}'" for name in PASSED[axis]) or "none"
        unknown = [name for name in gates if name not in PASSED[axis]]
        problems = [f"its gate '{name}' would not reach it: the gates of a {axis} are {known}" for name in unknown]
    else:
        problems = [f"its gate cannot be called '{name}': that is a gate of others" for name in gates if name in TAKEN]

    def own(name: str) -> bool:
        return inspect.getattr_static(cls, name, None) not in (None, _answer(axis, name))

    if axis == "retention" and own("step") and not own("form"):
        problems.append("its step would not be taken, because its form is dual: derive it from Primal")
    return problems


def _mismatch(protocol: type, cls: type[Any], name: str) -> list[str]:
    """Whether a method cannot be called as the protocol has it."""
    asked, own = inspect.getattr_static(protocol, name, None), inspect.getattr_static(cls, name)
    if not isinstance(asked, types.FunctionType) or not isinstance(own, types.FunctionType):
        return []
    wanted = inspect.signature(asked)
    try:
        inspect.signature(own).bind(*wanted.parameters)
    except TypeError:
        return [f"its {name}{_arguments(own)} is called as {name}{_arguments(asked)}"]
    return []


def _arguments(function: types.FunctionType) -> str:
    return f"({', '.join(inspect.signature(function).parameters)})"


def _unusable(cls: type[Any]) -> list[str]:
    """Whether it cannot be made by its name alone."""
    field_types(cls)  # resolved while its module can be found by name; raises where an annotation cannot be
    try:
        cls()
    except FieldError as error:
        return [f"its defaults are refused: {error}"]
    return []
