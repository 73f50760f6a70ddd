"""Gates: where keep, step, momentum and thresholds come from.

A gate is fixed (a number), learned (a parameter) or data-dependent (a projection of the layer's input, direct or
through a bottleneck), one value a head or one a channel, then squashed into its range. `value` is the number of a fixed
gate and the starting value of the others, so that a learned and a fixed gate begin as the same model. A keep gate may
be tied: to the step (a = exp(-rate e), Mamba 2), or the key to it (k = 1 - a, HGRN2). Its heads may begin on a ladder,
from short memories to long ones (RetNet); a fixed gate stays on it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, final

from miras_search.space.fields import Path, Plain, SpecError, build, require, setting
from miras_search.space.lazy import LazyModule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = LazyModule("torch")

LOG_FLOOR = -30.0  # exp(-30) = 1e-13: nothing is kept, and cumulative sums over a chunk stay finite in float32
LEAST_FORGOTTEN = 2.0**-40  # on a ladder: below float32's resolution of 1, and a sigmoid's start stays finite


DECAYS = ("mamba", "rwkv")  # squash to a decay's logarithm, so they are for keep only
FIXED = ("source", "value", "ladder")  # the settings that a fixed gate has
UNFIXED = "and a fixed gate has only a value: add source: data or source: learned"
RWKV_RATE = math.exp(-0.5)  # RWKV-7's decay is exp(-e^(-1/2) sigmoid(.)): never below 0.545

Scope = Literal["head", "key", "value", "key_value"]


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """A number per token and head or channel: where it comes from and how it is squashed."""

    source: Literal["fixed", "learned", "data"] = setting("data", "a number, a parameter, or a projection of the input")
    scope: Scope = setting("head", "what has a value of its own: a head, a key or value channel, or both (product)")
    squash: Literal["sigmoid", "softplus", "mamba", "rwkv"] = setting("sigmoid", "how a raw number becomes the gate")
    value: float = setting(0.5, "the fixed value; the starting value of a learned or data gate")
    scale: float = setting(1.0, "upper end of a sigmoid (2: negative eigenvalues in a delta rule)")
    temper: float = setting(1.0, "root taken of a sigmoid: 16 in GLA keeps more")
    floor: float = setting(0.0, "lower end of a sigmoid: HGRN2's least keep, floor + (1 - floor) sigmoid")
    rank: int = setting(0, "width of a data gate's bottleneck (Miras: 32 or 64); 0: projected directly")
    tie: Literal["none", "step", "key"] = setting(
        "none", "keep only: decay by the step, exp(-rate e) with a learned rate; or the key is 1 - keep"
    )
    ladder: Literal["none", "halving", "slopes"] = setting(
        "none",
        "keep only, how heads h = 1..H begin: 1 - (1 - value)/2^(h-1) as in RetNet, or value^(2^(-8h/H)) as ALiBi's "
        "slopes; none: all at value",
    )

    def __post_init__(self) -> None:
        require(math.isfinite(self.value), "value", f"{self.value} is not finite")
        require(self.scale > 0, "scale", f"{self.scale} must be positive")
        require(self.temper > 0, "temper", f"{self.temper:g} must be positive")
        require(self.temper == 1 or self.squash == "sigmoid", "temper", "only a sigmoid is tempered")
        require(0 <= self.floor < self.scale, "floor", f"{self.floor:g} is not at least 0 and below {self.scale:g}")
        floored = self.floor == 0 or (self.squash == "sigmoid" and self.temper == 1)
        require(floored, "floor", "only a sigmoid that is not tempered has a floor: set squash: sigmoid and temper: 1")
        require(0 <= self.rank <= 1024, "rank", f"{self.rank} is not between 0 (no bottleneck) and 1024")
        tied_step = self.tie != "step" or (self.source != "fixed" and self.squash == "mamba" and self.rank == 0)
        require(tied_step, "tie", "decay by the step is exp(-rate e): set squash: mamba, rank: 0, no fixed source")
        tied_key = self.tie != "key" or (self.source == "data" and self.scope == "key")
        require(tied_key, "tie", "keys made from keep need source: data and scope: key")
        if self.ladder != "none":
            require(0 < self.value < 1, "value", f"a ladder begins strictly between 0 and 1, got {self.value:g}")
            open_above = self.source == "fixed" or self.reach == 1
            require(open_above, "ladder", f"its heads climb towards 1, and this gate ends at {self.reach:g}")
        if self.source == "fixed":
            return
        if self.squash == "sigmoid":
            ok = self.sigmoid_least < self.value < self.reach
            ends = f"{self.sigmoid_least:g} and {self.reach:g}"
            require(ok, "value", f"a {self.source} sigmoid gate starts strictly between {ends}")
        if self.squash == "rwkv":
            least = math.exp(-RWKV_RATE) ** self._factors
            require(least < self.value < 1, "value", f"an rwkv decay starts strictly between {least:.4f} and 1")
        if self.squash == "softplus":
            require(self.value > 0, "value", f"a {self.source} softplus gate starts above 0, got {self.value:g}")
        if self.squash == "mamba":
            require(0 < self.value < 1, "value", f"a mamba decay starts strictly between 0 and 1, got {self.value:g}")

    @classmethod
    def from_plain(cls, data: object, where: Path, default: object = None) -> Gate:
        """A gate from a number (fixed), a source's name, or settings that refine the slot's default."""
        base = default if isinstance(default, Gate) else cls()
        if isinstance(data, int | float) and not isinstance(data, bool):
            return build(cls, {**_all(base), "source": "fixed", "value": data}, where)
        if isinstance(data, str):
            data = {"source": data}
        if not isinstance(data, Mapping):
            raise SpecError.at(where, f"expected a number, fixed, learned, data, or a gate's settings, got {data!r}")
        refined = {**_all(base), **data}
        if base.source != "fixed":
            return build(cls, refined, where)
        idle = [str(name) for name in data if name in _all(base) and name not in FIXED[1:]]
        if idle and "source" not in data:
            raise SpecError.at((*where, idle[0]), f"{base.value:g} is fixed here unless a source is named, {UNFIXED}")
        if refined["source"] != "fixed" and "value" not in data and refined["squash"] == "sigmoid":
            given = build(cls, {**refined, "source": "fixed", "value": 0.0, "tie": "none"}, where)
            least, reach = given.sigmoid_least, given.sigmoid_reach
            if not least < base.value < reach:
                refined["value"] = (least + reach) / 2  # no sigmoid starts at a constant 0 or 1
        return build(cls, refined, where)

    def to_plain(self) -> dict[str, Plain]:
        """Settings that matter: a fixed gate is its value, or ladder, alone."""
        plain = _all(self)
        if self.source == "learned":
            plain["rank"] = 0  # nothing is projected that a bottleneck could narrow
        if self.tie == "step":
            plain["source"] = "data"  # the step's: no more than a rate is its own
        idle: tuple[str, ...] = () if self.squash == "sigmoid" else ("scale", "temper")
        if self.source == "fixed":
            idle = tuple(name for name in plain if name not in FIXED)
        idle = idle if self.floor else (*idle, "floor")  # these two are younger than the hashes of designs without
        idle = idle if self.ladder != "none" else (*idle, "ladder")
        return {name: value for name, value in plain.items() if name not in idle}

    @property
    def is_one(self) -> bool:
        """Whether the gate is the constant 1."""
        return self.source == "fixed" and self.value == 1.0

    @property
    def is_zero(self) -> bool:
        """Whether the gate is the constant 0."""
        return self.source == "fixed" and self.value == 0.0

    @property
    def reach(self) -> float:
        """The upper end of the range: the value of a fixed gate, infinity for softplus."""
        if self.source == "fixed":
            return self.value
        return {"sigmoid": self.sigmoid_reach, "softplus": math.inf}.get(self.squash, 1.0)

    @property
    def sigmoid_reach(self) -> float:
        """The upper end of a sigmoid of this scale, temper and scope."""
        return float(self.scale ** ((2 if self.scope == "key_value" else 1) / self.temper))

    @property
    def sigmoid_least(self) -> float:
        """The lower end of a sigmoid of this floor and scope."""
        return float(self.floor ** (2 if self.scope == "key_value" else 1))

    @property
    def _factors(self) -> int:
        """How many squashed numbers it is the product of."""
        return 2 if effective(self) == "key_value" else 1

    @property
    def factor(self) -> float:
        """The starting value of each of them; their product starts at `value`."""
        return float(self.value ** (1 / self._factors))

    def __str__(self) -> str:
        text = f"{self.value:g}" if self.source == "fixed" else self.source
        return text if self.ladder == "none" else f"{text} {self.ladder}"

    @property
    def start(self) -> float:
        """The raw number that squashes to `factor`: the bias of a data gate, the parameter of a learned one."""
        return self._raw(self.factor)

    def rungs(self, heads: int) -> tuple[float, ...]:
        """The value of every head of so many, at the start where it is trained."""
        numbers = range(1, heads + 1)
        if self.ladder == "halving":
            return tuple(1 - max((1 - self.value) * 2.0 ** (1 - h), LEAST_FORGOTTEN) for h in numbers)
        if self.ladder == "slopes":
            return tuple(self.value ** (2.0 ** (-8 * h / heads)) for h in numbers)
        return (self.value,) * heads

    def factors(self, heads: int) -> tuple[float, ...]:
        """`factor` of every head of so many."""
        return tuple(value ** (1 / self._factors) for value in self.rungs(heads))

    def starts(self, heads: int) -> tuple[float, ...]:
        """`start` of every head of so many."""
        return tuple(map(self._raw, self.factors(heads)))

    def _raw(self, factor: float) -> float:
        """The raw number that squashes to one of its factors."""
        if self.squash == "sigmoid":
            share = (factor**self.temper - self.floor) / (self.scale - self.floor)
            return math.log(share / (1 - share))
        if self.squash == "rwkv":
            share = -math.log(factor) / RWKV_RATE
            return math.log(share / (1 - share))
        if self.squash == "softplus":
            return _inverse_softplus(factor)
        return _inverse_softplus(-math.log(factor))  # mamba at rate 1: exp(-softplus(raw)) = factor

    def squashed(self, raw: Tensor) -> Tensor:
        """The gate's value from a raw number (sigmoid and softplus)."""
        if self.squash == "softplus":
            return torch.nn.functional.softplus(raw)
        found = self.floor + (self.scale - self.floor) * torch.sigmoid(raw)
        return found if self.temper == 1 else found ** (1 / self.temper)

    def log_squashed(self, raw: Tensor, log_rate: Tensor | None = None) -> Tensor:
        """The logarithm of a keep gate, floored at `LOG_FLOOR`; mamba's is -exp(log_rate) softplus(raw)."""
        if self.squash == "mamba":
            rate = 1.0 if log_rate is None else torch.exp(log_rate)
            return (-rate * torch.nn.functional.softplus(raw)).clamp(min=LOG_FLOOR)
        if self.squash == "rwkv":
            return -RWKV_RATE * torch.sigmoid(raw)
        if self.floor:
            return torch.log(self.squashed(raw))
        found = torch.nn.functional.logsigmoid(raw) + math.log(self.scale)
        return (found if self.temper == 1 else found / self.temper).clamp(min=LOG_FLOOR)

    def width(self, keys: int, values: int) -> int:
        """Values a head and token, for heads of these dimensions."""
        return {"head": 1, "key": keys, "value": values, "key_value": keys + values}[self.scope]


