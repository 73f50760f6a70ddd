"""The gates of a memory layer: fixed numbers, learned parameters, or a share of the layer's input projection."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from miras_search.space.design import DesignPoint
from miras_search.space.gates import LOG_FLOOR, Gate


class Gates(nn.Module):
    """Turns raw projections into gate values, slot by slot.

    `width` raw channels are wanted from the layer's projection: one a head for each data-dependent gate, and for the
    step one a head and write. Raw projections plus a bias are squashed; a learned gate is the bias alone.
    """

    def __init__(self, design: DesignPoint, heads: int) -> None:
        super().__init__()
        self.design, self.heads = design, heads
        self.widths = {slot: heads * (design.algorithm.writes if slot == "step" else 1) for slot in design.gates}
        data = [slot for slot, gate in design.gates.items() if gate.source == "data"]
        self.slices: dict[str, slice] = {}
        for slot in data:
            begin = sum(self.widths[s] for s in self.slices)
            self.slices[slot] = slice(begin, begin + self.widths[slot])
        self.width = sum(self.widths[slot] for slot in data)
        self.bias = nn.ParameterDict()
        self.log_rate = nn.ParameterDict()
        for slot, gate in design.gates.items():
            if gate.source != "fixed":
                self.bias[slot] = nn.Parameter(torch.empty(self.widths[slot]))
                if gate.squash == "mamba":
                    self.log_rate[slot] = nn.Parameter(torch.empty(self.widths[slot]))

    def initialise(self) -> None:
        """Every gate at its starting value."""
        for slot, parameter in self.bias.items():
            nn.init.constant_(parameter, self.design.gates[slot].start)
        for parameter in self.log_rate.values():
            nn.init.zeros_(parameter)

    def forward(self, raw: Tensor) -> dict[str, Tensor]:
        """Gate values by slot [B,T,width] from raw projections [B,T,self.width]; `keep` in log space."""
        return {slot: self._value(slot, gate, raw) for slot, gate in self.design.gates.items()}

    def _value(self, slot: str, gate: Gate, raw: Tensor) -> Tensor:
        shape = (*raw.shape[:-1], self.widths[slot])
        if gate.source == "fixed":
            value = gate.value
            if slot == "keep":
                value = max(math.log(value), LOG_FLOOR) if value > 0 else LOG_FLOOR
            return raw.new_full((), value).expand(shape)
        total = (
            self.bias[slot] + raw[..., self.slices[slot]] if gate.source == "data" else self.bias[slot].expand(shape)
        )
        if slot != "keep":
            return gate.squashed(total)
        return gate.log_squashed(total, self.log_rate.get(slot))
