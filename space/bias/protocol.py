"""What every bias offers, the axis they register on, and the few numerical helpers they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from miras_search.space.jit import Jit
from miras_search.space.lazy import LazyModule
from miras_search.space.option import Axis, Facts

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

EPS = 1e-12  # inside norms: the gradient of |r| at r = 0 is 0, not NaN

# Scopes that the threshold of a bias may have, by what one number of it serves.
NO_THRESHOLD: Final[tuple[str, ...]] = ()
PER_HEAD: Final[tuple[str, ...]] = ("head",)  # compared with a norm, so one number [..., 1] for all channels
PER_CHANNEL: Final[tuple[str, ...]] = ("head", "value")  # compared channel by channel: [..., 1] or [..., V]


class Bias(Facts, Protocol):
    """What the kernels need to know of a bias."""

    @property
    def couples_channels(self) -> bool:
        """Whether the signal of one channel depends on the others."""

    @property
    def slope(self) -> float | None:
        """g where u = g p + (a function of v): a signal linear in p can be solved exactly; else None."""

    @property
    def triton(self) -> Jit | None:
        """The module with the signal as jit functions (`kernels/triton/signals.py`); None: there is none."""

    @property
    def threshold_scopes(self) -> tuple[str, ...]:
        """The scopes that the gate of the threshold may have: `head`, `value`; none where there is no threshold."""

    def loss(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor | None:
        """The loss per token [...], or None where the bias is a rule for u and no loss is written down for it."""

    def signal(self, p: Tensor, v: Tensor, threshold: Tensor | None) -> Tensor:
        """u = dl/dp, [..., V], differentiable."""

    def canonical(self) -> Bias:
        """The simplest spelling of the same function."""


BIAS: Axis[Bias] = Axis("bias", "the inner loss that the memory descends")


def safe_norm(r: Tensor) -> Tensor:
    """|r|_2 over the last axis, kept, with a finite gradient at 0."""
    return torch.sqrt(r.square().sum(-1, keepdim=True) + EPS)


def sign(r: Tensor) -> Tensor:
    """-1, 0 or 1; NaN stays NaN, which torch.sign makes 0, so that a diverged training would look alive."""
    return torch.where(r.isnan(), r, torch.sign(r))


def given(threshold: Tensor | None) -> Tensor:
    """The threshold, which a bias with one always gets. Raises `ValueError` where there is none."""
    if threshold is None:
        raise ValueError("this bias needs a threshold")
    return threshold


def per_head(threshold: Tensor | None) -> Tensor:
    """The threshold [..., 1] of a bias that compares it with a norm. Raises `ValueError` where channels have their own.

    One number for each channel would turn the gradient of the norm's loss into one that no loss has.
    """
    threshold = given(threshold)
    if threshold.shape[-1] != 1:
        raise ValueError(f"this bias compares its threshold with a norm: one a head, got {threshold.shape[-1]}")
    return threshold
