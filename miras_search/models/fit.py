"""Whether a design fits a model: the rules of the space at the model's shapes, and what the model's own options need.

Plain data: a study is checked without torch.
"""

from __future__ import annotations

from collections.abc import Callable

from miras_search.models import controlled
from miras_search.models.config import ModelConfig
from miras_search.space import rules
from miras_search.space.design import DesignPoint
from miras_search.space.fields import Path, Problem, SpecError

SUM = "model.normaliser: sum divides by the sum of the keys written, which "

# what `normaliser: sum` needs: where to look, the reason, and whether a point has it
_NORMALISED: tuple[tuple[Path, str, Callable[[DesignPoint], bool]], ...] = (
    (
        ("memory",),
        SUM + "only a matrix holds beside its values: set memory: matrix or model.normaliser: none",
        lambda point: point.memory.bare,
    ),
    (
        ("bias",),
        SUM + "is what the dot bias writes for a value of 1: set bias: dot or model.normaliser: none",
        lambda point: point.bias.slope == 0,
    ),
    (
        ("retention",),
        SUM + "only a linear gate fades as it fades the values: use a retention whose link is the identity, none or l2",
        lambda point: point.retention.identity and point.retention.form == "dual",
    ),
    (
        ("algorithm",),
        SUM + "grows by whole steps only: set algorithm to one that is linear in its gradients, as gd and momentum are",
        lambda point: point.descends and point.algorithm.linear,
    ),
    (
        ("step",),
        SUM + "has no gates by value channel: set the scope of every gate to head or key",
        lambda point: not {"value", "key_value"} & set(point.scopes.values()),
    ),
    (
        ("control",),
        SUM + "ascent turns round together with the values, so that nothing would change: drop the control",
        lambda point: not point.control.turns_step,
    ),
)

UNTURNED = (
    "model.rope turns queries and keys, and a key that is tied to the decay cannot be turned: "
    "set model.rope: false or tie: none"
)


def violations(point: DesignPoint, model: ModelConfig) -> list[Problem]:
    """Everything that keeps the design from running in the model, each at its place in the design."""
    found = rules.violations(point, model.memory_keys, model.values)
    if point.mixer is not None:  # what the model says of its memories is not for it
        return found
    if model.normaliser == "sum":
        found += [Problem(where, reason) for where, reason, holds in _NORMALISED if not holds(point)]
    if (changed := controlled.problem(model, point.control)) is not None:
        found.append(changed)
    if model.rope and point.retention.keep.tie == "key":
        found.append(Problem(("retention", "keep", "tie"), UNTURNED))
    return found


def check(point: DesignPoint, model: ModelConfig, where: Path = ()) -> None:
    """Raise `SpecError` with everything that keeps the design from running in the model."""
    problems = violations(point, model)
    if problems:
        raise SpecError(Problem((*where, *problem.where), problem.what) for problem in problems)
