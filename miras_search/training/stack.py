"""Models of one shape as one matrix of parameters, a row a model, computed together.

A small model is bound by the number of its operators, not by arithmetic: `torch.func.vmap` runs every operator once for
all rows. Rows never meet in an operator, so no model sees anything of its mates, not even one whose numbers have become
infinite. One matrix rather than a tensor a parameter: the optimiser's dozen operators then run once, not once a
parameter.

Legend: P models, N parameters of one of them, B sequences, T tokens, M labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miras_search.models.language import LanguageModel
from miras_search.tasks import IGNORE, Batch
from miras_search.training.compiled import compiled
from miras_search.training.evaluate import Labelled, autocast, cross_entropy
from miras_search.training.optimiser import split_by_decay


class Stack:
    """Models that differ in their parameters and in the scale of their steps only; the first one lends its code."""

    def __init__(
        self, models: Sequence[LanguageModel], device: torch.device, precision: str, shape: str | None = None
    ) -> None:
        """With a `shape`, that of the models' jobs, losses and gradients are compiled."""
        self.template = models[0].to(device)
        self._parameters = dict(self.template.named_parameters())
        self._sizes = [parameter.numel() for parameter in self._parameters.values()]
        self._device, self._precision = device, precision
        rows = [torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()]) for model in models]
        self.rows = torch.stack(rows).to(device)
        """[P, N]"""
        self.scales = tuple(model.step_scale for model in models)
        named = [dict(model.named_buffers()) for model in models]
        self._buffers = {name: torch.stack([one[name].to(device) for one in named]) for name in named[0]}
        self._loss = torch.func.vmap(self._loss_of_one)
        self._score = torch.func.vmap(self._score_of_one)
        self._found = self._descent if shape is None else compiled(f"{shape} x {len(rows)}", self._descent)

    @property
    def decayed(self) -> Tensor:
        """[N] 1 where weight decay acts, else 0."""
        decayed = {id(parameter) for parameter in split_by_decay(self.template)[0]}
        parts = [torch.full((p.numel(),), float(id(p) in decayed)) for p in self._parameters.values()]
        return torch.cat(parts).to(self._device)

    def descend(self, batch: Labelled) -> tuple[Tensor, Tensor]:
        """[P] the loss of each model on its own batch, tensors [P, B, ...], and [P, N] its gradient."""
        losses, grads = self._found(*self._inputs(batch))
        assert losses is not None
        assert grads is not None
        return losses, grads

    def descend_in_torch(self, batch: Labelled) -> tuple[Tensor, Tensor]:
        """The same operator by operator."""
        return self._descent(*self._inputs(batch))

    def _inputs(self, batch: Labelled) -> tuple[Tensor, ...]:
        return self.rows, batch.tokens, batch.positions, batch.targets, *self._buffers.values()

    def _descent(
        self, rows: Tensor, tokens: Tensor, positions: Tensor, targets: Tensor, *held: Tensor
    ) -> tuple[Tensor, Tensor]:
        leaves, buffers = rows.detach().requires_grad_(), dict(zip(self._buffers, held, strict=True))
        with torch.enable_grad():
            losses = self._loss(leaves, buffers, tokens, positions, targets)
        # the sum has a gradient of one for every loss: row i is the gradient of loss i alone
        (grads,) = torch.autograd.grad(losses.sum(), leaves)
        return losses.detach(), grads

    @torch.no_grad()
    def score(self, batch: Labelled) -> Tensor:
        """[P, 3] labels right, sum of the losses, labels of each model on its own sequences."""
        sums: Tensor = self._score(self.rows, self._buffers, batch.tokens, batch.positions, batch.targets)
        return sums

    def model(self, index: int) -> LanguageModel:
        """The model of a row, in the template: valid until the next call."""
        parts = torch.split(self.rows[index], self._sizes)
        with torch.no_grad():
            for parameter, values in zip(self._parameters.values(), parts, strict=True):
                parameter.copy_(values.view_as(parameter))
        if self.template.step_scale != self.scales[index]:
            self.template.scale_steps(self.scales[index])
        return self.template

    def named(self, row: Tensor) -> dict[str, Tensor]:
        """The parameters in a row [N], or their gradients, by name."""
        parts = torch.split(row, self._sizes)  # one split: its backward is one concatenation
        return {
            name: part.view(parameter.shape)
            for (name, parameter), part in zip(self._parameters.items(), parts, strict=True)
        }

    def _logits(self, row: Tensor, buffers: dict[str, Tensor], tokens: Tensor, positions: Tensor) -> Tensor:
        named = self.named(row)
        with autocast(self._device, self._precision):
            logits: Tensor = torch.func.functional_call(self.template, {**named, **buffers}, (tokens, positions))
        return logits

    def _loss_of_one(
        self, row: Tensor, buffers: dict[str, Tensor], tokens: Tensor, positions: Tensor, targets: Tensor
    ) -> Tensor:
        return cross_entropy(self._logits(row, buffers, tokens, positions), targets)

    def _score_of_one(
        self, row: Tensor, buffers: dict[str, Tensor], tokens: Tensor, positions: Tensor, targets: Tensor
    ) -> Tensor:
        logits = self._logits(row, buffers, tokens, positions)
        labelled = targets != IGNORE
        right = ((logits.argmax(-1) == targets) & labelled).sum()
        return torch.stack([right.float(), cross_entropy(logits, targets, reduction="sum"), labelled.sum().float()])


def stacked(batches: Sequence[Batch], device: torch.device) -> Labelled:
    """The batches of P models as tensors [P, B, ...] of the device."""
    on_cpu = [Labelled.of(batch, torch.device("cpu")) for batch in batches]
    parts = (
        torch.stack([one.tokens for one in on_cpu]),
        torch.stack([one.positions for one in on_cpu]),
        torch.stack([one.targets for one in on_cpu]),
    )
    if device.type != "cuda":
        return Labelled(*parts)
    # pinned, so that the copy waits in the stream and the host goes on to the next batch
    return Labelled(*(part.pin_memory().to(device, non_blocking=True) for part in parts))
