"""Which combinations are valid, and the reason when one is not.

A rule looks at traits of the options and at the shapes a model gives them; it never asks for an option's name. Reasons
that only one option has are that option's own (`Memory.square`, `Algorithm.problem`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, Problem, SpecError
from miras_search.space.gates import DECAYS, effective
from miras_search.space.option import gates_of


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that every valid point meets, where it is checked, and the reason for it."""

    where: Path
    reason: str
    broken: Callable[[DesignPoint, int, int], bool | str | None]
    """(point, key_dim, value_dim) -> whether it is broken, or in which words of its own"""

    def problem(self, point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
        """Why the point is not valid, or None."""
        found = self.broken(point, key_dim, value_dim)
        return self.reason if found is True else found or None


def _square(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    return None if key_dim == value_dim else point.memory.square


def _slice(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    slice_: str | None = getattr(point.retention, "slice", None)
    for layer in point.memory.layers(key_dim, value_dim) if slice_ else ():
        weights = {"column": layer.rows, "row": layer.cols}.get(slice_ or "", layer.rows * layer.cols)
        if weights == 1:
            other = "column" if slice_ == "row" else "row"
            return f"a {slice_} of this memory is one weight, which its fixed sum holds still: set slice: {other}"
    return None


def _keep_scope(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    keep, scopes = point.retention.keep, []
    for option in (point.retention, point.algorithm):
        if effective(keep) not in option.keep_scopes:  # not `scopes`, which looks at every gate
            scopes.append(f"{option.name} knows keep by {', '.join(option.keep_scopes)} only, not by {keep.scope}")
    flat = any(layer.diagonal for layer in point.memory.layers(key_dim, value_dim))
    if not scopes and flat and getattr(point.retention, "slice", None) and effective(keep) != "head":
        scopes.append("a row is all of this memory, and keep by channel varies inside it: set keep.scope: head")
    return "; ".join(scopes) or None


def _step_scope(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    scope, algorithm = point.step_scope, point.algorithm
    if scope in algorithm.step_scopes:
        return None
    coupled = " (with a keep that it is coupled to)" if point.retention.coupled else ""
    return f"{algorithm.name} knows steps by {', '.join(algorithm.step_scopes)} only, not by {scope}{coupled}"


def _threshold_scope(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    for scope in map(effective, gates_of(point.bias).values()):
        if scope not in point.bias.threshold_scopes:
            known = ", ".join(point.bias.threshold_scopes)
            return f"{point.bias.name} knows thresholds by {known} only, not by {scope}"
    return None


def _untied(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    tied = [slot for slot, gate in point.gates.items() if slot != "keep" and gate.tie != "none"]
    return f"only keep can be tied, not {', '.join(tied)}" if tied else None


def _one_value(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    found = [slot for slot, gate in point.gates.items() if slot != "keep" and gate.ladder != "none"]
    return f"only keep has a ladder over its heads, not {', '.join(found)}" if found else None


def _tied_step(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    keep, step = point.retention.keep, effective(point.step)
    if keep.tie != "step":
        return None
    if (steps := point.algorithm.repeats("step")) > 1:
        return f"a decay by the step needs a token's only one, and {point.algorithm.name} takes {steps}: set tie: none"
    if point.algorithm.step_scope(point.step) == keep.scope == step:
        return None
    return f"a decay by the step has the step's scope: set keep.scope: {step}"


def _own(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    if point.mixer is None:
        return None
    plain, usual = point.to_plain(), DesignPoint().to_plain()
    chosen = [key for key in plain if key in usual]
    if chosen == ["control"]:
        return f"{point.mixer.name} has no writes or keys that a control could take away: drop the control"
    if not chosen:
        return None
    which = "it" if len(chosen) == 1 else "them"
    what = f"{point.mixer.name} takes the place of the whole memory layer, so {', '.join(chosen)} would change nothing"
    return f"{what}: drop {which}, or list {which} as a level of its own under vary.preset"


def _coupled(point: DesignPoint, key_dim: int, value_dim: int) -> str | None:
    if not point.retention.coupled:
        return None
    if not point.descends:
        return "a memory that is solved for takes no step that keep could shorten: set coupled: false"
    step, keep = point.algorithm.step_scope(point.step), effective(point.retention.keep)
    if step == keep or "head" in (step, keep):
        return None
    return f"a coupled step is the product of step and keep, which have values by {step} and by {keep}: use one scope"


RULES: tuple[Rule, ...] = (
    Rule(("mixer",), "a layer of your own takes the place of the memory and of every choice about it", _own),
    Rule(("memory",), "some memories need equal key and value dimensions", _square),
    Rule(
        ("memory",),
        "a layer norm over a single channel is always zero: use a value dimension of at least 2 or norm: none",
        lambda point, key_dim, value_dim: getattr(point.memory, "norm", "none") != "none" and value_dim == 1,
    ),
    Rule(
        ("memory",),
        "a memory that keeps the pairs themselves is read by the nonparametric algorithm, and only it: set both or "
        "neither",
        lambda point, key_dim, value_dim: point.memory.is_kernel and point.descends,
    ),
    Rule(
        ("algorithm",),
        "an algorithm may need one kind of memory or bias",
        lambda point, key_dim, value_dim: point.algorithm.problem(point.memory, point.bias),
    ),
    Rule(
        ("algorithm",),
        "it writes along other keys than it reads, which only a matrix without residual and norm can hold",
        lambda point, key_dim, value_dim: point.algorithm.splits_keys and not point.memory.bare,
    ),
    Rule(
        ("retention",),
        "a proximal write measures its distance between the weights themselves: use none or l2, or another algorithm",
        lambda point, key_dim, value_dim: (
            point.algorithm.proximal and not (point.retention.identity and point.retention.form == "dual")
        ),
    ),
    Rule(
        ("execution", "gradient_at"),
        "a proximal write starts from the memory that keep has faded: set gradient_at: decayed",
        lambda point, key_dim, value_dim: (
            point.algorithm.proximal and not point.retention.keep.is_one and point.execution.gradient_at == "previous"
        ),
    ),
    Rule(
        ("retention",),
        "a memory that is solved for keeps no weights that this gate could shape: use none or l2",
        lambda point, key_dim, value_dim: (
            not point.descends and not (point.retention.identity and point.retention.form == "dual")
        ),
    ),
    Rule(
        ("control",),
        "the step is the weight of a pair in a memory that is solved for, and a weight has no sign to turn round: use "
        "the control no_write",
        lambda point, key_dim, value_dim: point.control.turns_step and not point.descends,
    ),
    Rule(
        ("control",),
        "a control needs what it takes away or turns round",
        lambda point, key_dim, value_dim: point.control.problem(point),
    ),
    Rule(("retention", "slice"), "a slice of a single weight never changes", _slice),
    Rule(("retention", "keep", "scope"), "a keep gate has values for what its options know", _keep_scope),
    Rule(("retention", "keep", "tie"), "a decay by the step has the step's scope", _tied_step),
    Rule(
        ("retention", "keep", "tie"),
        "a key that is made from keep is the token's only one: use an algorithm with one key a token, or tie: none",
        lambda point, key_dim, value_dim: point.retention.keep.tie == "key" and point.algorithm.keys > 1,
    ),
    Rule(("retention", "coupled"), "a coupled step is the product of step and keep, of one scope", _coupled),
    Rule(("step", "scope"), "a step has values for what its algorithm knows", _step_scope),
    Rule(("bias", "delta", "scope"), "a threshold has values for what its bias compares", _threshold_scope),
    Rule(("step", "tie"), "only keep can be tied", _untied),
    Rule(("step", "ladder"), "only keep has a ladder over its heads", _one_value),
    Rule(
        ("step",),
        "a fixed step is positive: the control no_write says that nothing is written, ascent that the loss is climbed",
        lambda point, key_dim, value_dim: point.step.source == "fixed" and point.step.value <= 0,
    ),
    Rule(
        ("step", "squash"),
        "a decay lies in (0, 1) and belongs to keep: use sigmoid or softplus for a step",
        lambda point, key_dim, value_dim: point.step.source != "fixed" and point.step.squash in DECAYS,
    ),
    Rule(
        ("execution", "link_refresh"),
        "an exact gradient of weights that are not refreshed inside the chunk is neither the paper's fast form nor the "
        "definition: use gradient: frozen or {refined: n}, or link_refresh: token",
        lambda point, key_dim, value_dim: (
            not point.retention.identity
            and point.execution.link_refresh != "token"
            and point.execution.gradient.sweeps is None
        ),
    ),
)


def violations(point: DesignPoint, key_dim: int, value_dim: int) -> list[Problem]:
    """Every rule that the point breaks with these head dimensions."""
    found = ((rule.where, rule.problem(point, key_dim, value_dim)) for rule in RULES)
    return [Problem(where, what) for where, what in found if what is not None]


def check(point: DesignPoint, key_dim: int, value_dim: int, where: Path = ()) -> None:
    """Raise `SpecError` with every rule that the point breaks."""
    problems = violations(point, key_dim, value_dim)
    if problems:
        raise SpecError(Problem((*where, *problem.where), problem.what) for problem in problems)
