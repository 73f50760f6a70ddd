"""The memory layer: projections, short convolution, features, gates, the memory itself, output norm and gate.

Legend: B batch, T tokens, N = T * writes, D model width, H heads, K key dimension of the memory, V value dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from miras_search.kernels import dispatch, recording
from miras_search.kernels.state import Layers, State
from miras_search.models import features
from miras_search.models.config import ModelConfig
from miras_search.models.controlled import controlled
from miras_search.models.convolution import CausalConvolution
from miras_search.models.gates import Gates
from miras_search.models.norms import rms_norm
from miras_search.models.rotary import rotate
from miras_search.space.algorithm import Pairs
from miras_search.space.control import Inputs
from miras_search.space.design import DesignPoint
from miras_search.space.gates import effective, times
from miras_search.space.memory import Static

VECTOR = 16  # numbers that the widest CPUs take at once
Observer = Callable[[Inputs, Layers, Static], None]
"""Told what a memory is given, its start and its static parameters."""


class MixerState(NamedTuple):
    """What a layer carries between segments: the convolution's last inputs [B,width-1,C], the memory's state, and how
    many tokens it has seen.
    """

    past: Tensor | None
    memory: State
    position: int


class Mixer(nn.Module):
    """x [B,T,D] -> [B,T,D] through one associative memory a head."""

    def __init__(self, config: ModelConfig, design: DesignPoint) -> None:
        super().__init__()
        config = controlled(config, design.control)
        self.config, self.design = config, design
        heads, keys, values = config.heads, config.keys, config.values
        self.is_normalised = config.normaliser == "sum"
        algorithm = design.algorithm
        self.gates = Gates(design, heads, config.memory_keys, values)
        projected = 0 if design.retention.keep.tie == "key" else algorithm.keys
        self.widths = [heads * keys, projected * heads * keys, algorithm.values * heads * values]  # q, k, v
        gate_out = heads * values if config.output_gate else 0
        # one product for everything read from the input: small models are bound by operators, not arithmetic
        self.split = [sum(self.widths), gate_out, self.gates.width]
        self.project = nn.Linear(config.d_model, sum(self.split), bias=False)
        self.conv = CausalConvolution(sum(self.widths), config.conv) if config.conv else None
        # a normalised memory starts empty: what it holds is a mean of values, and a start would be one of none
        self.shapes = design.memory.layers(config.memory_keys, values + self.is_normalised) if design.descends else ()
        self.has_start = design.memory.trained_start and not self.is_normalised
        shapes = self.shapes if self.has_start else ()
        self.start = nn.ParameterList(nn.Parameter(torch.empty(heads, s.rows, s.cols)) for s in shapes)
        static = design.static(config.memory_keys, values)
        self.static = nn.ParameterDict(
            {name.replace(".", "_"): nn.Parameter(torch.empty(heads, *shape)) for name, (shape, _) in static.items()}
        )
        self.norm = nn.Parameter(torch.empty(values)) if config.output_norm == "rms" else None
        self.out = nn.Linear(heads * values, config.d_model, bias=False)
        self.step_scale: Tensor | None
        self.register_buffer("step_scale", None, persistent=False)  # a scalar where steps are scaled
        self.observer: Observer | None = None

    def initialise(self, generator: torch.Generator) -> None:
        """Projections at init_scale / sqrt(fan in); a deep memory starts random, a matrix empty; gates at their
        values.
        """
        scale = self.config.init_scale
        nn.init.normal_(self.project.weight, std=scale * self.config.d_model**-0.5, generator=generator)
        nn.init.normal_(self.out.weight, std=scale * self.out.in_features**-0.5, generator=generator)
        if self.conv is not None:
            self.conv.initialise(generator)
        self.gates.initialise(generator)
        if self.norm is not None:
            nn.init.ones_(self.norm)
        with torch.no_grad():
            drawn = []
            for weights, layer in zip(self.start, self.shapes, strict=False):
                std = 0.0 if self.design.memory.bare or layer.diagonal else layer.rows**-0.5
                drawn.append(torch.randn(weights.shape, generator=generator) * std)
            starts = self.design.retention.starts(tuple(drawn)) if drawn else ()  # a start of zeros is not trained
            for weights, first in zip(self.start, starts, strict=True):
                weights.copy_(first)
        for name, (_, value) in self.design.static(self.config.memory_keys, self.config.values).items():
            nn.init.constant_(self.static[name.replace(".", "_")], value)

    def forward(self, x: Tensor, state: MixerState | None = None) -> tuple[Tensor, MixerState]:
        """The layer's output [B,T,D], and the state with which a next segment continues."""
        qkv, gate, raw = self._projected(x)
        past, position = None, 0 if state is None else state.position
        if self.conv is not None:
            qkv, past = self.conv(qkv, None if state is None else state.past)
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16 a deep memory is another function
            qkv = features.activate(self.config, qkv, self.widths[2]).to(self.project.weight)
            y, memory = self._remember(qkv, raw.to(self.project.weight), state)
        if self.config.output_gate:
            y = y * functional.silu(gate.contiguous())  # on a CPU, rows of a wider matrix take twice the time
        return self.out(y), MixerState(past, memory, position + x.shape[1])

    def _projected(self, x: Tensor) -> Iterable[Tensor]:
        """q, k and v side by side, the output's gate, and the numbers that gates are made of."""
        if recording.on():  # loops over rows as wide as they are used; as parts of wider ones they straddle cache lines
            *wide, gates = torch.split(self.project.weight, self.split)
            return [*(functional.linear(x, rows) for rows in wide), _narrow(x, gates)]
        return torch.split(self.project(x), self.split, -1)

    def _remember(self, qkv: Tensor, raw: Tensor, state: MixerState | None) -> tuple[Tensor, State]:
        """The memory's reads [B,T,H*V], normalised as the options say, and its state."""
        position = 0 if state is None else state.position
        inputs = self._inputs(qkv, self._scaled(self.gates(raw)), position)
        names = self.design.static(self.config.memory_keys, self.config.values)
        static = {name: self.static[name.replace(".", "_")] for name in names}
        if self.observer is not None:
            self.observer(inputs, self._start(), static)
        inputs = self.design.control.apply(inputs)
        y, memory = dispatch.run(self.design, inputs, self._start(), static, None if state is None else state.memory)
        if self.is_normalised:
            y = features.divided(y)
        if self.norm is not None:
            y = rms_norm(y, self.norm, self.config.norm_eps)
        return y.flatten(-2), memory

    def _scaled(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        """The gates with the layer's scale on the step: not on what an algorithm makes of it, which may be bounded."""
        if self.step_scale is None:
            return gates
        product = self.config.memory_keys if effective(self.design.step) == "key_value" else 0
        return {**gates, "step": times(gates["step"], self.step_scale, product)}

    def _start(self) -> Layers:
        """The memory's start [H,rows,cols] a layer: learned, or that of an empty memory."""
        if self.has_start:
            return tuple(self.start)
        zeros = (self.project.weight.new_zeros(self.config.heads, layer.rows, layer.cols) for layer in self.shapes)
        return self.design.retention.starts(tuple(zeros))

    def _features(self, x: Tensor, position: int, writes: int = 1) -> Tensor:
        """Keys or queries [B,N,H,K] of projections [B,N,H,D], tokens counted from `position`."""
        x = features.normalised(self.config.qk_norm, features.mapped(self.config.feature_map, _by_head(x)))
        x = x.transpose(1, 2)
        return rotate(x, position, writes) if self.config.rope else x

    def _inputs(self, qkv: Tensor, gates: dict[str, Tensor], position: int = 0) -> Inputs:
        """q [B,T,H,K] and the writes k [B,N,H,K], v [B,N,H,V] with their gates [B,N,H]."""
        algorithm = self.design.algorithm
        q, k, v = torch.split(qkv, self.widths, -1)
        batch, tokens, heads = q.shape[0], q.shape[1], self.config.heads
        q = self._features(q.reshape(batch, tokens, heads, -1), position)
        if self.design.retention.keep.tie == "key":
            k = -torch.expm1(gates["keep"])
        else:
            k = k.reshape(batch, tokens * algorithm.keys, heads, self.config.keys)
            k = self.design.control.keys(k, position * algorithm.keys)
            k = self._features(k, position, algorithm.keys)
        v = _by_head(v.reshape(batch, tokens * algorithm.values, heads, self.config.values)).transpose(1, 2)
        if self.is_normalised:
            v = features.counted(v)
        pairs = Pairs(*(x.view(batch, tokens, -1, *x.shape[2:]) for x in (k, v)))
        writes = algorithm.assemble(pairs, self._coupled(gates), self.design.bias)

        def per_write(slot: str) -> Tensor | None:
            value = gates.get(slot)
            return value if value is None or algorithm.writes == 1 else value.repeat_interleave(algorithm.writes, 1)

        return Inputs(
            q=q,
            k=writes.k,
            v=writes.v,
            log_keep=gates["keep"],
            step=writes.step,
            momentum=per_write("momentum") if algorithm.has_momentum else None,
            threshold=per_write("threshold"),
            w=writes.w,
            share=writes.share,
        )

    def _coupled(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gates with the step as the retention gate's objective has it: a e where both come from one objective."""
        if not self.design.retention.coupled:
            return gates
        step, keep = gates["step"], torch.exp(gates["keep"]).unsqueeze(2)  # [B,T,steps,H], perhaps [..,C] by channel
        if step.dim() != keep.dim():  # one of them is by channel: so is then the other
            channels = max(step, keep, key=Tensor.dim).shape[-1]
            product = self.config.memory_keys if self.design.scopes["step"] == "key_value" else 0
            step, keep = (
                x if x.dim() > 4 else times(x.new_ones(*x.shape, channels), x.unsqueeze(-1), product)
                for x in (step, keep)
            )
        # keep acts before a token's first write only
        return {**gates, "step": torch.cat([step[:, :, :1] * keep, step[:, :, 1:]], 2)}


def _by_head(x: Tensor) -> Tensor:
    """[B,N,H,D] -> [B,H,N,D], in memory too where the chunkwise form takes it so: one copy here and none after it."""
    x = x.transpose(1, 2)
    return x if x.is_cuda else x.contiguous()  # Triton's kernels take the order of the axes that was there


def _narrow(x: Tensor, weight: Tensor) -> Tensor:
    """x [B,T,D] times weight [n,D] transposed: [B,T,n]. Where n numbers fill no vector of a CPU, one channel's lie
    together, token after token, and so does what is computed of them.
    """
    if len(weight) >= VECTOR:
        return functional.linear(x, weight)
    found: Tensor = torch.mm(weight, x.flatten(0, 1).t()).t().unflatten(0, x.shape[:2])
    return found
