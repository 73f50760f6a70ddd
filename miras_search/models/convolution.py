"""Causal depthwise convolution along time, whole sequences and streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CausalConvolution(nn.Module):
    """y_t = sum_j w_j x_{t-j}, one filter of `width` taps a channel.

    As a sum of shifted products: a grouped convolution of so few taps is several times slower on a CPU.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(width, channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform within 1/sqrt(width), as a convolution starts by default."""
        nn.init.uniform_(self.weight, -(self.width**-0.5), self.width**-0.5, generator=generator)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The convolved [B,T,C], and the last width-1 inputs [B,width-1,C], which a next segment takes as `past`."""
        tokens = x.shape[1]
        if past is None:
            past = x.new_zeros(x.shape[0], self.width - 1, x.shape[2])
        padded = torch.cat([past, x], 1)
        y = self.weight[0] * x
        for j in range(1, self.width):
            y = torch.addcmul(y, self.weight[j], padded[:, self.width - 1 - j : self.width - 1 - j + tokens])
        return y, padded[:, tokens:]
