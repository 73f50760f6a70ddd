"""Erasing and writing apart: what a token removes and what it adds have keys and strengths of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from miras_search.space.algorithm.protocol import ALGORITHM, Algorithm, Descent, Pairs, Writes
from miras_search.space.fields import require, setting
from miras_search.space.gates import Gate
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from miras_search.space.bias import Bias
    from miras_search.space.memory import Memory
else:
    torch = LazyModule("torch")

ERASE = Gate(source="data", squash="sigmoid", value=0.5, scope="key")


@ALGORITHM.register
@final
@dataclass(frozen=True, slots=True)
class EraseWrite(Descent):
    """Two writes a token: one forgets the value that a removal key h finds, one adds v at the key c (RWKV-7).

    The first reads at h and writes along r * h towards the value 0; the second reads nothing, at the key 0, and writes
    v along c. Under half the squared error that is the recurrence, with r the erase gate and e the step; for
    `gradient_at: decayed` h reads a * S' instead of S'.
    """

    name: ClassVar[str] = "erase_write"
    equation: ClassVar[str] = "S_t = (diag(a_t) - (r_t * h_t)^T h_t) S_{t-1} + e_t c_t^T v_t"
    source: ClassVar[str] = (
        "RWKV-7 (2025); Miras' Table 1 gives it one key and strength; with shared keys the delta rule with erase and "
        "write strengths apart"
    )

    erase: Gate = setting(ERASE, "the share erased of what the removal key finds: one a head, or one a key channel")
    own_keys: bool = setting(True, "project a removal key of its own; false erases and writes at one key")
    unit: bool = setting(False, "make the removal key, and it alone, of length 1 (RWKV-7 with model.qk_norm: none)")

    def __post_init__(self) -> None:
        erase = self.erase
        if erase.source == "fixed":
            require(0 <= erase.value <= 2, "erase", f"a fixed erase gate lies in [0, 2], got {erase.value:g}")
            return
        require(erase.squash == "sigmoid", "erase", "an erase gate is squashed by a sigmoid")
        require(erase.reach <= 2, "erase", f"an erase gate lies in [0, 2]: its reach is {erase.reach:g}")
        known = erase.scope in ("head", "key")
        require(known, "erase", f"an erase gate has values by head or key, not by {erase.scope}")

    @property
    def writes(self) -> int:
        """Erase, then write."""
        return 2

    @property
    def keys(self) -> int:
        """The removal key and the write's, or one for both."""
        return 2 if self.own_keys else 1

    @property
    def splits_keys(self) -> bool:
        """The second write reads nothing."""
        return True

    def assemble(self, pairs: Pairs, gates: Mapping[str, Tensor], bias: Bias) -> Writes:
        """(read h, write r * h, value 0, step 1), then (read 0, write c, value v, step e)."""
        h, c = pairs.k[:, :, :1], pairs.k[:, :, -1:]
        if self.unit:
            h = h * torch.rsqrt(h.square().sum(-1, keepdim=True) + 1e-6)
        erase, step = gates["erase"].unsqueeze(2), gates["step"]
        if erase.dim() < h.dim():
            erase = erase.unsqueeze(-1)

        def both(first: Tensor, second: Tensor) -> Tensor:  # [B,T,1,H,..] twice -> [B,N,H,..]
            return torch.cat([first, second], 2).flatten(1, 2)

        return Writes(
            k=both(h, torch.zeros_like(h)),
            v=both(torch.zeros_like(pairs.v), pairs.v),
            step=both(torch.ones_like(step), step),
            w=both(erase * h, c),
        )

    def problem(self, memory: Memory, bias: Bias) -> str | None:
        """Only u = p - v erases exactly what is found and writes exactly v."""
        if bias.slope != 1.0:
            return "erasing is the gradient of half the squared error towards the value 0: use l2 with scale: half"
        return None

    def canonical(self) -> Algorithm:
        """Itself."""
        return self
