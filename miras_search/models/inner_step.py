"""How large a memory's writes are at the start of training, and the scale of the step that makes them another's.

Attentional biases measure their signal u = dl/dp in different units: that of l1 is 1 whatever the error, that of the
full l2 twice that of the half. With one step for all, a comparison of biases is also one of step lengths. So the writes
of a model are given a size,

    RMS over a batch, its tokens, heads, channels and layers of step * u,   u against the memory's start,

and a cell's step can be multiplied by the number that makes it the base's. Against the start, because then u does not
depend on the step, so that a decay or a momentum alone changes nothing: what is matched is the unit of the signal and
not what later writes do about it. One number for the whole model, because the ratio of the layers is part of a design.
A window of pairs (omega) is matched pair by pair, not as the sum that it writes at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from miras_search.errors import MirasError
from miras_search.kernels.recurrence import apply
from miras_search.kernels.state import Layers
from miras_search.models.language import LanguageModel
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.gates import product_keys
from miras_search.space.memory import Static

ROUNDS = 30
CLOSE = 1e-5


def start_signals(point: DesignPoint, inputs: Inputs, start: Layers, static: Static) -> Tensor:
    """u [B,H,N,V] of every write as if it were the first; `start` [H,rows,cols] a layer."""
    duals = tuple(point.retention.origin(z).unsqueeze(0) for z in start)
    weights = duals if point.retention.identity else point.retention.links(duals, static)
    threshold = None if inputs.threshold is None else inputs.threshold.transpose(1, 2)
    if threshold is not None and threshold.dim() == 3:  # one a head: over its channels
        threshold = threshold.unsqueeze(-1)
    prediction = point.memory.forward(inputs.k.transpose(1, 2), apply(weights), static)
    return point.bias.signal(prediction, inputs.v.transpose(1, 2), threshold)


@torch.no_grad()
def write_size(model: LanguageModel, tokens: Tensor) -> float:
    """RMS of step * u over sequences [B,T] and all layers, with the steps as scaled; of steps by channel, their RMS."""
    squares: list[Tensor] = []

    def measure(inputs: Inputs, start: Layers, static: Static) -> None:
        step = inputs.step.square()
        if keys := product_keys(step, inputs.k, inputs.v):
            step = step[..., :keys].mean(-1) * step[..., keys:].mean(-1)
        elif step.dim() > 3:
            step = step.mean(-1)
        u = start_signals(model.design, inputs, start, static).square().mean(-1)
        squares.append((step * u.transpose(1, 2)).mean())

    with model.observed(measure):
        model.stream(tokens)
    return math.sqrt(float(torch.stack(squares).mean()))


def match(model: LanguageModel, base: LanguageModel, tokens: Tensor) -> float:
    """Scale the model's steps so that its writes have the base's size on sequences [B,T]; the scale.

    The input of a deeper layer depends on what the layers before it read, so the scale is found by rounds. It is 1
    where one of the two is solved for, or writes nothing, or nothing finite. Raises `MirasError` where the rounds do
    not settle.
    """
    if not (model.design.descends and base.design.descends):
        return 1.0
    wanted, scale = write_size(base, tokens), 1.0
    for _ in range(ROUNDS):
        model.scale_steps(scale)
        found = write_size(model, tokens)
        if not (0 < found < math.inf and 0 < wanted < math.inf):
            model.scale_steps(1.0)
            return 1.0
        if abs(found / wanted - 1) < CLOSE:
            return scale
        scale *= wanted / found
    raise MirasError(
        f"train.inner_step: match_base finds no scale of the step: after {ROUNDS} rounds the writes are "
        f"{found / wanted:.3g} times the base's; use as_is"
    )
