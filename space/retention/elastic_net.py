"""Retention by an elastic net: keep fades all weights, and a threshold forgets the small ones altogether.

The same penalty gives two gates. Learning-Retaining thresholds the weights themselves after every write; the threshold
then grows with the step. FTRL keeps the sum of all writes and thresholds what is read of it, by a constant: a weight
that was forgotten comes back as soon as enough has been written. Shapes: W, Z `[B,H,rows,cols]`, threshold `[B,H,1,1]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, final

from miras_search.space.fields import require, setting
from miras_search.space.gates import KEEP, Gate
from miras_search.space.jit import Jit
from miras_search.space.lazy import LazyModule
from miras_search.space.retention.l2 import L2Retention
from miras_search.space.retention.protocol import RETENTION, Dual, Parameters, Retention, Static, check_keep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

SHARPNESS = 50.0
FLOOR = 1e-12  # of arctan's threshold: its gradient at z = 0 and no threshold would be 0/0


@RETENTION.register
@final
@dataclass(frozen=True, slots=True)
class ElasticNet(Dual):
    """Soft forgetting by keep and hard forgetting by a threshold: small weights are exactly zero.

    The objective is that of the hard threshold. The smooth one stays within ln 2 / sharpness of it. The printed
    arctan takes only 0.64 of the threshold from large weights, is off by up to half of it, and is never exactly 0.
    The erasing write of erase_write has step 1, so in place it thresholds by the whole of shrink.
    """

    name: ClassVar[str] = "elastic_net"
    equation: ClassVar[str] = (
        "learning_retaining: W_t = S_y(a_t W' - e_t g_t), y = e_t shrink;  ftrl: Z_t = a_t Z_{t-1} - e_t g_t, "
        "W = S_shrink(Z);  S_y(z) = sign(z) max(0, |z| - y)  (hard), softplus_b(z - y) - softplus_b(-z - y)  (smooth), "
        "|z| arctan(z/y) 2/pi  (arctan);  coupled: e_t -> a_t e_t"
    )
    source: ClassVar[str] = (
        "Miras, Eq. 22 and Eq. 23, the 1/2 before |W|^2 restored; arctan: its printed surrogate; smooth: not in the "
        "paper"
    )
    objective: ClassVar[str] = (
        "learning_retaining: <W - W', g> + 1/(2e) |W - W'|^2 + 1/(2b) |W|^2 + shrink |W|_1, so a = b/(b+e), step a e;  "
        "ftrl: -<Z, W> + 1/2 |W|^2 + shrink |W|_1"
    )

    view: Literal["learning_retaining", "ftrl"] = setting(
        "learning_retaining", "threshold the weights in place at every write, or the sum of all writes when it is read",
        named=True,
    )  # fmt: skip
    threshold: Literal["hard", "smooth", "arctan"] = setting(
        "hard", "the soft-thresholding of the objective, a smooth form of it, or the paper's surrogate"
    )
    shrink: float = setting(0.01, "1/alpha, the weight of |W|_1; where it is learned, its starting value")
    learned_shrink: bool = setting(False, "train shrink, one a head")
    sharpness: float = setting(SHARPNESS, "b of the smooth threshold, which is off by ln 2 / b at most")
    keep: Gate = setting(KEEP, "lambda, the share of the old memory that stays before the threshold")
    coupled: bool = setting(False, "one objective with a local and a global term: the step is a e; else both are free")

    def __post_init__(self) -> None:
        check_keep(self.keep)
        fine = math.isfinite(self.shrink) and self.shrink >= 0
        require(fine, "shrink", f"{self.shrink:g} must be a number of at least 0: the weight of |W|_1")
        require(self.shrink > 0 or not self.learned_shrink, "shrink", "a learned one starts above 0")
        require(self.sharpness > 0, "sharpness", f"{self.sharpness:g} must be positive")

    @property
    def form(self) -> Literal["dual", "primal"]:
        """As the view has it."""
        return "dual" if self.view == "ftrl" else "primal"

    @property
    def identity(self) -> bool:
        """Where the weights themselves are kept, or nothing is taken from them."""
        return self.view == "learning_retaining" or self.shrink == 0

    @property
    def triton(self) -> Jit:
        """Its threshold, of what is read or of the weights in place."""
        numbers = (self.threshold, self.learned_shrink, self.shrink, self.sharpness)
        return Jit("miras_search.kernels.triton.link_elastic_net", numbers)

    def static(self) -> Parameters:
        """log shrink, if learned."""
        return {"link.log_shrink": ((1, 1), math.log(self.shrink))} if self.learned_shrink else {}

    def start(self, weights: Tensor) -> Tensor:
        """What the (hard) threshold turns into the weights."""
        return weights if self.identity else weights + self.shrink * torch.sign(weights)

    def link(self, dual: Tensor, static: Static) -> Tensor:
        """S_shrink(Z), or the weights as they are."""
        return dual if self.identity else self._thresholded(dual, self._shrink(dual, static))

    def step(self, weights: Tensor, keep: Tensor, change: Tensor, step: Tensor, static: Static) -> Tensor:
        """S_(e shrink)(a W' - e g); a step that a control turned round thresholds as before."""
        moved = keep * weights + change
        return moved if self.view == "ftrl" else self._thresholded(moved, step.abs() * self._shrink(moved, static))

    def _shrink(self, like: Tensor, static: Static) -> Tensor:
        return torch.exp(static["link.log_shrink"]) if self.learned_shrink else like.new_tensor(self.shrink)

    def _thresholded(self, z: Tensor, y: Tensor) -> Tensor:
        """S_y(z); its gradients are finite everywhere, at y = 0 too."""
        if self.threshold == "hard":
            return torch.where(z.abs() < y, torch.zeros_like(z), z - torch.sign(z) * y)  # NaN stays NaN
        if self.threshold == "smooth":
            above, below = self.sharpness * (z - y), self.sharpness * (-z - y)
            zero = torch.zeros_like(z)
            return (torch.logaddexp(above, zero) - torch.logaddexp(below, zero)) / self.sharpness
        return z.abs() * torch.atan2(z, y + FLOOR) * (2 / math.pi)

    def canonical(self) -> Retention:
        """Weight decay without a threshold; settings that do nothing are reset."""
        if self.shrink == 0:
            return L2Retention(self.keep, self.coupled).canonical()
        plain = self if self.threshold == "smooth" else replace(self, sharpness=SHARPNESS)
        return replace(plain, coupled=False) if plain.keep.is_one else plain
