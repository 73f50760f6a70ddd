"""AdamW on a stack: every model with its own rate, decay, moments' memory and clipping, in a dozen operators for all.

The rule is that of `optimiser.py`; nothing here reads a value back from the device, so a step fits into a CUDA graph.

Legend: P models, N parameters of one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from miras_search.training.config import TrainConfig
from miras_search.training.optimiser import EPS


class StackOptimiser:
    """Moments [P, N] of the models' gradients, and what each model's settings make of a step."""

    def __init__(self, rows: Tensor, decayed: Tensor, configs: Sequence[TrainConfig]) -> None:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=rows.device).unsqueeze(1)

        self.rows, self.decayed = rows, decayed
        self.first, self.second = torch.zeros_like(rows), torch.zeros_like(rows)
        self._configs = tuple(configs)
        self._clip = column([config.clip or math.inf for config in configs])
        self._fresh = column([1 - config.betas[0] for config in configs])
        self._old = column([config.betas[1] for config in configs])
        self._new = column([1 - config.betas[1] for config in configs])

    def scalars(self, step: int) -> Tensor:
        """[3, P, 1] on the CPU for step number `step`, from 0: what decay leaves away, the length of the update, and
        the second moment's correction, worked out in double precision.
        """
        rows: list[list[float]] = [[], [], []]
        for config in self._configs:
            rate = config.lr * config.share(step)
            beta1, beta2 = config.betas
            for row, value in zip(
                rows,
                (rate * config.weight_decay, rate / (1 - beta1 ** (step + 1)), (1 - beta2 ** (step + 1)) ** -0.5),
                strict=True,
            ):
                row.append(value)
        return torch.tensor(rows, dtype=torch.float32).unsqueeze(-1)

    @torch.no_grad()
    def step(self, grads: Tensor, norms: Tensor, scalars: Tensor, alive: Tensor) -> None:
        """Clip gradients [P, N] of lengths `norms` [P], and move in place the rows of the models `alive` [P]."""
        decay, length, correction = scalars
        grads = grads * (self._clip / (norms.unsqueeze(1) + 1e-6)).clamp(max=1.0)
        self.first.lerp_(grads, self._fresh.expand_as(grads))
        self.second.mul_(self._old).addcmul_(grads, grads * self._new)
        update = length * self.first / (self.second.sqrt() * correction + EPS)
        moved = self.rows * (1 - decay * self.decayed) - update
        self.rows.copy_(torch.where(alive.unsqueeze(1), moved, self.rows))