def _all(gate: Gate) -> dict[str, Plain]:
    return {field.name: getattr(gate, field.name) for field in dataclasses.fields(gate)}


def _inverse_softplus(value: float) -> float:
    """log(exp(value) - 1), without the exponential's overflow."""
    return value + math.log(-math.expm1(-value))


def fixed(value: float) -> Gate:
    """A constant gate."""
    return Gate(source="fixed", value=value)


def effective(gate: Gate) -> Scope:
    """A gate's scope; a fixed one is the same number everywhere."""
    return "head" if gate.source == "fixed" else gate.scope


def times(gate: Tensor, factor: Tensor | float, product_keys: int = 0) -> Tensor:
    """A gate's values [..] times a factor that broadcasts over them.

    `product_keys`: the number of key channels where the gate is the product of key and value channels [..,K+V], of
    which the key's alone are multiplied, lest the factor enter twice; 0 elsewhere.
    """
    if not product_keys:
        return factor * gate
    return torch.cat([factor * gate[..., :product_keys], gate[..., product_keys:]], -1)


def product_keys(gate: Tensor, k: Tensor, v: Tensor) -> int:
    """The number of key channels where a gate of the writes k [..,H,K], v [..,H,V] is a product [..,H,K+V]; else 0."""
    keys = k.shape[-1]
    return keys if gate.dim() == k.dim() and gate.shape[-1] == keys + v.shape[-1] else 0


