"""Retention by an f-divergence: the memory stays on a simplex, and the divergence says what a write may do to it.

W = W' g_f(-z - e g) with g_f the inverse of f' and z such that a slice sums to c. Every g_f is written here as a
falling function G of the distance u from an end of its domain (y = 1 - u for kl and hellinger, else y = -u), so that
u = z - change up to a constant: weights that hold almost all mass, or almost none, then lose no digits. z is bracketed
by what each weight alone allows, found by bisection and Newton steps without gradient, and one Newton step more with
gradient: by the implicit function theorem its derivatives are those of the exact z. W `[B,H,rows,cols]`; z `[B,H,1,1]`,
or one a column or a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import Gate, Scope, fixed
from miras_search.space.lazy import LazyModule
from miras_search.space.retention.kl import Slice, softmax_over
from miras_search.space.retention.protocol import RETENTION, Primal, Retention, Static, check_keep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

Divergence = Literal["reverse_kl", "chi_squared", "hellinger", "kl"]

BISECTIONS = 12
NEWTONS = 6  # G is convex and the bracket's lower end is left of the root, so that they only come nearer
TINY = 1e-18  # the least share of a slice's sum: what multiplies it to the whole, squared, is finite in float32
AXES: dict[Slice, tuple[int, ...]] = {"column": (-2,), "row": (-1,), "whole": (-2, -1)}


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class FDivergence(Primal):
    """Weights on a simplex, as near to the old ones as the write allows, in the sense of an f-divergence.

    It acts on the weights in place, so it runs write by write. The learned start is c softmax(parameter).
    """

    name: ClassVar[str] = "f_divergence"
    equation: ClassVar[str] = (
        "W_t = W' g_f(-z - e_t g_t), z such that each slice sums to c;  reverse_kl: f = -ln r, g = -1/y;  chi_squared: "
        "f = (r - 1)^2, g = max(0, 1 + y/2);  hellinger: f = (sqrt r - 1)^2, g = 1/(1 - y)^2;  kl: f = r ln r, "
        "g = exp(y - 1);  keep (not in the paper): W' = a W_{t-1} + (1 - a) c/n"
    )
    source: ClassVar[str] = "Miras, Eq. 18 and Variant 1; the Hellinger distance and keep are not in the paper"
    objective: ClassVar[str] = "<W - W', g> + 1/e sum W' f(W/W') on {W >= 0, slice sum = c}"

    divergence: Divergence = setting("reverse_kl", "f: how dear it is to shrink or to grow a weight", named=True)
    slice: Slice = setting(
        "column", "what sums to c: one output's weights (column), one input's (row), or the whole matrix"
    )
    scale: float = setting(1.0, "c, the sum of a slice")
    keep: Gate = setting(
        fixed(1.0), "the share of the old weights that stays, the rest being uniform; not in the paper, which keeps all"
    )

    def __post_init__(self) -> None:
        check_keep(self.keep)
        require(self.scale > 0, "scale", f"{self.scale:g}: a slice sums to a positive number")

    @property
    def keep_scopes(self) -> tuple[Scope, ...]:
        """Constant inside a slice, or mixing would change its sum."""
        own: dict[Slice, tuple[Scope, ...]] = {"column": ("value",), "row": ("key",), "whole": ()}
        return ("head", *own[self.slice])

    def origin(self, parameter: Tensor) -> Tensor:
        """c softmax(parameter), which is on the simplex whatever the outer loop does; near uniform for small ones."""
        return self.scale * softmax_over(parameter, self.slice)

    def step(self, weights: Tensor, keep: Tensor, change: Tensor, step: Tensor, static: Static) -> Tensor:
        """W' G(u), u = z - change."""
        axes = AXES[self.slice]
        count = 1
        for axis in axes:
            count *= weights.shape[axis]
        old = keep * weights + (1 - keep) * (self.scale / count)
        old = old.clamp(min=TINY * self.scale)
        change = change - change.detach().amax(axes, keepdim=True)  # z absorbs it
        z = self._multiplier(old, change, axes)
        return old * FORMS[self.divergence].growth(z - change)

    def _multiplier(self, old: Tensor, change: Tensor, axes: tuple[int, ...]) -> Tensor:
        """z with sum old G(z - change) = c over each slice."""
        form = FORMS[self.divergence]
        with torch.no_grad():
            total = old.sum(axes, keepdim=True)
            # below `low` one weight alone would exceed c; at G = c / total everywhere the sum is c
            alone = form.distance(self.scale / old)
            even = form.distance(self.scale / total)
            low = torch.maximum((change + alone).amax(axes, keepdim=True), change.amin(axes, keepdim=True) + even)
            high = torch.maximum(even, low)
            for _ in range(BISECTIONS):
                middle = (low * high).sqrt() if form.has_pole else (low + high) / 2
                above = (old * form.growth(middle - change)).sum(axes, keepdim=True) > self.scale
                low, high = torch.where(above, middle, low), torch.where(above, high, middle)
            z = low
            for _ in range(NEWTONS):
                z = z + self._excess(z, old, change, axes) / self._fall(z, old, change, axes)
            fall = self._fall(z, old, change, axes)
        return z + self._excess(z, old, change, axes) / fall

    def _excess(self, z: Tensor, old: Tensor, change: Tensor, axes: tuple[int, ...]) -> Tensor:
        """What a slice has too much."""
        return (old * FORMS[self.divergence].growth(z - change)).sum(axes, keepdim=True) - self.scale

    def _fall(self, z: Tensor, old: Tensor, change: Tensor, axes: tuple[int, ...]) -> Tensor:
        """How fast that falls with z."""
        return (old * FORMS[self.divergence].fall(z - change)).sum(axes, keepdim=True).clamp(min=TINY)

    def canonical(self) -> Retention:
        """Itself. At keep 1 its kl is the kl gate, but only while a link is refreshed at every token: `link_refresh`
        means nothing to weights that are changed in place, and is another function there.
        """
        return self


class Form(NamedTuple):
    """A divergence as a falling function G(u) = g_f(y) of the distance u from an end of its domain."""

    growth: Callable[[Tensor], Tensor]
    """G(u), by what a weight is multiplied"""
    fall: Callable[[Tensor], Tensor]
    """-G'(u)"""
    distance: Callable[[Tensor], Tensor]
    """the u at which a weight is multiplied by this ratio"""
    has_pole: bool = False
    """whether G is infinite at u = 0, so that u is positive and may be very small"""


FORMS: dict[Divergence, Form] = {
    "reverse_kl": Form(
        lambda u: 1 / u.clamp(min=TINY),
        lambda u: 1 / u.clamp(min=TINY).square(),
        lambda ratio: 1 / ratio,
        has_pole=True,
    ),
    "chi_squared": Form(
        lambda u: (1 - u / 2).clamp(min=0),
        lambda u: (u < 2).to(u.dtype) / 2,
        lambda ratio: 2 * (1 - ratio),
    ),
    "hellinger": Form(
        lambda u: 1 / u.clamp(min=TINY ** (1 / 2)).square(),
        lambda u: 2 / u.clamp(min=TINY ** (1 / 2)).pow(3),
        lambda ratio: ratio.rsqrt(),
        has_pole=True,
    ),
    "kl": Form(lambda u: torch.exp(-u), lambda u: torch.exp(-u), lambda ratio: -torch.log(ratio)),
}
