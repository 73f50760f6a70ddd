"""What a memory does with its network's output y: x + LN(y), each part optional; and its derivatives by hand.

The inner loss is differentiated through the norm, and the outer loop differentiates that again. Code with a backward of
its own takes `Finish.at`: torch's second derivative of a norm takes two dozen operators where a handful do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Finish:
    """(y, x) -> x + LN(y) for y and x [..,N,V]; an affine norm has `norm.weight` and `norm.bias` [..,1,V]."""

    residual: bool
    norm: bool
    affine: bool

    def __call__(self, y: Tensor, x: Tensor, static: Mapping[str, Tensor]) -> Tensor:
        """The function itself."""
        if self.norm:
            y = torch.nn.functional.layer_norm(y, y.shape[-1:], eps=EPS)
        return self._ended(y, x, static)

    def at(self, y: Tensor, static: Mapping[str, Tensor]) -> Place:
        """The function at one y, with its derivatives there; nothing of it is known to autograd."""
        if not self.norm:
            return Place(self, static, y, y, None, None)
        normed, mean, rate = torch.native_layer_norm(y, y.shape[-1:], None, None, EPS)
        return Place(self, static, y, normed, mean, rate)

    def again(self, y: Tensor, mean: Tensor, rate: Tensor, static: Mapping[str, Tensor]) -> Place:
        """The same from the mean and rate [..,N,1] that `at` has found, whatever they are where there is no norm."""
        if not self.norm:
            return self.at(y, static)
        return Place(self, static, y, (y - mean).mul_(rate), mean, rate)

    def _ended(self, normed: Tensor, x: Tensor, static: Mapping[str, Tensor]) -> Tensor:
        if self.affine:
            normed = normed * static["norm.weight"] + static["norm.bias"]
        return x + normed if self.residual else normed


@dataclass(frozen=True, slots=True)
class Place:
    """A `Finish` at one y. With n = LN(y) = r (y - mean), its Jacobian J = r (1 - 1/V - n n^T/V) is symmetric."""

    finish: Finish
    static: Mapping[str, Tensor]
    y: Tensor
    normed: Tensor
    mean: Tensor | None
    rate: Tensor | None

    def value(self, x: Tensor) -> Tensor:
        """finish(y, x)."""
        return self.finish._ended(self.normed, x, self.static)

    def pulled(self, g: Tensor) -> Tensor:
        """The gradient of y from that of the value, J (w g) with the norm's scale w."""
        return self._through(self._scaled(g))

    def along(self, g: Tensor) -> Tensor:
        """w g . n [..,N,1], what `bent` needs of the gradient g of the value."""
        found: Tensor = torch.linalg.vecdot(self._scaled(g), self.normed).unsqueeze(-1)
        return found

    def bent(self, along: Tensor, pulled: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """From the gradient c of d = pulled(g) those of g, w (J c), and of y; d and along(g) are given.

        -r/V ((c.d) n + (w g.n) J c + (c.n) d).
        """
        if self.rate is None:
            return gradient, torch.zeros_like(self.y)
        through, n, dot = self._through(gradient), self.normed, torch.linalg.vecdot
        found = dot(gradient, pulled).unsqueeze(-1) * n
        found.addcmul_(along, through).addcmul_(dot(gradient, n).unsqueeze(-1), pulled)
        return self._scaled(through), found.mul_(self.rate).mul_(-1 / n.shape[-1])

    def unbind(self) -> list[Place]:
        """The places along the first axis of y, which the static parameters do not have."""
        if self.mean is None or self.rate is None:
            return [Place(self.finish, self.static, y, y, None, None) for y in self.y]
        rows = zip(self.y.unbind(), self.normed.unbind(), self.mean.unbind(), self.rate.unbind(), strict=True)
        return [Place(self.finish, self.static, *row) for row in rows]

    def parameters(self, of_value: Tensor, g: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """The gradients of the static parameters, from those of the value and of `pulled(g)`."""
        if not self.finish.affine:
            return {}
        weight = of_value * self.normed + g * self._through(gradient)
        return {"norm.weight": weight.sum(-2, keepdim=True), "norm.bias": of_value.sum(-2, keepdim=True)}

    def _scaled(self, g: Tensor) -> Tensor:
        return g * self.static["norm.weight"] if self.finish.affine else g

    def _through(self, g: Tensor) -> Tensor:
        """J g."""
        if self.mean is None or self.rate is None:
            return g
        found: Tensor = torch.ops.aten.native_layer_norm_backward(
            g, self.y, self.y.shape[-1:], self.mean, self.rate, None, None, [True, False, False]
        )[0]
        return found
