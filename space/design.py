"""A design point: the four choices, the step gate, execution and control; its canonical form, hash and text."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast, final

from miras_search.space.algorithm import ALGORITHM, Algorithm, Gd
from miras_search.space.bias import BIAS, L2, Bias
from miras_search.space.control import CONTROL, Control, NoControl
from miras_search.space.execution import Execution, Gradient
from miras_search.space.fields import Path, Plain, Problem, SpecError, build, field_types, nearest, to_plain
from miras_search.space.gates import FIXED, STEP, UNFIXED, Gate, Scope, effective, fixed, union
from miras_search.space.memory import MEMORY, Matrix, Memory
from miras_search.space.option import Axis, Facts, Origin, gates_of, origin, short, spell
from miras_search.space.own_mixer import OwnMixer
from miras_search.space.retention import RETENTION, NoRetention, Retention

AXES: dict[str, Axis[Any]] = {
    axis.name: cast(Axis[Any], axis) for axis in (MEMORY, BIAS, RETENTION, ALGORITHM, CONTROL)
}
CHOICES = ("memory", "bias", "retention", "algorithm")
KEYS = (*CHOICES, "step", "execution", "control", "mixer")


@final
@dataclasses.dataclass(frozen=True)
class DesignPoint:
    """One point of the design space, complete: a model's memory layer is this and shapes.

    Without slots, so that what follows from the choices is found once: kernels ask for it at every chunk and token.
    """

    memory: Memory = Matrix()
    bias: Bias = L2()
    retention: Retention = NoRetention()
    algorithm: Algorithm = Gd()
    step: Gate = STEP
    execution: Execution = Execution()
    control: Control = NoControl()
    mixer: OwnMixer | None = None
    """A layer of the user's own; it takes the place of all that stands above."""

    def __post_init__(self) -> None:
        if self.mixer is not None:  # chunks are a memory's: an execution that a study holds for all cells is not for it
            object.__setattr__(self, "execution", Execution())

    @classmethod
    def parse(cls, spec: object, where: Path = ()) -> DesignPoint:
        """A point from a preset's name, or a mapping of choices, optionally on top of `preset: NAME`.

        Raises `SpecError` with every problem at its path.
        """
        from miras_search.space.presets import preset  # presets are written as plain forms of this class

        if isinstance(spec, str):
            return preset(spec, where)
        if not isinstance(spec, Mapping):
            raise SpecError.at(where, f"expected a preset's name or the four choices, got {spec!r}")
        base = preset(str(spec["preset"]), (*where, "preset")) if "preset" in spec else cls()
        return base.refined({key: value for key, value in spec.items() if key != "preset"}, where)

    def refined(self, spec: Mapping[str, object], where: Path = ()) -> DesignPoint:
        """This point with some choices replaced; the step and the execution keep what the mapping does not name.

        Raises `SpecError` with every problem at its path.
        """
        values: dict[str, object] = {}
        problems: list[Problem] = []
        for key, value in spec.items():
            place = (*where, key)
            try:
                if key in AXES:
                    values[key] = AXES[key].parse(value, place)
                elif key == "step":
                    values[key] = Gate.from_plain(value, place, self.step)
                elif key == "execution":
                    if not isinstance(value, Mapping):
                        raise SpecError.at(place, f"expected settings of execution, got {value!r}")
                    values[key] = Execution.from_plain({**self.execution.to_plain(), **value}, place)
                elif key == "mixer":
                    values[key] = None if value is None else OwnMixer.from_plain(value, place)
                else:
                    raise SpecError.at(place, f"unknown key{nearest(str(key), [*KEYS, 'preset'])}")
            except SpecError as error:
                problems.extend(error.problems)
        if problems:
            raise SpecError(problems)
        return dataclasses.replace(self, **cast(dict[str, Any], values))

    def to_plain(self) -> dict[str, Plain]:
        """Everything spelled out, of a layer of the user's own just that; `parse` reads it back."""
        plain = self._spelled()
        if self.mixer is None:
            return plain
        usual = DesignPoint()._spelled()
        return {key: value for key, value in plain.items() if key not in usual or value != usual[key]}

    def _spelled(self) -> dict[str, Plain]:
        choices = {key: cast(Plain, spell(getattr(self, key))) for key in (*CHOICES, "control")}
        return {
            **choices,
            "step": cast(Plain, self.step.to_plain()),
            "execution": cast(Plain, self.execution.to_plain()),
            **({} if self.mixer is None else {"mixer": cast(Plain, self.mixer.to_plain())}),
        }

    def changed(self, path: str, level: object, where: Path = ()) -> DesignPoint:
        """This point with the choice or setting at a dotted path replaced: `bias`, `memory.expansion`.

        Raises `SpecError`: of a setting at `where`, the place of its level, else at the path; of a choice below it.
        """
        head, *rest = path.split(".")
        if head not in KEYS:
            raise SpecError.at(where, f"unknown axis '{path}'{nearest(head, KEYS)}")
        if not rest:
            return self.refined({head: level}, where)
        if head == "mixer" and self.mixer is None:
            raise SpecError.at(where, f"'{path}': the design has no layer of your own, whose settings these would be")
        plain = self._spelled()
        node = plain[head]
        if head == "mixer":  # read its source again: another class is another file, and arguments are checked on it
            cast(dict[str, Plain], node).pop("digest")
        if head in AXES:  # one level down: the option's name
            node = cast(dict[str, Plain], node)[getattr(self, head).name]
        for part in rest[:-1]:
            inner = cast(dict[str, Plain], node)
            if part not in inner:
                raise SpecError.at(where, f"'{path}': {head} has no setting '{part}'{nearest(part, inner)}")
            node = inner[part]
            if not isinstance(node, dict):
                raise SpecError.at(where, f"'{path}': '{part}' is {node!r} here and has no settings of its own")
        gate = cast(dict[str, Plain], node)
        if (
            head != "mixer"
            and gate.get("source") == "fixed"
            and rest[-1] in field_types(Gate)
            and rest[-1] not in FIXED
        ):
            raise SpecError.at(where, f"'{path}': {'.'.join([head, *rest[:-1]])} is fixed, {UNFIXED}")
        gate[rest[-1]] = cast(Plain, level)
        own = (head, getattr(self, head).name, *rest) if head in AXES else (head, *rest)
        try:
            return DesignPoint.parse(plain, where)
        except SpecError as error:
            raise error.moved((*where, *own), where or (head, *rest)) from None

    @functools.cached_property
    def gates(self) -> dict[str, Gate]:
        """The gates in use by slot: step, keep, momentum, threshold, and an algorithm's own by their names."""
        found = {"step": self.step, "keep": self.retention.keep}
        for name, gate in {**gates_of(self.bias), **gates_of(self.algorithm)}.items():
            found["threshold" if name == "delta" else name] = gate
        return found

    @functools.cached_property
    def scopes(self) -> dict[str, Scope]:
        """What has a value of its own in the gates that the kernels are given: keep, step, momentum, threshold."""
        return {**{slot: effective(gate) for slot, gate in self.gates.items()}, "step": self.step_scope}

    @property
    def step_scope(self) -> Scope:
        """What has a step of its own: where it is coupled, what has a step or a keep."""
        step, keep = self.algorithm.step_scope(self.step), effective(self.retention.keep)
        return (union(step, keep) or step) if self.retention.coupled else step

    @functools.cached_property
    def writes(self) -> int:
        """Writes a token, one after the other: the algorithm's, as often as the control has them made."""
        return self.algorithm.writes * self.control.repeats

    @functools.cached_property
    def descends(self) -> bool:
        """Whether the memory has weights that follow gradients; else it is solved for."""
        return self.algorithm.solution(self.memory) is None

    def static(self, key_dim: int, value_dim: int) -> dict[str, tuple[tuple[int, ...], float]]:
        """Parameters a head that only the outer loop trains: shape and starting value by name."""
        return {
            **self.memory.static(key_dim, value_dim),
            **self.retention.static(),
            **self.algorithm.static(key_dim, value_dim),
        }

    @property
    def chunked(self) -> bool:
        """Whether chunks are part of the function."""
        if not self.descends:
            return False
        tangent = self.execution.link_refresh != "token" and not self.retention.identity
        return self.execution.gradient.sweeps is not None or tangent

    def canonical(self) -> DesignPoint:
        """The simplest spelling of the same function: two spellings of one function become equal."""
        point = dataclasses.replace(
            self,
            memory=self.memory.canonical(),
            bias=self.bias.canonical(),
            retention=self.retention.canonical(),
            algorithm=self.algorithm.canonical(),
        )
        if idle := cast(dict[str, Any], idle_link(point)):
            point = dataclasses.replace(point, retention=dataclasses.replace(cast(Any, point.retention), **idle))
        point = dataclasses.replace(point, execution=simplest_execution(point))
        if not point.descends:
            point = dataclasses.replace(point, memory=startless(point.memory))
            if point.memory.is_kernel and point.step.source == "fixed":
                point = dataclasses.replace(point, step=fixed(1.0))  # a constant weight of all pairs cancels
        # gates lose what does not matter to them, whole numbers their type
        plain: dict[str, Any] = {key: _rebuilt(getattr(point, key)) for key in AXES}
        return dataclasses.replace(point, **plain, step=Gate.from_plain(point.step.to_plain(), (), STEP))

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The users' modules that options of this point come from."""
        found = (origin(type(getattr(self, key))) for key in AXES)
        return tuple(dict.fromkeys(one for one in found if one is not None))

    @functools.cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the canonical form, and of the source of the plugins that it takes part in.

        Settings at their defaults are left out: one that a later version adds leaves older designs their hash.
        """
        canonical = self.canonical()
        plain = _without(canonical.to_plain(), _defaults(canonical))
        if canonical.origins:
            plain["plugins"] = [*sorted(one.digest for one in canonical.origins)]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        if self.mixer is not None:
            return str(self.mixer)
        parts = [short(getattr(self, key)) for key in CHOICES]
        text = f"{' | '.join(parts)} | step {self.step} | {self.execution}"
        return text if self.control.name == "none" else f"{text} | {self.control.name}"


def _rebuilt(option: Facts) -> Facts:
    """The option from its own plain form; by its class, because its name may not be registered any more."""
    return build(type(option), to_plain(option))


def startless(memory: Memory) -> Memory:
    """The memory with the setting `start` at its default: one that is solved for starts empty."""
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(cast(Any, memory)) if f.name == "start"}
    return cast(Memory, dataclasses.replace(cast(Any, memory), **defaults))


def idle_link(point: DesignPoint) -> dict[str, object]:
    """Settings of the gate's link that change nothing here, with the simplest values: a norm over all layers where
    there is one, and a restart where no chunk ends with a link.
    """
    found: dict[str, object] = {}
    if getattr(point.retention, "over", None) == "memory" and len(point.memory.layers(2, 2)) == 1:
        found["over"] = "matrix"
    if point.retention.restart and point.execution.link_refresh != "chunk":
        found["restart"] = False
    return found


def simplest_execution(point: DesignPoint) -> Execution:
    """The execution without what does not change the point's function."""
    run = point.execution
    if not point.descends:
        return Execution()
    if point.retention.identity:
        run = dataclasses.replace(run, link_refresh="token")
    lags = run.link_refresh == "lag"
    if lags and run.chunk == 1:  # every token is a true step
        run, lags = dataclasses.replace(run, gradient=Gradient(), link_refresh="token"), False
    free = run.chunk - 1 if lags else run.chunk
    enough = free * point.writes - 1  # n sweeps are exact for the first n+1 writes of a chunk
    if point.bias.slope == 0 and point.memory.bare:  # the gradient does not depend on the weights at all
        run, enough = dataclasses.replace(run, gradient_at="previous"), 0
    sweeps = run.gradient.sweeps
    if sweeps is not None and sweeps >= enough:
        # a rule refuses exact gradients of a link refreshed by chunk, so there the fewest sweeps stand for them
        fewest = Gradient() if run.link_refresh == "token" else Gradient(enough)
        run = dataclasses.replace(run, gradient=fewest)
    if point.retention.keep.is_one:
        run = dataclasses.replace(run, gradient_at="previous")
    tangent = run.link_refresh != "token"
    chunked = run.gradient.sweeps is not None or tangent
    return run if chunked else dataclasses.replace(run, chunk=Execution().chunk)


def _defaults(point: DesignPoint) -> dict[str, Plain]:
    """The plain form of the same options with every setting at its default."""
    plain = DesignPoint().to_plain()
    for key in (*CHOICES, "control"):
        option = type(getattr(point, key))
        plain[key] = cast(Plain, spell(option()))
    return plain


def _without(plain: dict[str, Plain], defaults: Mapping[str, Plain]) -> dict[str, Plain]:
    """The entries that differ from the defaults, and every option's name."""
    found: dict[str, Plain] = {}
    for key, value in plain.items():
        default = defaults.get(key)
        if isinstance(value, dict):
            found[key] = _without(value, default if isinstance(default, dict) else {})
        elif key not in defaults or value != default:
            found[key] = value
    return found
