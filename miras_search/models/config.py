"""The shape of a model around its memory layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from miras_search.space.fields import require, setting


@final
@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A small language model; what is compared lives in the design point, not here."""

    layers: int = setting(2, "blocks")
    d_model: int = setting(32, "width of the residual stream")
    heads: int = setting(2, "memories a layer")
    key_dim: int | None = setting(None, "key dimension a head; none: d_model / heads")
    value_dim: int | None = setting(None, "value dimension a head; none: d_model / heads")
    conv: int = setting(4, "width of the causal depthwise convolution on q, k, v; 0: none")
    output_gate: bool = setting(True, "multiply the memory's output by SiLU of a projection of the input")
    feed_forward: Literal["none", "swiglu"] = setting("none", "channel mixer after each memory layer")
    feed_forward_ratio: float = setting(2.0, "hidden width of the channel mixer as a multiple of d_model")
    tie_embeddings: bool = setting(False, "use the embedding as the output head")
    init_scale: float = setting(
        1.0, "multiplies the standard deviation 1/sqrt(fan in) of every projection at the start"
    )

    def __post_init__(self) -> None:
        for field in ("layers", "d_model", "heads"):
            require(getattr(self, field) >= 1, field, f"{getattr(self, field)} must be at least 1")
        for field in ("key_dim", "value_dim"):
            width = getattr(self, field)
            require(width is None or width >= 1, field, f"{width} must be at least 1")
            divides = width is not None or self.d_model % self.heads == 0
            require(
                divides, "heads", f"d_model {self.d_model} is not a multiple of {self.heads} heads: set {field} too"
            )
        require(0 <= self.conv <= 64, "conv", f"{self.conv} is not between 0 (none) and 64")
        require(self.feed_forward_ratio > 0, "feed_forward_ratio", f"{self.feed_forward_ratio:g} must be positive")
        require(self.init_scale > 0, "init_scale", f"{self.init_scale:g} must be positive")

    @property
    def keys(self) -> int:
        """Key dimension a head."""
        return self.key_dim or self.d_model // self.heads

    @property
    def values(self) -> int:
        """Value dimension a head."""
        return self.value_dim or self.d_model // self.heads