def threshold_problem(gate: Gate) -> str | None:
    """Why a gate cannot be the threshold of a bias, or None."""
    return f"{gate.squash}'s decay is a keep gate, not a threshold" if gate.squash in DECAYS else None


KEEP = Gate(source="data", squash="sigmoid", value=0.97)  # retains half a memory over about 23 tokens at the start
STEP = Gate(source="data", squash="sigmoid", value=0.5)
MOMENTUM = Gate(source="data", squash="sigmoid", value=0.8)


def keep_problem(gate: Gate) -> str | None:
    """Why a gate cannot be a keep gate, or None."""
    if gate.source == "fixed" and not 0 <= gate.value <= 1:
        return f"a keep gate lies in [0, 1], got {gate.value:g}"
    if gate.squash == "softplus" and gate.source != "fixed":
        return "softplus exceeds 1: a keep gate is a sigmoid, or mamba's or rwkv's decay"
    if gate.reach > 1:
        return f"a keep gate lies in [0, 1]: scale {gate.scale:g} lets it reach {gate.reach:g}"
    return None


def momentum_problem(gate: Gate) -> str | None:
    """Why a gate cannot be a momentum, or None."""
    if gate.source == "fixed" and not 0 <= gate.value < 1:
        return "a fixed momentum lies in [0, 1)"
    if gate.squash != "sigmoid":
        return "momentum is squashed by a sigmoid"
    if gate.source != "fixed" and gate.reach > 1:
        return f"momentum lies in [0, 1): scale {gate.scale:g} lets it reach {gate.reach:g}"
    return None


def union(one: Scope, other: Scope) -> Scope | None:
    """The scope of a product of two gates, or None where it is neither's."""
    if one == other or other == "head":
        return one
    return other if one == "head" else None
