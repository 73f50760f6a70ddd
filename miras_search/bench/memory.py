"""A memory by itself, for timing: random inputs of any design point, forward, and forward with backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from miras_search.kernels.dispatch import Run
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.training.compiled import compiled


class Memory:
    """Random inputs and starting weights for one design, and what is timed on them."""

    def __init__(
        self,
        point: DesignPoint,
        device: torch.device,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`shape`: batch, tokens, heads, and the width of keys and values; `dtype` is that of q, k and v."""
        batch, tokens, heads, width = shape
        self.point, self.device = point, device
        self.draw = torch.Generator(device).manual_seed(0)  # one of a GPU: a CPU thread would draw for a minute
        writes, window = tokens * point.writes, point.algorithm.window

        def gate(slot: str, count: int) -> Tensor:
            channels = {"head": (), "key": (width,), "value": (width,), "key_value": (2 * width,)}[point.scopes[slot]]
            return self._uniform(batch, count, heads, *channels)

        def unit(count: int) -> Tensor:
            return functional.normalize(self._normal(batch, count, heads, width), dim=-1)

        given = Inputs(
            q=unit(tokens),
            k=unit(writes),
            v=self._normal(batch, writes, heads, width),
            log_keep=gate("keep", tokens) * (0.0 if point.retention.keep.is_one else -0.05),
            step=gate("step", writes) * 0.1,
            momentum=gate("momentum", writes) * 0.9 if "momentum" in point.gates else None,
            threshold=gate("threshold", writes) + 0.2 if "threshold" in point.gates else None,
            w=unit(writes) if point.algorithm.splits_keys else None,
            share=self._uniform(batch, tokens, heads, window) if window > 1 else None,
        )
        given = given._replace(q=given.q.to(dtype), k=given.k.to(dtype), v=given.v.to(dtype))
        self.inputs = given.map(self._leaf)
        layers = point.memory.layers(width, width) if point.descends else ()
        self.start = tuple(self._leaf(self._normal(heads, one.rows, one.cols) / one.rows**0.5) for one in layers)
        self.static = {
            name: self._leaf(torch.full((heads, *size), float(value)))
            for name, (size, value) in point.static(width, width).items()
        }

    @property
    def leaves(self) -> dict[str, Tensor]:
        """All that a gradient is taken of, by name."""
        inputs = {name: x for name, x in self.inputs._asdict().items() if x is not None}
        return {**inputs, **{f"start.{i}": x for i, x in enumerate(self.start)}, **self.static}

    def forward(self, run: Run) -> Tensor:
        """Outputs alone."""
        with torch.no_grad():
            y, _ = run(self.point, self.inputs, self.start, self.static, None)
        return y

    def train(self, run: Run) -> dict[str, Tensor]:
        """Outputs, and the gradients of everything by name."""
        return dict(zip(self.leaves, self._gradients(run, list(self.leaves.values())), strict=True))

    def compiled(self, run: Run) -> Callable[[], object]:
        """The same as one compiled function of all that a gradient is taken of. Raises what `compiled` raises."""

        def gradients(*values: Tensor) -> tuple[Tensor, ...]:
            return self._gradients(run, [value.detach().requires_grad_() for value in values])

        values = [leaf.detach() for leaf in self.leaves.values()]
        shapes = [list(value.shape) for value in values]
        return functools.partial(compiled(f"memory {self.point.hash} {shapes}", gradients), *values)

    def _gradients(self, run: Run, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        named = dict(zip(self.leaves, leaves, strict=True))
        inputs = self.inputs._replace(**{name: x for name, x in named.items() if name in self.inputs._fields})
        start = tuple(named[f"start.{i}"] for i in range(len(self.start)))
        with torch.enable_grad():
            y, _ = run(self.point, inputs, start, {name: named[name] for name in self.static}, None)
            total = y.square().sum()
        # a rule may not look at every gate
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draw, device=self.device)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.draw, device=self.device)

    def _leaf(self, values: Tensor) -> Tensor:
        return values.to(self.device).requires_grad_()
