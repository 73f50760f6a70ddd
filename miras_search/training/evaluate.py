"""Loss and accuracy of a model on labelled tokens.

Both are micro averages: every label of the split counts the same, whichever sequence it is in. The loss is the
cross-entropy in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from miras_search.models.language import LanguageModel
from miras_search.tasks import IGNORE, Batch


@final
@dataclass(frozen=True, slots=True)
class Score:
    """What a split gave."""

    accuracy: float
    loss: float

    @property
    def finite(self) -> bool:
        """Whether the loss is a number; the accuracy of logits that are not numbers means nothing."""
        return math.isfinite(self.loss)


@final
@dataclass(frozen=True, slots=True)
class Labelled:
    """A batch on its device. Shapes: B sequences, T tokens, M labels."""

    tokens: Tensor
    """[B, T]"""
    positions: Tensor
    """[B, M]"""
    targets: Tensor
    """[B, M], `IGNORE` where the slot is padding"""

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Labelled:
        """The arrays of a task's batch as tensors of the device."""
        arrays = (batch.tokens, batch.positions, batch.targets)
        tokens, positions, targets = (torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
        return cls(tokens, positions, targets)

    def split(self, size: int) -> list[Labelled]:
        """Parts of at most `size` sequences."""
        whole = (self.tokens, self.positions, self.targets)
        return [Labelled(*part) for part in zip(*(torch.split(x, size) for x in whole), strict=True)]


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits [B, M, V] over the labelled slots of [B, M], in float32: a scalar."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction=reduction)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The region in which products run at a precision: `float32` changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()  # not inference_mode: a memory may take gradients of its inner loss inside its forward pass
def evaluate(
    model: LanguageModel,
    data: Labelled,
    size: int,
    precision: str = "float32",
    *,
    between: Callable[[], None] = lambda: None,
) -> Score:
    """The score of a model on a split, `size` sequences at a time, calling `between` before each of them.

    A split without labels scores nan.
    """
    was_training = model.training
    model.eval()
    loss, right, labels = (torch.zeros((), device=data.tokens.device) for _ in range(3))
    for part in data.split(size):
        between()
        with autocast(part.tokens.device, precision):
            logits = model(part.tokens, part.positions)
        labelled = part.targets != IGNORE
        loss += cross_entropy(logits, part.targets, reduction="sum")
        right += ((logits.argmax(-1) == part.targets) & labelled).sum()
        labels += labelled.sum()
    model.train(was_training)
    accuracy, mean = (torch.stack([right, loss]) / labels).tolist()
    return Score(accuracy=accuracy, loss=mean)
