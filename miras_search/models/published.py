"""Weights of published layers: tensors under flash-linear-attention's names into a mixer, and back out of it.

Its layers scale what they read by K^-1/2 before the norm of a head's output. A norm removes any scale but for the eps
under its root, so the mixer has that eps times K and is the same function; no weight changes. Legend: D model width,
H heads, K key dimension, V value dimension, R the gate's bottleneck, W taps of the convolution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from miras_search.errors import MirasError
from miras_search.models.config import ModelConfig
from miras_search.models.mixer import Mixer
from miras_search.space.design import DesignPoint
from miras_search.space.fields import FieldError, Plain

Kind = Literal["gated_delta_net", "delta_net", "gla"]
GATED: dict[Kind, bool] = {"gated_delta_net": True, "delta_net": False, "gla": True}
CONVOLVED: dict[Kind, bool] = {"gated_delta_net": True, "delta_net": True, "gla": False}
AROUND = ("layers", "feed_forward", "feed_forward_ratio", "tie_embeddings", "init_scale", "attention_every",
          "attention_window")  # fmt: skip  # settings of the model that a layer knows nothing of


class WeightsProblem(MirasError):
    """Tensors, or a mixer, that are not the layer they are said to be."""


class _Entry(NamedTuple):
    """One published tensor: its name, and the part of the mixer that holds it.

    A filter [C,1,W] there ends with the present token's tap; the mixer's [W,C], here turned to [C,W], begins with it.
    """

    name: str
    held: Tensor
    is_filter: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.held), 1, self.held.shape[1]) if self.is_filter else tuple(self.held.shape)

    def put(self, tensor: Tensor) -> None:
        self.held.copy_(tensor.squeeze(1).flip(-1) if self.is_filter else tensor)

    def taken(self) -> Tensor:
        held = self.held.flip(-1).unsqueeze(1) if self.is_filter else self.held
        return held.clone(memory_format=torch.contiguous_format)


class _Widths(NamedTuple):
    d_model: int
    keys: int
    values: int
    taps: int
    rank: int


@final
@dataclasses.dataclass(frozen=True, slots=True)
class PublishedLayer:
    """A layer of flash-linear-attention: its kind, and the arguments, by their names there, that no tensor shows.

    `gated_delta_net` is GatedDeltaNet, `delta_net` DeltaNet, `gla` GatedLinearAttention. `use_gate` (GLA's
    use_output_gate) and `use_short_conv` are the kind's own defaults where they are None. Other arguments are at their
    defaults, but for the widths, which are read from the tensors.
    """

    kind: Kind
    num_heads: int
    use_gate: bool | None = None
    use_short_conv: bool | None = None
    norm_eps: float = 1e-5
    allow_neg_eigval: bool = False
    gate_logit_normalizer: int = 16

    def __post_init__(self) -> None:
        if self.kind not in GATED:
            raise WeightsProblem(f"kind: '{self.kind}' is not a layer known here: write one of {', '.join(GATED)}")
        if self.num_heads < 1:
            raise WeightsProblem(f"num_heads: {self.num_heads} must be at least 1")
        if self.allow_neg_eigval and self.kind == "gla":
            raise WeightsProblem("allow_neg_eigval: gla has no beta that could be doubled: leave it out")

    def settings(self, state: Mapping[str, Tensor]) -> tuple[ModelConfig, DesignPoint]:
        """The configuration and design of a mixer that is this layer, with the widths of the tensors.

        Raises `WeightsProblem` where a tensor that tells a width is missing or does not divide into heads.
        """
        return self._settings(self._widths(state))

    def mixer(self, state: Mapping[str, Tensor]) -> Mixer:
        """A mixer that is this layer with these weights, in float32, or float64 where they are.

        Its gates' biases that the layer does not have are not trained, so that `weights` can always write it out.
        Raises `WeightsProblem`.
        """
        mixer = Mixer(*self.settings(state))
        mixer = mixer.to(torch.promote_types(state["q_proj.weight"].dtype, torch.float32))
        self.load(mixer, state)
        for bias in self._absent(mixer):
            bias.requires_grad_(False)
        return mixer

    @torch.no_grad()
    def load(self, mixer: Mixer, state: Mapping[str, Tensor]) -> None:
        """Put the tensors into a mixer; what the published layer does not have becomes 0.

        Raises `WeightsProblem`, before anything is changed, where the mixer is not this layer, or where a tensor is
        missing, unknown, or of another shape.
        """
        self._check(mixer, self._widths(state))
        entries = list(self._entries(mixer))
        self._check_names(set(state), {entry.name for entry in entries})
        for entry in entries:
            if tuple(state[entry.name].shape) != entry.shape:
                found, want = tuple(state[entry.name].shape), entry.shape
                raise self._problem(
                    entry.name, f"its shape is {found}, {want} fits the others: check num_heads ({self.num_heads})"
                )
        for entry in entries:
            entry.put(state[entry.name])
        for rest in self._absent(mixer):
            rest.zero_()

    @torch.no_grad()
    def weights(self, mixer: Mixer) -> dict[str, Tensor]:
        """A mixer's weights under the published names, as copies of the mixer's own type.

        Raises `WeightsProblem` where the mixer is not this layer, or has learned something that the layer has no
        place for.
        """
        config = mixer.config
        rank = mixer.design.retention.keep.rank
        self._check(mixer, _Widths(config.d_model, config.keys, config.values, config.conv, rank))
        if any(bool(rest.any()) for rest in self._absent(mixer)):
            what = "a start of the memory or a bias of a gate is not 0, and the published layer has none"
            raise self._problem("mixer", f"{what}: train one that PublishedLayer.mixer has made, which keeps them at 0")
        return {entry.name: entry.taken() for entry in self._entries(mixer)}

    @property
    def _is_gated(self) -> bool:
        return GATED[self.kind] if self.use_gate is None else self.use_gate

    @property
    def _is_convolved(self) -> bool:
        return CONVOLVED[self.kind] if self.use_short_conv is None else self.use_short_conv

    @property
    def _norm(self) -> str:
        """The name of the output norm's scale."""
        if self.kind != "gla":
            return "o_norm.weight"
        return "g_norm_swish_gate.weight" if self._is_gated else "g_norm.weight"

    def _widths(self, state: Mapping[str, Tensor]) -> _Widths:
        """The widths that the tensors' shapes tell."""
        rows, d_model = self._size(state, "q_proj.weight", 2)
        (values,) = self._size(state, self._norm, 1)
        taps = self._size(state, "q_conv1d.weight", 3)[-1] if self._is_convolved else 0
        rank = self._size(state, "gk_proj.0.weight", 2)[0] if self.kind == "gla" else 0
        if rows % self.num_heads:
            raise self._problem("q_proj.weight", f"{rows} rows are not {self.num_heads} heads: check num_heads")
        return _Widths(d_model, rows // self.num_heads, values, taps, rank)

    def _size(self, state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
        if name not in state:
            raise self._missing(name)
        shape = tuple(state[name].shape)
        if len(shape) != axes or 0 in shape:
            raise self._problem(name, f"its shape is {shape}: give a {axes}-dimensional tensor that is not empty")
        return shape

    def _settings(self, widths: _Widths) -> tuple[ModelConfig, DesignPoint]:
        try:
            config = self._config(widths)
        except FieldError as error:
            raise self._problem(f"model.{error.field}", error.what) from None
        design = DesignPoint.parse({"preset": self.kind, "memory": {"matrix": {"start": "zero"}}})
        if self.kind == "gla":
            design = design.changed("retention.keep.temper", self.gate_logit_normalizer)
            design = design.changed("retention.keep.rank", widths.rank)
        elif self.allow_neg_eigval:
            design = design.changed("step.scale", 2.0)
        return config, design

    def _config(self, widths: _Widths) -> ModelConfig:
        return ModelConfig(
            layers=1,
            d_model=widths.d_model,
            heads=self.num_heads,
            key_dim=widths.keys,
            value_dim=widths.values,
            conv=widths.taps,
            activation="none" if self.kind == "gla" and not self._is_convolved else "silu",
            qk_norm="none" if self.kind == "gla" else "l2",
            output_norm="rms",
            norm_eps=self.norm_eps * widths.keys,
            output_gate=self._is_gated,
        )

    def _check(self, mixer: Mixer, widths: _Widths) -> None:
        """Raise `WeightsProblem` where a mixer is not this layer at these widths."""
        config, design = self._settings(widths)
        found = mixer.config.canonical()
        around = {name: getattr(found, name) for name in AROUND}
        wanted = dataclasses.replace(config, **around).canonical()
        for field in dataclasses.fields(ModelConfig):
            has, wants = getattr(found, field.name), getattr(wanted, field.name)
            same = math.isclose(has, wants, rel_tol=1e-9) if field.name == "norm_eps" else has == wants
            if not same:
                raise self._problem(f"model.{field.name}", f"the mixer has {has}, the layer {wants}: set it so")
        has_plain, wants_plain = _function(mixer.design), _function(design)
        for key, wants in wants_plain.items():
            if has_plain[key] != wants:
                raise self._problem(key, f"the mixer's is {has_plain[key]}, the layer's {wants}: set it so")
        if mixer.step_scale is not None and float(mixer.step_scale) != 1.0:
            scale = float(mixer.step_scale)
            raise self._problem("step", f"the mixer's steps are scaled by {scale:g}: use one whose steps are not")

    def _check_names(self, found: set[str], wanted: set[str]) -> None:
        """Raise `WeightsProblem` where a name is missing or unknown."""
        for name in sorted(wanted - found):
            raise self._missing(name)
        for name in sorted(found - wanted):
            cure = self._cure(name, True) or "leave it out if the layer does nothing with it"
            raise self._problem(name, f"the layer has no tensor of that name: {cure}")

    def _missing(self, name: str) -> WeightsProblem:
        cure = self._cure(name, name == "g_norm.weight") or "give all tensors of one layer, without its prefix"
        return self._problem(name, f"not among the tensors: {cure}")

    def _cure(self, name: str, having: bool) -> str:
        """The argument that says whether the layer has a tensor, where one does."""
        argument = "use_gate" if name.startswith("g_") else "use_short_conv" if "_conv1d.weight" in name else None
        return f"set {argument}={having}, if that is the layer" if argument else ""

    def _entries(self, mixer: Mixer) -> Iterator[_Entry]:
        """Every published tensor with its place in the mixer, in the order of a forward pass."""
        qkv, gate, gates = torch.split(mixer.project.weight, mixer.split)
        for letter, rows in zip("qkv", torch.split(qkv, mixer.widths), strict=True):
            yield _Entry(f"{letter}_proj.weight", rows)
        if mixer.conv is not None:
            for letter, taps in zip("qkv", torch.split(mixer.conv.weight.T, mixer.widths), strict=True):
                yield _Entry(f"{letter}_conv1d.weight", taps, is_filter=True)
        if self.kind != "gla":
            yield _Entry("b_proj.weight", gates[mixer.gates.slices["step"]])
        if self.kind == "gated_delta_net":
            yield _Entry("a_proj.weight", gates[mixer.gates.slices["keep"]])
            yield _Entry("A_log", mixer.gates.log_rate["keep"])
            yield _Entry("dt_bias", mixer.gates.bias["keep"])
        if self.kind == "gla":
            yield _Entry("gk_proj.0.weight", gates[mixer.gates.slices["keep"]])
            yield _Entry("gk_proj.1.weight", mixer.gates.widen["keep"].T)
            yield _Entry("gk_proj.1.bias", mixer.gates.bias["keep"])
        if len(gate):
            yield _Entry("g_proj.weight", gate)
        assert mixer.norm is not None
        yield _Entry(self._norm, mixer.norm)
        yield _Entry("o_proj.weight", mixer.out.weight)

    def _absent(self, mixer: Mixer) -> list[Tensor]:
        """Parameters of the mixer that the layer does not have: they are 0 in it."""
        held = ("keep",) if self.kind != "delta_net" else ()
        return [*mixer.start, *(bias for slot, bias in mixer.gates.bias.items() if slot not in held)]

    def _problem(self, place: str, what: str) -> WeightsProblem:
        return WeightsProblem(f"{self.kind}: {place}: {what}")


def _function(design: DesignPoint) -> dict[str, Plain]:
    """A design without what does not matter once it has weights: starting values, and how it is run."""
    plain = design.canonical().to_plain()
    return {key: _without_starts(value) for key, value in plain.items()}


def _without_starts(value: Plain) -> Plain:
    """A plain form without the starts of memories and of gates that are not fixed."""
    if not isinstance(value, dict):
        return value
    idle = {"start"} if value.get("source") in (None, "fixed") else {"start", "value"}
    return {name: _without_starts(inner) for name, inner in value.items() if name not in idle}
