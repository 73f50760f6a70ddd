"""The gates of a memory layer: fixed numbers, learned parameters, or a share of the layer's input projection."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from miras_search.space.design import DesignPoint
from miras_search.space.gates import LOG_FLOOR, effective


class Gates(nn.Module):
    """Turns raw projections into gate values, slot by slot.

    `width` raw channels are wanted from the layer's projection: for each data-dependent gate its values a token, or its
    bottleneck, which a matrix of its own then widens. Raw values plus a bias are squashed; a learned gate is the bias
    alone. A slot's values are laid out as [repeats, heads, channels].
    """

    def __init__(self, design: DesignPoint, heads: int, keys: int, values: int) -> None:
        super().__init__()
        self.design = design
        self.shapes = {
            slot: (
                design.algorithm.repeats(slot),
                heads,
                gate.width(keys, values) if effective(gate) != "head" else 1,
            )
            for slot, gate in design.gates.items()
        }
        self.slices: dict[str, slice] = {}
        self.width = 0
        self.bias, self.log_rate, self.widen = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for slot, gate in design.gates.items():
            wide = math.prod(self.shapes[slot])
            if gate.source == "fixed":
                continue
            if gate.tie != "step":
                self.bias[slot] = nn.Parameter(torch.empty(wide))
                if gate.source == "data":
                    narrow = gate.rank or wide
                    self.slices[slot] = slice(self.width, self.width + narrow)
                    self.width += narrow
                    if gate.rank:
                        self.widen[slot] = nn.Parameter(torch.empty(gate.rank, wide))
            if gate.squash == "mamba":
                self.log_rate[slot] = nn.Parameter(torch.empty(wide))

    def initialise(self, generator: torch.Generator) -> None:
        """Every gate at its starting value."""
        for slot, parameter in self.bias.items():
            self._by_head(slot, parameter, self.design.gates[slot].starts(self.shapes[slot][1]))
        for slot, parameter in self.log_rate.items():
            gate, step = self.design.gates[slot], self.design.step.factor
            factors = gate.factors(self.shapes[slot][1])
            tied = gate.tie == "step"
            self._by_head(slot, parameter, tuple(math.log(-math.log(x) / step) if tied else 0.0 for x in factors))
        for parameter in self.widen.values():
            nn.init.normal_(parameter, std=parameter.shape[0] ** -0.5, generator=generator)

    @torch.no_grad()
    def _by_head(self, slot: str, parameter: Tensor, values: tuple[float, ...]) -> None:
        """Fill a slot's parameter with one value a head."""
        shape = self.shapes[slot]
        parameter.view(shape).copy_(parameter.new_tensor(values).view(1, -1, 1).expand(shape))

    def forward(self, raw: Tensor) -> dict[str, Tensor]:
        """Gate values by slot from raw projections [B,T,self.width]: [B,T,H], or [B,T,H,C] by channel, `keep` in log
        space; the step [B,T,steps,H] or [B,T,steps,H,C]; other slots with several values a token [B,T,H,n].
        """
        found = {slot: self._value(slot, raw) for slot in self.shapes}
        keep = self.design.gates["keep"]
        if keep.tie == "step":
            rate = torch.exp(self.log_rate["keep"]).view(self.shapes["keep"])
            found["keep"] = (-rate * found["step"]).clamp(min=LOG_FLOOR)
        return {slot: self._laid_out(slot, value) for slot, value in found.items()}

    def _laid_out(self, slot: str, value: Tensor) -> Tensor:
        """[B,T,n,H,C] without the axes that the slot does not have."""
        if effective(self.design.gates[slot]) == "head":
            value = value.squeeze(-1)
        if slot == "step":
            return value
        return value.squeeze(2) if self.shapes[slot][0] == 1 else value.movedim(2, -1)

    def _value(self, slot: str, raw: Tensor) -> Tensor:
        gate = self.design.gates[slot]
        shape = (*raw.shape[:2], *self.shapes[slot])
        if gate.source == "fixed" and gate.ladder != "none":
            heads = [_fixed(slot, value) for value in gate.rungs(shape[-2])]
            return torch.tensor(heads, dtype=raw.dtype, device=raw.device).view(-1, 1).expand(shape)
        if gate.source == "fixed":
            return raw.new_full((), _fixed(slot, gate.value)).expand(shape)
        if gate.tie == "step":  # filled in from the step
            return raw.new_zeros(()).expand(shape)
        total = self.bias[slot]
        if gate.source == "data":
            own = raw[..., self.slices[slot]]
            total = total + (own @ self.widen[slot] if gate.rank else own)
        total = total.expand(*raw.shape[:2], -1).reshape(shape)
        if slot != "keep":
            return gate.squashed(total)
        rate = self.log_rate.get(slot)
        return gate.log_squashed(total, None if rate is None else rate.view(self.shapes[slot]))


def _fixed(slot: str, value: float) -> float:
    if slot != "keep":
        return value
    return max(math.log(value), LOG_FLOOR) if value > 0 else LOG_FLOOR
