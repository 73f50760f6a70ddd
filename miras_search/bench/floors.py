"""How fast a memory could be on a device: two floors of its time, from rates measured on that device.

    bytes / bandwidth        what goes in and out is read and written once, and nothing else
    operations / rate        the products that any implementation makes, at the rate of one large matrix product

No implementation can be faster than the larger one, whatever its chunks are. Chunks add products of their own, and a
state that does not stay on chip adds bytes: that is what lies between.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from miras_search.bench.clock import seconds_of
from miras_search.bench.memory import Memory

ROUNDS = 5
BYTES = {"cuda": 1 << 30, "cpu": 1 << 26}  # of a copy: no cache holds it
SIDE = {"cuda": 8192, "cpu": 768}  # of a matrix product


class Rates(NamedTuple):
    """What a device does in a second."""

    bandwidth: float
    """Bytes read and written by a copy."""
    products: float
    """Multiplications and additions of a matrix product."""

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Rates:
        """Measured, medians over a few runs."""
        block = torch.zeros(BYTES[device.type], dtype=torch.uint8, device=device)
        side = SIDE[device.type]
        matrix = torch.randn(side, side, device=device).to(dtype)
        other = torch.empty_like(block)
        return cls(
            bandwidth=2 * block.numel() / _median(device, lambda: other.copy_(block)),
            products=2 * side**3 / _median(device, lambda: matrix @ matrix),
        )


def _median(device: torch.device, work: Callable[[], Tensor]) -> float:
    work()
    return statistics.median(seconds_of(device, [work]) for _ in range(ROUNDS))


class Floors(NamedTuple):
    """The least time of a memory forward, and forward with backward, in seconds."""

    forward: float
    training: float

    @classmethod
    def of(cls, memory: Memory, rates: Rates) -> Floors:
        """The larger of the two floors of each."""
        inputs = sum(map(_bytes, memory.leaves.values()))
        batch, tokens, heads, _ = memory.inputs.q.shape
        v = memory.inputs.v
        reads = batch * tokens * heads * v.shape[-1] * v.element_size()
        forward, flop = inputs + reads, products(memory)
        # the backward reads the inputs and the outputs' gradient, and writes a gradient for each input
        training = forward + 2 * inputs + reads
        return cls(
            max(forward / rates.bandwidth, flop / rates.products),
            max(training / rates.bandwidth, 3 * flop / rates.products),
        )


def products(memory: Memory) -> int:
    """Multiplications and additions of the products with the weights alone: a prediction and a change of them for each
    write, a read for each token. A signal that sees no prediction needs none.
    """
    point, inputs = memory.point, memory.inputs
    batch, tokens, heads, _ = inputs.q.shape
    cells = sum(start[0].numel() for start in memory.start)
    writes = inputs.k.shape[1] * (1 if point.bias.slope == 0 else 2)
    return 2 * batch * heads * cells * (writes + tokens)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
