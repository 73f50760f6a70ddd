"""Nothing is ever written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm import Gd
from miras_search.space.bias import L2
from miras_search.space.control.protocol import CONTROL, Inputs, Unchanged
from miras_search.space.execution import Execution
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Facts, gates_of
from miras_search.space.retention import NoRetention

if TYPE_CHECKING:
    import torch

    from miras_search.space.design import DesignPoint
else:
    torch = LazyModule("torch")


@CONTROL.register
@final
@dataclass(frozen=True, slots=True)
class NoWrite(Unchanged):
    """The memory stays at its start: what convolution, gates and projections can do alone.

    A memory that is solved for stays empty and reads 0. A link that restarts in place goes on at each chunk's end.
    """

    name: ClassVar[str] = "no_write"
    equation: ClassVar[str] = "e_t = 0, a_t = 1:  W_t = W_0"
    source: ClassVar[str] = "reviews of Miras: negative controls"

    def apply(self, inputs: Inputs) -> Inputs:
        """Step 0 and keep 1."""
        return inputs._replace(step=torch.zeros_like(inputs.step), log_keep=torch.zeros_like(inputs.log_keep))

    def simplest(self, point: DesignPoint) -> DesignPoint:
        """What only says how to write says nothing, unless it has parameters, whose number and draws would differ."""
        if not point.descends:
            return point
        if _without_gates(point.bias):
            point = dataclasses.replace(point, bias=L2())
        algorithm, retention = point.algorithm, point.retention
        one_pair = algorithm.keys == algorithm.values == algorithm.repeats("step") == 1
        if one_pair and _without_gates(algorithm) and not algorithm.static(2, 2):
            point = dataclasses.replace(point, algorithm=Gd())
        if not retention.identity or retention.form != "dual":  # a link shapes the start, a step of its own shrinks it
            return point
        if _without_gates(retention) and not retention.static():
            point = dataclasses.replace(point, retention=NoRetention())
        return dataclasses.replace(point, execution=Execution())


def _without_gates(option: Facts) -> bool:
    return all(gate.source == "fixed" for gate in gates_of(option).values())
