"""One training step of a stack of models: eagerly, or on a GPU as one CUDA graph.

A step of small models is hundreds of kernels of a few microseconds, which the host cannot launch as fast as a GPU runs
them. A graph is recorded once and launched as a whole. It reads its inputs where they were when it was recorded, so
batches and scalars are copied there; everything else (rows, moments, who is alive) is changed in place anyway.
"""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from miras_search.training.evaluate import Labelled
from miras_search.training.first_steps import LOSS, FirstSteps, Found
from miras_search.training.stack import Stack
from miras_search.training.stack_optimiser import StackOptimiser

log = logging.getLogger(__name__)

WARM_UP = 3  # steps before a graph is recorded: Triton compiles, libraries choose and allocate, which no graph can hold


class Step(Protocol):
    """Takes the batches [P, B, ...] and the optimiser's scalars of a step; gives [P, 2]: losses, gradient norms."""

    def __call__(self, batch: Labelled, scalars: Tensor) -> Tensor:
        """Take the step."""


class EagerStep:
    """Operator by operator. A model whose loss or gradient is not finite, or whose loss is over `limit`, stands still
    from then on, and nothing waits for the device to find out.
    """

    def __init__(self, stack: Stack, optimiser: StackOptimiser, limit: float, first: FirstSteps) -> None:
        self.stack, self.optimiser, self.limit, self.first = stack, optimiser, limit, first
        self.alive = torch.ones(len(stack.rows), dtype=torch.bool, device=stack.rows.device)
        """[P]"""

    def __call__(self, batch: Labelled, scalars: Tensor) -> Tensor:
        """Losses and gradient norms [P, 2], on the device."""
        with self.first.watching():
            losses, grads = self.stack.descend(batch)
        if self.first.due:
            self._compare(losses, grads, batch)
        norms = torch.linalg.vector_norm(grads, dim=1)
        self.alive &= (losses <= self.limit) & norms.isfinite()
        self.optimiser.step(grads, norms, scalars, self.alive)
        return torch.stack([losses, norms], 1)

    def _compare(self, losses: Tensor, grads: Tensor, batch: Labelled) -> None:
        """Compare what kernels gave for every model that is alive with torch's. Raises `KernelMismatch`."""
        alive = self.alive.nonzero().flatten().tolist()

        def by_model(losses: Tensor, grads: Tensor) -> list[Found]:
            return [{LOSS: losses[i], **self.stack.named(grads[i])} for i in alive]

        def again() -> list[Found]:
            return by_model(*self.stack.descend_in_torch(batch))

        self.first.compare(by_model(losses, grads), again)


class GraphedStep:
    """The same step as a CUDA graph; where a design cannot be recorded, it stays eager and says so once in the log."""

    def __init__(self, eager: EagerStep) -> None:
        self.eager = eager
        self._stream = torch.cuda.Stream()
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Labelled | None = None
        self._scalars = self._seen = torch.empty(0)

    @property
    def recorded(self) -> bool:
        """Whether steps are launched as a graph by now."""
        return self._graph is not None

    def __call__(self, batch: Labelled, scalars: Tensor) -> Tensor:
        """Losses and gradient norms [P, 2], on the device."""
        self._taken += 1
        if self._taken <= WARM_UP:
            return self._on_side_stream(batch, scalars)
        if self._taken == WARM_UP + 1:
            self._record(batch, scalars)
        if self._graph is None or self._batch is None:
            return self.eager(batch, scalars)
        self._batch.tokens.copy_(batch.tokens, non_blocking=True)
        self._batch.positions.copy_(batch.positions, non_blocking=True)
        self._batch.targets.copy_(batch.targets, non_blocking=True)
        self._scalars.copy_(scalars, non_blocking=True)
        self._graph.replay()
        return self._seen.clone()  # the next replay writes over it

    def _on_side_stream(self, batch: Labelled, scalars: Tensor) -> Tensor:
        """A warm-up step, on another stream as recording asks for."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            seen = self.eager(batch, scalars)
        current.wait_stream(self._stream)
        return seen

    def _record(self, batch: Labelled, scalars: Tensor) -> None:
        """Record the step on buffers of its own. Recording runs nothing: the step is still to be taken."""
        held = Labelled(batch.tokens.clone(), batch.positions.clone(), batch.targets.clone())
        self._scalars = scalars.clone()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._seen = self.eager(held, self._scalars)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # an operator that waits for the device, such as a factorisation that is checked
            torch.cuda.synchronize()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("%s: no CUDA graph (%s); steps are launched one operator at a time", self._name, reason)
        else:
            self._graph, self._batch = graph, held

    @property
    def _name(self) -> str:
        return str(self.eager.stack.template.design)


def step_of(stack: Stack, optimiser: StackOptimiser, limit: float, first: FirstSteps) -> tuple[Step, Tensor]:
    """How a stack takes its steps on its device, and the mask [P] of the models that are alive, kept up to date."""
    eager = EagerStep(stack, optimiser, limit, first)
    return (GraphedStep(eager) if stack.rows.is_cuda else eager), eager.alive
