"""Models with stacked parameters against a loop over them: losses, and the gradient of every parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Tolerance = tuple[float, float]  # relative, absolute


def stacked_equals_a_loop(
    models: Sequence[nn.Module],
    tokens: Tensor,
    positions: Tensor,
    labels: Tensor,
    *,
    of_loss: Tolerance = (1e-11, 1e-12),
    of_gradient: Tolerance = (1e-9, 1e-12),
) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses [P] of P models on tokens [P,B,T] and labels [P,B,M], and the stacked gradients by parameter.

    Every parameter of every model has to be reached.
    """

    def loss(parameters: dict[str, Tensor], tokens: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        logits = torch.func.functional_call(models[0], parameters, (tokens, positions))
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    stacked, _ = torch.func.stack_module_state(list(models))
    gradients, losses = torch.func.vmap(torch.func.grad_and_value(loss))(stacked, tokens, positions, labels)
    for i, model in enumerate(models):
        alone = functional.cross_entropy(model(tokens[i], positions[i]).flatten(0, 1), labels[i].flatten())
        torch.testing.assert_close(losses[i], alone.detach(), rtol=of_loss[0], atol=of_loss[1])
        expected = torch.autograd.grad(alone, list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
            torch.testing.assert_close(gradients[name][i], gradient, rtol=of_gradient[0], atol=of_gradient[1], msg=name)
    return losses, gradients
