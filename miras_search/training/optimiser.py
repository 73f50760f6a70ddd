"""AdamW with a rate that follows the schedule, and the norm that clipping and divergence look at.

What is decayed: the weights of `nn.Linear`, that is every projection, and nothing else. Not decayed are embedding and
head (a token that is not in the batch would fade), norms and biases, the few taps of a convolution, what a gate is
before it has seen its input (shrinking that pulls it to the middle of its squashing, which is a choice of model and no
regulariser), and a memory's learned start, where decay would be a second retention gate. The weights with which a gate
reads its input are rows of a projection, and decayed with it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from miras_search.training.config import TrainConfig

EPS = 1e-8


class Moments(NamedTuple):
    """What AdamW keeps of a parameter: two running means of its shape."""

    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def of(cls, parameter: Tensor) -> Moments:
        """Of a parameter that was never moved."""
        zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return cls(zeros, zeros.clone())


class Optimiser:
    """The optimiser of one training.

    The rule is torch's, by the operator that its class and its function end in. The class would import the compiler,
    which makes a worker's start twice as long; the function counts the steps of every parameter by itself and sorts
    them by device, which takes a fortieth of a small model's compiled step.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        decayed, plain = split_by_decay(model)
        self.config = config
        self.params = [*decayed, *plain]
        self.decay = [config.weight_decay] * len(decayed) + [0.0] * len(plain)
        self.moments = [Moments.of(p) for p in self.params]

    @torch.no_grad()
    def step(self, number: int, norm: Tensor | None = None) -> Tensor:
        """Clip, take step `number` (from 0), drop the gradients; the gradient's norm before clipping, a scalar, which
        may be known already.
        """
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = total_norm(grads) if norm is None else norm
        if self.config.clip:
            # the norm stays on the device: no branch on its value, hence no wait for the GPU
            scale = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(grads, scale)
        lr, count = self.config.lr * self.config.share(number), torch.full_like(norm, number + 1)
        for decay in dict.fromkeys(self.decay):
            self._move(decay, lr, count)
        for p in self.params:
            p.grad = None
        return norm

    def _move(self, decay: float, lr: float, count: Tensor) -> None:
        """AdamW's step number `count`, from 1, for the parameters of one decay that have a gradient."""
        rows = zip(self.params, self.decay, self.moments, strict=True)
        chosen = [(p, p.grad, m) for p, own, m in rows if own == decay and p.grad is not None]
        if not chosen:
            return
        params, grads, moments = zip(*chosen, strict=True)
        beta1, beta2 = self.config.betas
        torch._fused_adamw_(
            params,
            grads,
            [m.exp_avg for m in moments],
            [m.exp_avg_sq for m in moments],
            [],  # no largest second moments: not AMSGrad
            [count] * len(chosen),
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            weight_decay=decay,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters of a model in two lists, decayed and not; a shared parameter appears once."""
    maps = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if id(p) in maps], [p for p in trained if id(p) not in maps]


def total_norm(grads: list[Tensor]) -> Tensor:
    """The 2-norm of all gradients as one vector: a scalar on their device."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    return norm
