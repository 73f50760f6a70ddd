"""Which combinations are valid, and the reason when one is not.

A rule looks at traits of the options and at the shapes a model gives them; it never asks for an option's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, Problem, SpecError


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that every valid point meets, where it is checked, and the reason for it."""

    where: Path
    reason: str
    holds: Callable[[DesignPoint, int, int], bool]  # (point, key_dim, value_dim)


RULES: tuple[Rule, ...] = (
    Rule(
        ("memory",),
        "a residual memory adds its input to its output, so key and value dimensions must be equal: "
        "set residual: false or model.value_dim to model.key_dim",
        lambda point, key_dim, value_dim: not point.memory.residual or key_dim == value_dim,
    ),
    Rule(
        ("memory",),
        "a layer norm over a single channel is always zero: use a value dimension of at least 2 or norm: none",
        lambda point, key_dim, value_dim: getattr(point.memory, "norm", "none") == "none" or value_dim > 1,
    ),
    Rule(
        ("step",),
        "a fixed step is positive: the control no_write says that nothing is written, ascent that the loss is climbed",
        lambda point, key_dim, value_dim: point.step.source != "fixed" or point.step.value > 0,
    ),
    Rule(
        ("step", "squash"),
        "mamba's decay lies in (0, 1) and belongs to keep: use sigmoid or softplus for a step",
        lambda point, key_dim, value_dim: point.step.source == "fixed" or point.step.squash != "mamba",
    ),
    Rule(
        ("algorithm",),
        "the dot bias is linear in the value, so several steps on one pair are one step n times as long: "
        "set own_keys: true or scale the step",
        lambda point, key_dim, value_dim: (
            not (
                point.algorithm.writes > 1
                and not point.algorithm.own_keys
                and point.bias.slope == 0
                and point.memory.bare
            )
        ),
    ),
    Rule(
        ("execution", "link_refresh"),
        "an exact gradient of weights that are not refreshed inside the chunk is neither the paper's fast form nor the "
        "definition: use gradient: frozen or {refined: n}, or link_refresh: token",
        lambda point, key_dim, value_dim: (
            point.retention.identity
            or point.execution.link_refresh == "token"
            or point.execution.gradient.sweeps is not None
        ),
    ),
)


def violations(point: DesignPoint, key_dim: int, value_dim: int) -> list[Problem]:
    """Every rule that the point breaks with these head dimensions."""
    return [Problem(rule.where, rule.reason) for rule in RULES if not rule.holds(point, key_dim, value_dim)]


def check(point: DesignPoint, key_dim: int, value_dim: int, where: Path = ()) -> None:
    """Raise `SpecError` with every rule that the point breaks."""
    problems = violations(point, key_dim, value_dim)
    if problems:
        raise SpecError(Problem((*where, *problem.where), problem.what) for problem in problems)
