"""AdamW with a rate that follows the schedule, and the norm that clipping and divergence look at.

What is decayed: the weights of `nn.Linear`, that is every projection, and nothing else. Not decayed are embedding and
head (a token that is not in the batch would fade), norms and biases, the few taps of a convolution, gates (shrinking
a gate's parameter pulls it to the middle of its squashing, which is a choice of model and no regulariser), and a
memory's learned start, where decay would be a second retention gate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from miras_search.training.config import TrainConfig


class Optimiser:
    """The optimiser of one training."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        decayed, plain = split_by_decay(model)
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.config = config
        self.params = [*decayed, *plain]
        beta1, beta2 = config.betas
        # fused: one native call a parameter; the default on a CPU is a dozen Python-dispatched operations each
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.lr, betas=(beta1, beta2), fused=True
        )

    def step(self, number: int) -> Tensor:
        """Clip, take step `number` (from 0), drop the gradients; the gradient's norm before clipping, a scalar."""
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = total_norm(grads)
        if self.config.clip:
            # the norm stays on the device: no branch on its value, hence no wait for the GPU
            scale = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(grads, scale)
        for group in self.adamw.param_groups:
            group["lr"] = self.config.lr * self.config.share(number)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters of a model in two lists, decayed and not; a shared parameter appears once."""
    maps = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if id(p) in maps], [p for p in trained if id(p) not in maps]


def total_norm(grads: list[Tensor]) -> Tensor:
    """The 2-norm of all gradients as one vector: a scalar on their device."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    return norm
