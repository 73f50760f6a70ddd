"""The loss of one model on a batch, and its gradients where the optimiser looks for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from miras_search.models.language import LanguageModel
from miras_search.training.compiled import compiled
from miras_search.training.evaluate import Labelled, autocast, cross_entropy
from miras_search.training.job import Job, Kernels
from miras_search.training.shape import shape, unpackable


class Descent(Protocol):
    """Finds a batch's loss and leaves the gradients in the parameters."""

    def __call__(self, batch: Labelled) -> tuple[Tensor, Tensor | None]:
        """Scalars: the loss, without a graph behind it, and the norm of all gradients where it is known."""


def loss_of(model: Callable[[Tensor, Tensor], Tensor], batch: Labelled, precision: str) -> Tensor:
    """The loss as autograd takes it: a scalar. `model` gives the logits at positions of tokens."""
    with autocast(batch.tokens.device, precision):
        logits = model(batch.tokens, batch.positions)
    return cross_entropy(logits, batch.targets)


def descent_of(job: Job, model: LanguageModel, kernels: Kernels) -> Descent:
    """How a training finds its gradients: compiled where that is asked for, and no layer of a user's own is in it."""
    if kernels == "compiled" and not unpackable(job):
        return CompiledDescent(job, model)
    return functools.partial(_descend, model, job.train.precision)


def _descend(model: LanguageModel, precision: str, batch: Labelled) -> tuple[Tensor, Tensor | None]:
    """Operator by operator."""
    loss = loss_of(model, batch, precision)
    torch.autograd.backward(loss)
    return loss.detach(), None


class CompiledDescent:
    """The same as one function of parameters, buffers and batch."""

    def __init__(self, job: Job, model: LanguageModel) -> None:
        self._model, self._precision = model, job.train.precision
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        rest = {name: p for name, p in model.named_parameters() if not p.requires_grad}
        # taken once: to ask the model at every step is a hundredth of it, and whoever changes them does so in place
        held = {name: x.detach() for name, x in {**self._trained, **rest, **dict(model.named_buffers())}.items()}
        self._names, self._held = tuple(held), tuple(held.values())
        self._found = compiled(shape(job), self._function)

    def __call__(self, batch: Labelled) -> tuple[Tensor, Tensor | None]:
        """The loss and the norm of the gradients."""
        loss, norm, *gradients = self._found(batch.tokens, batch.positions, batch.targets, *self._held)
        for parameter, gradient in zip(self._trained.values(), _apart(gradients), strict=True):
            parameter.grad = gradient
        assert loss is not None
        return loss, norm

    def _function(self, tokens: Tensor, positions: Tensor, targets: Tensor, *held: Tensor) -> tuple[Tensor | None, ...]:
        named = dict(zip(self._names, held, strict=True))
        leaves = {name: named[name].detach().requires_grad_() for name in self._trained}

        def called(*given: Tensor) -> Tensor:
            logits: Tensor = torch.func.functional_call(self._model, {**named, **leaves}, given)
            return logits

        with torch.enable_grad():
            loss = loss_of(called, Labelled(tokens, positions, targets), self._precision)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        squares = [gradient.square().sum() for gradient in found if gradient is not None]
        norm = torch.stack(squares).sum().sqrt()
        return loss.detach(), norm, *(None if gradient is None else gradient.contiguous() for gradient in found)


def _apart(gradients: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
    """Gradients that share no memory, as those of two summands may: an optimiser scales each of them in place."""
    seen: set[int] = set()
    for gradient in gradients:
        if gradient is None or gradient.data_ptr() not in seen:
            yield gradient
        else:
            yield gradient.clone()
        seen |= set() if gradient is None else {gradient.data_ptr()}
